"""The machine that carries a node: a host that we can reach becomes a member of the cluster, as one supervised child.

    plan = NodePlan(image="ssh://user@gpuhost", join="head:1900", bundle=invite(None, "gpuhost"))
    tree = Supervisor.spec(children=[carried_node(plan, name="gpuhost")])

``palmette up`` is such a tree. The carrier starts a machine there, sees to it that it has a Python with this palmette,
gives it its credentials (through a program's standard input: they are in no argument list), and runs ``palmette node``
on it. All that is put there lies in the machine's own directory and carries its tag, so that nothing is left when the
machine stops. When the node ends, or the machine is lost, the carrier crashes with the reason, and its supervisor
decides; a machine that hears nothing of its controller for its lease ends by itself, node and all.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from palmette import __version__
from palmette.actors import Actor, Reason, describe, endpoint, is_graceful
from palmette.machines.contract import ExecResult, Process
from palmette.machines.errors import ImageUnusable, MachineError
from palmette.machines.images import machine_for
from palmette.machines.wheel import build_wheel
from palmette.supervisors import Backoff, ChildSpec, child

logger: Final = logging.getLogger("palmette.up")

PYTHONS: Final = ("python3.13", "python3.12", "python3.11", "python3")
LOOK_SECONDS: Final = 60.0
"""For an interpreter to be found: Python's first start on a cold disk takes long."""
INSTALL_SECONDS: Final = 1800.0
"""For a virtual environment to be made, and pip to fill it."""
JOIN_SECONDS: Final = 120.0
"""For the node to say that it has joined."""
NODE_SECONDS: Final = 10 * 365 * 86400.0
"""A machine ends every command some time."""
LAST_LINES: Final = 20
MAX_LINE: Final = 64 << 10
FINAL: Final = ("ImageUnusable", "UnknownImage", "NotInstalled", "MachineError")
"""Errors that another try would meet again."""
JOINED: Final = "joined "
"""What the line begins with by which a node says that it has joined."""

_FIND: Final = 'for p in "$@"; do p=$(command -v "$p") && "$p" -c "$PROBE" "$p" && exit 0; done; exit 1'
_PROBE: Final = """
import json, os, pwd, sys
if sys.version_info < (3, 11):
    sys.exit("%s is Python %d.%d" % (sys.executable, *sys.version_info[:2]))
from importlib import metadata
try:
    version = metadata.version("palmette")
except metadata.PackageNotFoundError:
    version = ""
print(json.dumps([sys.argv[1], version, pwd.getpwuid(os.getuid()).pw_dir]))
"""
_ACCEPT: Final = """
import sys
from palmette.actors.cluster.authority import accept
accept(None, sys.stdin.buffer.read())
"""


class NotInstalled(MachineError):
    """The host cannot be given what a node needs; another try fails alike."""


class NodeEnded(MachineError):
    """The node ended by itself; its last words are in the text."""

    retryable = True


class NodePlan(msgspec.Struct, frozen=True, kw_only=True):
    """A node, and the host that it is to run on."""

    image: str
    """Of the machine that carries it: ``ssh://user@host``."""
    join: str
    """The head's ``HOST:PORT``, as that host can reach it."""
    capabilities: dict[str, str] = {}
    """What the host offers beyond what is found there."""
    bundle: bytes = b""
    """What makes the host a member of the cluster (``palmette cluster invite``)."""
    python: str = ""
    """An interpreter on that host. If it has this version of palmette it is used as it is; if not, or if none is named,
    palmette is installed into a virtual environment of the machine's own."""
    install: tuple[str, ...] = ()
    """Further words for pip: requirements, files of this host (``my_agents-1.0-py3-none-any.whl``), options
    (``--index-url=…``, ``--find-links=DIR`` of that host)."""
    environment: dict[str, str] = {}
    """For the node, and so for all that runs on it; it sees nothing else but PATH, HOME, USER and LANG."""
    program: tuple[str, ...] = ("-m", "palmette", "node")
    """What the interpreter is to run."""
    accept: tuple[str, ...] = ("-c", _ACCEPT)
    """What the interpreter is to run first, with the bundle as its input."""

    @property
    def host(self) -> str:
        """The image without its options, for people."""
        return self.image.partition("?")[0]

    def __repr__(self) -> str:
        return f"<a node on {self.host}>"  # the bundle is nobody's business


def carried_node(plan: NodePlan, *, name: str) -> ChildSpec[NodeCarrier]:
    """A child that keeps a node up: what another try may mend is tried again, ever more slowly."""
    return child(
        NodeCarrier,
        plan,
        name=name,
        shutdown=30.0,
        backoff=Backoff(min=1.0, max=60.0),
        rules={"retryable": "backoff", **dict.fromkeys(FINAL, "escalate")},
    )


