"""A machine on this host: a scratch directory, and commands that run in it as ordinary processes.

The cheapest machine (a command costs 1 to 3 ms, a machine with ten files under 2 ms) and the least closed one. ::

    machine = LocalMachine("run-1")
    await machine.start()
    await machine.put("hello.py", b"print('hello')")
    result = await machine.exec(["python3", "hello.py"], timeout=10)
    await machine.stop()

**What it holds.** Everything a command started is dead when :meth:`LocalMachine.exec` returns, however it returns.
``put``, ``get`` and ``list`` cannot be led out of the scratch directory. The environment is built from an allow-list.

**What it does not hold.** Commands run as this user on this host, and can read and write whatever this user can. What
``/proc`` shows of the controller's own environment is overwritten when the first machine starts, its memory and other
programs' secrets are not. For commands you do not trust take a backend with walls.

**If the controller is killed** (``kill -9``) its commands run on until :func:`palmette.machines.reaper.reap` is called:
call it when a program starts, in a thread. ``PR_SET_PDEATHSIG`` would cost another exec per command (0.7 ms,
half of the whole) and would reach the first process only.

**What runs where.** ``put`` and ``get`` up to 64 KiB are done on the event loop (some 50 µs); larger ones,
``list`` and removals in a thread, with a deadline. Each running command takes three file descriptors,
four with stdin.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeVar

from palmette.machines.contract import (
    ExecResult,
    Limits,
    Machine,
    MachineDescription,
    Process,
    Snapshot,
    SnapshotGrade,
    StreamName,
    TerminalSize,
)
from palmette.machines.errors import MachineError, MachineLost, boundary
from palmette.machines.evidence import Evidence
from palmette.machines.identity import MachineId
from palmette.machines.local.process import Conversation, LocalProcess
from palmette.machines.local.space import Space
from palmette.machines.process import Execution
from palmette.machines.scratch import parent_directory
from palmette.machines.secrets import hide_environment
from palmette.machines.shelter import sheltered
from palmette.machines.snapshots import MAX_BYTES, demand, read_snapshot, write_snapshot
from palmette.machines.tree import EXEC_TAG, KILL_DEADLINE, MACHINE_TAG, Tree, group_known, open_tree, writable_group
from palmette.machines.wrapper import check_program, raise_not_started, raise_own_failure, wrap

E = TypeVar("E", bound=Execution)

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class LocalMachine(AbstractAsyncContextManager["LocalMachine"]):
    """A :class:`~palmette.machines.contract.Machine` made of a directory and processes of this host.

    Args:
        owner: id of the run that the machine belongs to: letters, digits, ``-`` and ``_``.
        root: where the scratch directory goes; default ``$PALMETTE_MACHINES`` or a directory of this user's in the
            temporary directory.
    """

    def __init__(self, owner: str, *, root: Path | None = None) -> None:
        self._id = str(MachineId.new(owner))
        self._owner = owner
        self._root = root
        self._space = Space(parent_directory(root), self._id)
        self._archive: Path | None = None
        self._state: Literal["new", "running", "stopping", "stopped"] = "new"
        self._count = 0
        self._running: set[Execution] = set()
        self._processes: set[asyncio.Task[ExecResult]] = set()
        self._idle = asyncio.Event()
        self._stop_lock = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<LocalMachine {self._id} {self._state}>"

    @property
    def id(self) -> str:
        """``<run>.<controller pid>.<its start>.<place>.<nonce>``: also the name of the scratch directory."""
        return self._id

    @property
    def directory(self) -> Path:
        """The working directory, as the host sees it."""
        return Path(self._space.work)

    @property
    def snapshot_grade(self) -> SnapshotGrade | None:
        return "workdir"

    def restore(self, archive: Path) -> None:
        """Have :meth:`start` unpack this snapshot in the working directory."""
        self._archive = archive

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Make the scratch directory.

        Raises:
            MachineError: started before, the parent directory is not ours alone, or the snapshot cannot be read.
            MachineLost: the host cannot make directories now.
        """
        if self._state != "new":
            raise MachineError(f"machine {self._id} was started before; make another one")
        hide_environment()
        with boundary("start", alive=lambda: True):
            self._state = "running"
            self._space.make()
        if self._archive is not None:
            await self._unpack(await asyncio.to_thread(read_snapshot, self._archive))

    async def exec(
        self,
        command: str | Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float = 60.0,
        env: Mapping[str, str] | None = None,
        cwd: str = ".",
        limits: Limits | None = None,
        max_output: int = 1 << 20,
        on_output: Callable[[StreamName, bytes], None] | None = None,
    ) -> ExecResult:
        """Run ``command`` and return when it, and all that it started, are gone.

        The environment is ``PATH`` (the host's), ``LANG``, ``HOME`` (the working directory), ``TMPDIR``, two tags of
        ours, and ``env``. A command still running at ``timeout`` is killed with its descendants; what it printed is in
        the result. Something it left in the background is killed at once when the command ends (after a tenth of a
        second if it holds the output). An exception from ``on_output`` kills the command and comes out here.

        Raises:
            MachineLost: the scratch directory is gone, the machine was stopped, or the command could not be killed.
            CommandNotStarted: no such program or directory, not executable, too long, or a limit the host refuses.
        """
        exec_id = await self._prepare(timeout)
        environment = self._environment(exec_id, env)

        def make(tree: Tree) -> Execution:
            return Execution(
                wrap(command, entry=tree.entry(), limits=limits, mark=_mark(exec_id)),
                tree=tree,
                env=environment,
                stdin=stdin,
                timeout=timeout,
                max_output=max_output,
                on_output=on_output,
            )

        return await self._run(self._launch(command, exec_id, environment, cwd, make), exec_id)

    async def open(
        self,
        command: str | Sequence[str],
        *,
        timeout: float = 3600.0,
        env: Mapping[str, str] | None = None,
        cwd: str = ".",
        limits: Limits | None = None,
        terminal: TerminalSize | None = None,
    ) -> Process:
        """As :meth:`exec`, and talk with it. A limit that the host refuses is told by its ``wait``."""
        exec_id = await self._prepare(timeout)
        environment = self._environment(exec_id, env)

        def make(tree: Tree) -> Conversation:
            conversation = Conversation(tree=tree, env=environment, timeout=timeout, terminal=terminal)
            name = conversation.open_terminal()
            conversation.set_command(
                wrap(command, entry=tree.entry(), limits=limits, mark=_mark(exec_id), terminal=name)
            )
            return conversation

        conversation = self._launch(command, exec_id, environment, cwd, make)
        process = LocalProcess(conversation, self._run(conversation, exec_id))
        self._processes.add(process.end)
        process.end.add_done_callback(self._process_ended)
        return process

    async def put(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """Atomically; directories above it are made, a symbolic link in its place is replaced.

        Raises:
            PathEscapes, NotAFile, IsADirectoryError, NotADirectoryError: the path is no place for a file.
        """
        self._check_running()
        await self._space.put(path, data, mode)

    async def get(self, path: str, *, max_bytes: int = 64 << 20) -> bytes:
        """Read a regular file.

        Raises:
            FileNotFoundError, IsADirectoryError, NotAFile, PathEscapes: there is no such file.
            FileTooLarge: it holds more than ``max_bytes``.
        """
        self._check_running()
        return await self._space.get(path, max_bytes)

    async def put_archive(self, path: str, archive: bytes) -> None:
        self._check_running()
        await self._space.put_archive(path, archive, links=False)

    async def get_archive(self, path: str = ".", *, max_bytes: int = 1 << 30) -> bytes:
        self._check_running()
        return await self._space.get_archive(path, max_bytes)

    async def list(self, path: str = ".") -> list[str]:
        self._check_running()
        return await self._space.list(path)

    async def probe(self, *, timeout: float = 5.0) -> float:
        """Run a command of its own: there is no other way to a host than being on it."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        result = await self.exec(":", timeout=timeout)
        if not result.ok:
            raise MachineLost(f"machine {self._id} did not run a command within {timeout:g} s: {result}")
        return loop.time() - began

    async def snapshot(self, *, minimum: SnapshotGrade = "workdir") -> Snapshot:
        """The working directory, as an archive beside the machines' directories."""
        self._check_running()
        demand(minimum, "workdir", "local")
        archive = await self._space.get_archive(".", MAX_BYTES)
        return await asyncio.to_thread(write_snapshot, archive, image="local", machine=self._id, root=self._root)

    async def fork(self) -> Machine:
        self._check_running()
        archive = await self._space.get_archive(".", MAX_BYTES)
        twin = LocalMachine(self._owner, root=self._root)
        await twin.start()
        await twin._unpack(archive)
        return twin

    async def describe(self) -> MachineDescription:
        self._check_running()
        system = os.uname()
        return MachineDescription(
            id=self._id,
            image="local",
            backend="local",
            workdir=self._space.real_work(),
            platform=f"{system.sysname} {system.release} {system.machine}",
            cpus=float(len(os.sched_getaffinity(0))),
            snapshot_grade="workdir",
        )

    async def reset(self) -> None:
        """Kill what runs (its ``exec`` returns with signal 9) and empty the working directory."""
        self._check_running()
        await self._silence()
        await self._space.empty()

    async def stop(self) -> None:
        """Kill what runs (its ``exec`` raises ``MachineLost``) and remove the scratch directory. Twice is fine.

        Raises:
            MachineError: something would not die or could not be removed; another ``stop`` tries again.
        """
        if self._state == "new":
            self._state = "stopped"
        async with self._stop_lock:
            if self._state == "stopped":
                return
            self._state = "stopping"
            try:
                await self._silence()
            finally:
                await self._space.remove()
            self._state = "stopped"

    async def _unpack(self, archive: bytes) -> None:
        try:
            await self._space.put_archive(".", archive, links=True)
        except BaseException:
            await sheltered(self.stop())
            raise

    async def _prepare(self, timeout: float) -> str:
        """The next command's id."""
        self._check_running()
        if not (math.isfinite(timeout) and timeout > 0):
            raise ValueError(f"timeout must be a finite number of seconds > 0, got {timeout!r}")
        if not group_known():
            await asyncio.to_thread(writable_group)
            self._check_running()
        self._count += 1
        return f"{self._id}.{self._count}"

    def _launch(
        self, command: str | Sequence[str], exec_id: str, env: dict[str, str], cwd: str, make: Callable[[Tree], E]
    ) -> E:
        with boundary(f"exec {_short(command)}", alive=self._space.alive):
            directory = self._space.open_directory(cwd)
            try:
                where = f"/proc/self/fd/{directory}"  # what was checked, whatever its name leads to by now
                if not isinstance(command, str):
                    check_program(command, search=env["PATH"], cwd=os.readlink(where))
                tree = open_tree(exec_id)
                try:
                    execution = make(tree)
                    execution.start(where)
                except BaseException as error:
                    tree.gone()
                    if isinstance(error, OSError):
                        raise_not_started(error, command)
                    raise
            finally:
                os.close(directory)
        self._running.add(execution)
        return execution

    async def _run(self, execution: Execution, exec_id: str) -> ExecResult:
        """To its end, and what that says about the machine."""
        try:
            result = await execution.run()
        finally:
            self._running.discard(execution)
            if not self._running:
                self._idle.set()
        if self._state != "running":
            raise MachineLost(f"machine {self._id} was stopped while the command ran")
        if not self._space.alive():
            raise MachineLost(
                f"the scratch directory of machine {self._id} went away while the command ran; "
                "its result says nothing, start another machine",
                Evidence(cause="machine_removed"),
            )
        raise_own_failure(result.exit_code, execution.last_words(), mark=_mark(exec_id))
        return execution.told(result)

    def _process_ended(self, task: asyncio.Task[ExecResult]) -> None:
        self._processes.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits will see it; nobody has to

    def _environment(self, exec_id: str, extra: Mapping[str, str] | None) -> dict[str, str]:
        tags = {MACHINE_TAG: self._id, EXEC_TAG: exec_id}
        if extra is not None and (taken := tags.keys() & extra.keys()):
            raise ValueError(f"{min(taken)} is how the machine finds its processes; env cannot set it")
        return {
            "PATH": os.environ.get("PATH", _PATH),
            "LANG": "C.UTF-8",
            "HOME": self._space.work,
            "TMPDIR": self._space.tmp,
            **(extra or {}),
            **tags,
        }

    def _check_running(self) -> None:
        if self._state == "new":
            raise MachineError(f"machine {self._id} is not started; await start() first")
        if self._state != "running":
            raise MachineLost(f"machine {self._id} was stopped; start another one", Evidence(cause="stopped"))

    async def _silence(self) -> None:
        """Kill the commands that run and wait until they are buried."""
        if not self._running:
            return
        self._idle.clear()
        for execution in self._running:
            execution.kill()
        try:
            async with asyncio.timeout(3 * KILL_DEADLINE):
                await self._idle.wait()
                if self._processes:
                    await asyncio.wait(self._processes)
        except TimeoutError as error:
            raise MachineLost(f"{len(self._running)} command(s) of machine {self._id} would not die") from error


def _mark(exec_id: str) -> str:
    return f"palmette-wrapper:{exec_id}"


def _short(command: str | Sequence[str]) -> str:
    text = repr(command if isinstance(command, str) else list(command))
    return text if len(text) <= 80 else text[:77] + "..."
