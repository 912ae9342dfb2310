"""What the e2b backend supplies: a sandbox, streams into it, how it is, its copies and its end."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar
from urllib.parse import urlsplit

from palmette.machines.backend import Backend, Place
from palmette.machines.contract import SnapshotGrade
from palmette.machines.e2b.account import CALL_DEADLINE, LEASE, MACHINE, OWNER, E2bAccount, call, import_sdk
from palmette.machines.e2b.channel import E2bChannel, end_copies
from palmette.machines.errors import MachineError, MachineLost
from palmette.machines.evidence import Evidence
from palmette.machines.identity import MachineId
from palmette.machines.shelter import sheltered

if TYPE_CHECKING:
    from e2b import AsyncSandbox

T = TypeVar("T")

LEASE_SECONDS = 60.0
"""A sandbox lives on for so long without a renewal."""
START_DEADLINE = 60.0
SNAPSHOT_DEADLINE = 300.0
EXAMINE_DEADLINE = 1.5
"""Seconds for each of the two questions that :meth:`E2bBackend.examine` asks at the same time."""
PULSE = 1.0
PULSE_DEADLINE = 1.0
"""After so many seconds without a byte from the sandbox its health is asked for, and may take so many to come: a
frozen sandbox, or way to it, breaks no connection by itself. What fails is examined before anybody is told."""
_WAY = ("connection_lost", "daemon_gone", "daemon_frozen", "quota")
"""Trouble on the way to E2B, which may pass."""


class E2bBackend(Backend):
    """One sandbox.

    Args:
        template: name or id of a template or a snapshot; ``""`` is E2B's base.
        machine: id of the machine, which labels the sandbox.
        workdir: the working directory; it is made if need be, so the template's user must be able to.
        network: whether commands reach the internet.
        lease: seconds (made whole) that the sandbox lives on without a renewal.
        pulse: seconds of silence after which the sandbox's health is asked for; a request of some 200 bytes.
    """

    name: ClassVar[str] = "e2b"
    isolation: ClassVar[Literal["namespaces", "container", "host", "vm"]] = "vm"
    snapshot_grade: SnapshotGrade | None = "memory"

    def __init__(
        self,
        template: str,
        machine: str,
        *,
        account: E2bAccount | None = None,
        workdir: str = "/home/user/work",
        network: bool = True,
        lease: float = LEASE_SECONDS,
        pulse: float = PULSE,
    ) -> None:
        self.id = machine
        self._template = template or "base"
        self._account = account or E2bAccount()
        self._workdir = workdir
        self._network = network
        self._lease = math.ceil(lease)
        self._sandbox: AsyncSandbox | None = None
        self._unaccounted = False
        self._expires = math.inf
        self._channels: list[E2bChannel] = []
        self._pulse = pulse
        self._pulsing: asyncio.Task[None] | None = None
        self._copying = 0

    def __repr__(self) -> str:
        return f"<E2bBackend {self._template} {self.sandbox_id or 'without a sandbox'}>"

    @property
    def sandbox_id(self) -> str | None:
        """What E2B calls it; ``None`` before the start and after the end."""
        return self._sandbox.sandbox_id if self._sandbox else None

    async def start(self) -> Place:
        """Make the sandbox.

        Raises:
            ImageUnusable: there is no such template.
            MachineLost: E2B gives no more sandboxes at present (``quota``), or cannot be reached.
            MachineError: there is no key, or E2B refuses it.
        """
        await import_sdk()
        from e2b import AsyncSandbox

        parameters = self._account.parameters()
        machine = MachineId.parse(self.id)
        labels = {MACHINE: self.id, OWNER: machine.owner if machine else "", LEASE: str(self._lease)}
        doing = f"start a sandbox of {self._template!r}"
        began = time.monotonic()
        self._unaccounted = True  # from here on E2B may hold one whose id we do not know
        try:
            creation = AsyncSandbox.create(
                self._template,
                timeout=self._lease,
                metadata=labels,
                allow_internet_access=None if self._network else False,
                request_timeout=START_DEADLINE,
                **parameters,
            )
            made = await call(doing, creation, deadline=START_DEADLINE, template=self._template)
            return await self._adopt(made, began)
        except BaseException as error:
            if _was_refused(error):
                self._unaccounted = False
            await sheltered(self._undo(error))
            raise

    async def open_channel(self, argv: Sequence[str]) -> E2bChannel:
        sandbox = self._alive()
        channel = await E2bChannel.open(sandbox, argv, machine=self.id, overdue=self._overdue)
        self._channels = [one for one in self._channels if not one.closed] + [channel]
        if self._pulsing is None:
            self._pulsing = asyncio.create_task(self._feel_pulse(sandbox))
        return channel

    async def examine(self) -> Evidence | None:
        if self._sandbox is None:
            return Evidence(cause="stopped")
        for channel in self._channels:
            if channel.lost is not None:  # whoever used it asks why it ended, and the sandbox may be well again
                return channel.lost
        health, info, refused = await asyncio.gather(
            self._health(self._sandbox, EXAMINE_DEADLINE), self._info(self._sandbox), _refused(self._sandbox)
        )
        if info is not None and info.cause in ("machine_removed", "expired", "machine_killed"):
            return info
        if health is None:
            return None  # what lies between us and the control plane is no illness of the sandbox
        if refused:
            return Evidence(cause="daemon_gone", detail=f"connections are refused: {refused}")
        if info is None and health.cause not in ("machine_removed", "expired"):
            return Evidence(cause="connection_lost", detail=f"E2B says that it runs, but it is out of reach: {health}")
        return health

    async def stop(self) -> None:
        """Kill the sandbox. Channels end, and nothing of them is left in this process."""
        pulsing, self._pulsing = self._pulsing, None
        if pulsing is not None:
            pulsing.cancel()
            await asyncio.wait([pulsing])
        for channel in self._channels:
            await channel.close()
        try:
            if self._sandbox is not None:
                await self._call("kill the sandbox", self._sandbox.kill(request_timeout=CALL_DEADLINE))
            elif self._unaccounted:
                for one in await self._account.sandboxes({MACHINE: self.id}):
                    await self._account.kill(one.sandbox_id)
        except MachineError as error:
            raise MachineError(
                f"the sandbox {self.sandbox_id or 'of ' + self.id} may live on, for up to {self._lease} s: {error}"
            ) from error
        finally:
            for channel in self._channels:
                await channel.gone()
            self._channels.clear()
        self._sandbox = None
        self._unaccounted = False

    async def renew(self, seconds: float) -> None:
        """As the base class says. Trouble on the way there is suffered while there is time for another try."""
        began = time.monotonic()
        whole = math.ceil(seconds)
        try:
            await self._call("renew the sandbox", self._alive().set_timeout(whole, request_timeout=CALL_DEADLINE))
        except MachineLost as error:
            late = self._expires - time.monotonic() < seconds / 2
            if not late and error.evidence is not None and error.evidence.cause in _WAY:
                return
            for channel in self._channels:  # whoever uses them is told why, and not that a command did it
                channel.lose(error.evidence or Evidence(cause="unknown", detail=str(error)))
            raise
        else:
            self._expires = began + whole

    async def snapshot(self, name: str) -> str:
        taking = self._alive().create_snapshot(name=name, request_timeout=SNAPSHOT_DEADLINE)
        with self._while_copying():
            kept = await self._call("snapshot the sandbox", taking, deadline=SNAPSHOT_DEADLINE)
        return f"{self.name}:{kept.snapshot_id}"

    async def fork(self, id: str) -> E2bBackend:
        twin = E2bBackend(
            self._template,
            id,
            account=self._account,
            workdir=self._workdir,
            network=self._network,
            lease=self._lease,
            pulse=self._pulse,
        )
        began = time.monotonic()
        forking = self._alive().fork(count=1, timeout=self._lease, request_timeout=START_DEADLINE)
        try:
            with self._while_copying():
                made = await self._call("fork the sandbox", _only(forking), deadline=START_DEADLINE)
            await twin._adopt(made, began)
        except BaseException as error:
            # One whose id was lost on the way carries this machine's labels: it ends with its lease, or by the reaper.
            await sheltered(twin._undo(error))
            raise
        return twin

    async def _adopt(self, sandbox: AsyncSandbox, began: float) -> Place:
        """Take charge of a sandbox that was just made: see what it is, and end copies of our own processes in it."""
        self._sandbox = sandbox
        self._expires = began + self._lease  # at the earliest
        asking = self._call("ask for the sandbox's size", sandbox.get_info(request_timeout=CALL_DEADLINE))
        info, _ = await asyncio.gather(asking, end_copies(sandbox, self.id))
        return Place(
            workdir=self._workdir,
            lease=float(self._lease),
            cpus=float(info.cpu_count),
            memory=info.memory_mb << 20,
            network=self._network,
        )

    @contextmanager
    def _while_copying(self) -> Generator[None]:
        """E2B pauses a sandbox to copy it: that it says nothing is then no illness."""
        self._copying += 1
        try:
            yield
        finally:
            self._copying -= 1

    async def _feel_pulse(self, sandbox: AsyncSandbox) -> None:
        loop = asyncio.get_running_loop()
        last = loop.time()
        # Not for ever, until it is cancelled: now and then the SDK makes an error of its own of a cancellation.
        while self._pulsing is asyncio.current_task():
            waiting = [one for one in self._channels if not one.ended]
            last = max(last, *(one.heard_at for one in waiting), 0.0)
            if (rest := last + self._pulse - loop.time()) > 0:
                await asyncio.sleep(rest)
                continue
            last = loop.time()
            if not waiting or self._copying or await self._health(sandbox, PULSE_DEADLINE) is None:
                continue
            evidence = await self.examine()
            if evidence is not None and not self._copying:
                for channel in self._channels:
                    channel.lose(evidence)

    async def _undo(self, error: BaseException) -> None:
        """Nothing stays of a failed start, though E2B may have made what it could not tell of any more."""
        try:
            await self.stop()
        except MachineError as second:
            error.add_note(str(second))

    async def _health(self, sandbox: AsyncSandbox, deadline: float) -> Evidence | None:
        """Ask envd, which runs in the sandbox."""
        answer = await self._evidence(sandbox.is_running(request_timeout=deadline), deadline)
        if isinstance(answer, Evidence):
            return answer
        return None if answer else Evidence(cause=self._gone(), detail="E2B's proxy does not find it")

    async def _info(self, sandbox: AsyncSandbox) -> Evidence | None:
        """Ask the control plane."""
        answer = await self._evidence(sandbox.get_info(request_timeout=EXAMINE_DEADLINE, retries=0), EXAMINE_DEADLINE)
        if isinstance(answer, Evidence):
            return answer
        if answer.state.value == "running":
            return None
        return Evidence(cause="machine_killed", detail=f"the sandbox is {answer.state.value}, and not by our doing")

    async def _evidence(self, asking: Coroutine[object, object, T], deadline: float) -> T | Evidence:
        try:
            return await self._call("examine the sandbox", asking, deadline=deadline)
        except MachineError as error:
            known = error.evidence if isinstance(error, MachineLost) else None
            return known or Evidence(cause="unknown", detail=str(error))

    async def _call(self, doing: str, work: Coroutine[object, object, T], *, deadline: float = CALL_DEADLINE) -> T:
        return await call(doing, work, deadline=deadline, overdue=self._overdue)

    def _alive(self) -> AsyncSandbox:
        if self._sandbox is None:
            raise MachineLost(f"machine {self.id} has no sandbox", Evidence(cause="stopped"))
        return self._sandbox

    def _overdue(self) -> bool:
        return time.monotonic() >= self._expires

    def _gone(self) -> Literal["expired", "machine_removed"]:
        return "expired" if self._overdue() else "machine_removed"


async def _refused(sandbox: AsyncSandbox) -> str | None:
    """Whether nobody listens where the sandbox is reached: the SDK tries on for seconds before it says so."""
    url = urlsplit(sandbox.envd_api_url)
    try:
        async with asyncio.timeout(EXAMINE_DEADLINE):
            _, writer = await asyncio.open_connection(url.hostname, url.port or (80 if url.scheme == "http" else 443))
    except ConnectionRefusedError as error:
        return str(error)
    except (OSError, TimeoutError):
        return None  # a proxy may be the only way out, say: this is no more than a hint
    writer.close()
    return None


async def _only(forking: Coroutine[object, object, Sequence[AsyncSandbox | Exception]]) -> AsyncSandbox:
    (made,) = await forking
    if isinstance(made, Exception):
        raise made
    return made


def _was_refused(error: BaseException) -> bool:
    """Whether E2B said no, so that nothing was made."""
    if isinstance(error, MachineLost):
        return error.evidence is not None and error.evidence.cause == "quota"
    return isinstance(error, MachineError)