class NodeCarrier(Actor):
    """See the module's text."""

    def __init__(self, plan: NodePlan) -> None:
        self._plan = plan
        self._machine = machine_for(plan.image, owner="up")
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._unfinished: dict[str, bytes] = {}
        """Of each stream, the line that has not ended yet."""
        self._is_stopping = False

    async def continued(self) -> None:
        # Not in started(): to install takes minutes, and other hosts need not wait for this one. Calls do.
        self.start_task(self._clean_up())
        await self._machine.start()
        python, home = await self._interpreter()
        where = await self._machine.describe()
        environment = {"HOME": home, "PALMETTE_CLUSTER_DIR": f"{where.workdir}/cluster", **self._plan.environment}
        if self._plan.bundle:
            accepting = self._machine.exec(
                [python, *self._plan.accept], stdin=self._plan.bundle, timeout=LOOK_SECONDS, env=environment
            )
            self._check(await accepting, "give it its credentials")
        words = [f"--join={self._plan.join}"]
        words += [f"--capability={name}={value}" for name, value in self._plan.capabilities.items()]
        command = [python, *self._plan.program, *words]
        process = await self._machine.open(command, timeout=NODE_SECONDS, env=environment)
        try:
            async with asyncio.timeout(JOIN_SECONDS):
                while not any(line.startswith(JOINED) for line in await self._heard(process)):
                    pass
        except TimeoutError:
            raise NodeEnded(
                f"the node on {self._plan.host} did not join {self._plan.join} within {JOIN_SECONDS:g} s; "
                f"it said: {self._words()}"
            ) from None
        logger.info("%s: is a member of the cluster at %s now", self._plan.host, self._plan.join)
        self.start_task(self._watch(process))

    async def stopping(self, reason: Reason) -> None:
        self._is_stopping = True
        if not is_graceful(reason):
            logger.warning("%s: %s", self._plan.host, describe(reason))
        await self._machine.stop()

    @endpoint
    async def wait_up(self) -> str:
        """Wait until the node has joined; the machine's id on its host."""
        return self._machine.id

    # --- on the host -------------------------------------------------------------------------------------------------

    async def _interpreter(self) -> tuple[str, str]:
        """The Python to run the node with, and the user's home there."""
        plan = self._plan
        find = ["/bin/sh", "-c", _FIND, "sh", *([plan.python] if plan.python else PYTHONS)]
        found = await self._machine.exec(find, env={"PROBE": _PROBE}, timeout=LOOK_SECONDS)
        if not found.ok:
            raise ImageUnusable(
                f"{plan.host} has no Python 3.11 or newer by the name of {plan.python or ', '.join(PYTHONS)} "
                f"({_said(found)}); install one there, or name it: --python PATH"
            )
        python, version, home = msgspec.json.decode(
            found.stdout.strip().rpartition(b"\n")[2], type=tuple[str, str, str]
        )
        if plan.python and version == __version__:
            return python, home
        return await self._install(python, home), home

    async def _install(self, python: str, home: str) -> str:
        root = (await self._machine.describe()).workdir
        name, wheel = await asyncio.to_thread(build_wheel)
        await self._machine.put(f"node/{name}", wheel)
        words: list[str] = []
        for word in self._plan.install:
            file = Path(word)
            if await asyncio.to_thread(file.is_file):
                await self._machine.put(f"node/{file.name}", await asyncio.to_thread(file.read_bytes))
                word = f"{root}/node/{file.name}"
            words.append(word)
        environment = {"HOME": home, **self._plan.environment}  # pip finds its configuration there
        made = f"{root}/node/venv/bin/python"
        pip = [made, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--disable-pip-version-check", *words]
        for doing, command in (
            ("make a virtual environment (is python3-venv installed?)", [python, "-m", "venv", f"{root}/node/venv"]),
            ("install palmette", [*pip, f"{root}/node/{name}"]),
        ):
            logger.info("%s: %s", self._plan.host, doing)
            self._check(await self._machine.exec(command, timeout=INSTALL_SECONDS, env=environment), doing)
        return made

    def _check(self, result: ExecResult, doing: str) -> None:
        if not result.ok:
            raise NotInstalled(f"could not {doing} on {self._plan.host}: {_said(result)}")

    # --- while it runs -----------------------------------------------------------------------------------------------

    async def _heard(self, process: Process) -> Sequence[str]:
        """The next lines that the node says. Raises NodeEnded."""
        piece = await process.read()
        if piece is None:
            ended = await process.wait()
            raise NodeEnded(
                f"the node on {self._plan.host} ended with status {ended.exit_code}; it said: {self._words()}"
            )
        stream, data = piece
        *lines, self._unfinished[stream] = (self._unfinished.get(stream, b"") + data)[-MAX_LINE:].split(b"\n")
        texts = [line.decode(errors="replace").rstrip() for line in lines]
        self._last.extend(texts)
        for text in texts:
            logger.info("%s: %s", self._plan.host, text)
        return texts

    def _words(self) -> str:
        """The last that the node has said."""
        unfinished = [rest.decode(errors="replace") for rest in self._unfinished.values() if rest]
        return "\n".join([*self._last, *unfinished]) or "nothing"

    async def _watch(self, process: Process) -> None:
        while True:
            await self._heard(process)

    async def _clean_up(self) -> None:
        # An actor that is killed does not get to stopping(), but its tasks are cancelled whatever ends it.
        try:
            await self.system.loop.create_future()
        finally:
            if not self._is_stopping:
                await self._machine.stop()


def _said(result: ExecResult) -> str:
    """The end of what a command said, on one line."""
    if result.timed_out:
        return f"it took longer than {result.duration:.0f} s"
    text = (result.stderr or result.stdout).decode(errors="replace")
    return " ".join(text.split())[-500:] or f"status {result.exit_code}"
