"""The machine made of any backend: the contract in full, spoken to a runner inside.

A backend makes a place and channels into it (:mod:`palmette.machines.backend`). Here is what is alike for all: commands
with their deadlines and kills, files, archives, probes, snapshots. ::

    machine = HostedMachine(Jail("rest", id), id, "jail:rest")
    await machine.start()

**Deadlines** are kept by the runner, and ten seconds later by the controller, which then has no more of this
runner. **When a command kills the runner** the machine goes on with another, see
:mod:`palmette.machines.connection`; of what the command printed only what had crossed is kept. A request for files
that meets this is made once more: all of them can be.

**Not held**: as root inside, a command can write into the runner's channel. What is no frame is noticed and ends the
machine; a forged frame is a lie about the very command that forged it, for nothing of a command lives when the next
one runs, unless its caller opened both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeVar

from palmette.machines.backend import Backend, Place
from palmette.machines.connection import Connection
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
from palmette.machines.errors import FileTooLarge, MachineError, MachineLost, SnapshotNotPossible
from palmette.machines.evidence import Evidence
from palmette.machines.hosted_exec import MARGIN, chore, command_of, conclude, fitting, kill_jobs, run
from palmette.machines.hosted_process import HostedProcess, Output
from palmette.machines.identity import MachineId
from palmette.machines.replies import exception
from palmette.machines.runner import wire
from palmette.machines.runner_records import Reply, Specification
from palmette.machines.session import Session, SessionEnded
from palmette.machines.shelter import sheltered
from palmette.machines.snapshots import MAX_BYTES, delete_snapshot, demand, read_snapshot, split_image, write_snapshot

T = TypeVar("T")

FILE_DEADLINE = 60.0
"""Seconds for one request for files, and one more for each :data:`SPEED` bytes that it may move."""
SPEED = 1 << 20


class HostedMachine(AbstractAsyncContextManager["HostedMachine"]):
    """A :class:`~palmette.machines.contract.Machine` over a :class:`~palmette.machines.backend.Backend`.

    Args:
        backend: a place that is not started yet.
        id: the machine's, with which the backend labels what it makes.
        image: the image string that it was made from.
    """

    def __init__(self, backend: Backend, id: str, image: str) -> None:
        self._backend = backend
        self._id = id
        self._image, self._archive = split_image(image)
        self._connection = Connection(backend, id, image)
        self._place: Place | None = None
        self._state: Literal["new", "starting", "running", "stopping", "stopped"] = "new"
        self._starting: asyncio.Task[None] | None = None
        self._stop_lock = asyncio.Lock()
        self._processes: set[asyncio.Task[ExecResult]] = set()

    def __repr__(self) -> str:
        return f"<HostedMachine {self._id} of {self._image} {self._state}>"

    @property
    def id(self) -> str:
        return self._id

    @property
    def snapshot_grade(self) -> SnapshotGrade | None:
        return self._backend.snapshot_grade or "workdir"

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
        """Make the place, and start the runner in it.

        Raises:
            ImageUnusable: the image does not exist or cannot be a machine.
            MachineLost: the place, or the way to it, failed; or the machine was stopped meanwhile.
            MachineError: started before.
        """
        await self._start(None)

    async def _start(self, place: Place | None) -> None:
        if self._state != "new":
            raise MachineError(f"machine {self._id} was started before; make another one")
        self._state = "starting"
        self._starting = asyncio.ensure_future(self._begin(place))
        try:
            await self._starting
        except asyncio.CancelledError:
            if self._being_stopped() and not _being_cancelled():
                raise self._stopped() from None
            raise

    async def _begin(self, place: Place | None) -> None:
        try:
            self._place = place or await self._backend.start()
            await self._connection.open(self._place)
            self._state = "running"
            if self._archive is not None:
                await self._unpack(".", await asyncio.to_thread(read_snapshot, self._archive), links=True)
        except BaseException as error:
            self._state = "stopping"
            try:
                await sheltered(self._take_down())
                self._state = "stopped"
            except MachineError as left:  # stop() tries again; why it did not start is what matters
                error.add_note(str(left))
            raise

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
        self._check_running()
        what = command_of(command, timeout=timeout, env=env, cwd=cwd, limits=limits)
        session = await self._connection.session()
        return await run(
            self._connection, session, what, command, stdin=stdin, max_output=max_output, on_output=on_output
        )

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
        self._check_running()
        what = command_of(
            command, timeout=timeout, env=env, cwd=cwd, limits=limits, terminal=terminal, acknowledge=True
        )
        session = await self._connection.session()
        output = Output()
        with fitting(what):
            job = output.job = session.start(what, output.feed, stream=True)
        job.on_silence = output.end
        end = asyncio.create_task(conclude(self._connection, session, job, command, what, output=output))
        self._processes.add(end)
        end.add_done_callback(self._process_ended)
        try:
            # Not the acknowledgement alone: what could not be started has an end that says why.
            await asyncio.wait([job.started, end], timeout=timeout + MARGIN, return_when=asyncio.FIRST_COMPLETED)
            if job.ended.done() and (job.ended.exception() is not None or job.ended.result().failed is not None):
                await asyncio.shield(end)
        except asyncio.CancelledError:
            job.kill()
            await sheltered(_settled(end))
            raise
        return HostedProcess(job, output, end)

    async def put(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        doing = f"put {path!r}"
        if len(data) <= wire.INLINE:
            await self._call(doing, {"name": "put", "path": path, "mode": mode}, data)
        else:
            await self._chore(doing, {"name": "write", "path": path, "mode": mode, "size": len(data)}, data=data)

    async def get(self, path: str, *, max_bytes: int = 64 << 20) -> bytes:
        doing = f"get {path!r}"
        try:
            small = min(max_bytes, wire.INLINE)
            return (await self._call(doing, {"name": "get", "path": path, "max_bytes": small})).data
        except FileTooLarge:
            if max_bytes <= wire.INLINE:
                raise
        return await self._chore(doing, {"name": "read", "path": path, "max_bytes": max_bytes}, most=max_bytes)

    async def put_archive(self, path: str, archive: bytes) -> None:
        await self._unpack(path, archive, links=False)

    async def _unpack(self, path: str, archive: bytes, *, links: bool) -> None:
        what: dict[str, str | int | bool] = {"name": "unpack", "path": path, "links": links, "size": len(archive)}
        await self._chore(f"put_archive {path!r}", what, data=archive)

    async def get_archive(self, path: str = ".", *, max_bytes: int = 1 << 30) -> bytes:
        what: dict[str, str | int | bool] = {"name": "pack", "path": path, "max_bytes": max_bytes}
        return await self._chore(f"get_archive {path!r}", what, most=max_bytes)

    async def list(self, path: str = ".") -> list[str]:
        return (await self._call(f"list {path!r}", {"name": "list", "path": path})).names or []

    async def probe(self, *, timeout: float = 5.0) -> float:
        self._check_running()
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(timeout):
                evidence, answer = await asyncio.gather(self._connection.examine(), self._connection.second_way())
        except TimeoutError:
            raise MachineLost(
                f"machine {self._id} did not run a command within {timeout:g} s", await self._connection.examine()
            ) from None
        if evidence is not None:
            raise MachineLost(f"machine {self._id} is lost", evidence)
        if answer is not None:
            raise MachineLost(
                f"machine {self._id} cannot run a command",
                Evidence(cause="unknown", detail=f"the place is up, and sh says {answer!r}", agents_doing=True),
            )
        return loop.time() - began

    async def snapshot(self, *, minimum: SnapshotGrade = "workdir") -> Snapshot:
        self._check_running()
        own = self._backend.snapshot_grade
        demand(minimum, own or "workdir", self._backend.name)
        if own is not None:
            name = f"{MachineId.new('snapshot').nonce}-{self._id.rpartition('.')[2]}"
            with self._connection.standing_still():
                return Snapshot(image=await self._backend.snapshot(name), grade=own, machine=self._id)
        archive = await self.get_archive(".", max_bytes=MAX_BYTES)
        return await asyncio.to_thread(write_snapshot, archive, image=self._image, machine=self._id)

    async def fork(self) -> Machine:
        self._check_running()
        owner = self._id.partition(".")[0]
        new = str(MachineId.new(owner))
        with self._connection.standing_still():
            twin = await self._backend.fork(new)
        if twin is not None:
            machine = HostedMachine(twin, new, self._image)
            await machine._start(self._place)
            return machine
        from palmette.machines.images import machine_for

        if self._backend.snapshot_grade is not None:
            snapshot = await self.snapshot()
            other = machine_for(snapshot.image, owner=owner)
            try:
                await other.start()
            finally:
                with suppress(SnapshotNotPossible):  # a backend that cannot, keeps it
                    await sheltered(delete_snapshot(snapshot.image))
            return other
        archive = await self.get_archive(".", max_bytes=MAX_BYTES)
        other = machine_for(self._image, owner=owner)
        await other.start()
        try:
            if isinstance(other, HostedMachine):
                await other._unpack(".", archive, links=True)
            else:
                await other.put_archive(".", archive)
        except BaseException:
            await sheltered(other.stop())
            raise
        return other

    async def describe(self) -> MachineDescription:
        self._check_running()
        place, greeting = self._place, self._connection.greeting
        assert place is not None, "it runs"
        assert greeting is not None, "it runs"
        return MachineDescription(
            id=self._id,
            image=self._image,
            backend=self._backend.name,
            workdir=place.workdir,
            platform=greeting.platform,
            cpus=place.cpus,
            memory=place.memory,
            network=place.network,
            snapshot_grade=self.snapshot_grade,
            isolation=self._backend.isolation,
        )

    async def reset(self) -> None:
        self._check_running()
        session = await self._connection.session()
        await kill_jobs(self._connection, session)
        await self._chore("reset", {"name": "empty"})

    async def stop(self) -> None:
        if self._state == "new":
            self._state = "stopped"
        await sheltered(self._stop())

    async def _stop(self) -> None:
        async with self._stop_lock:
            if self._state == "stopped":
                return
            starting = self._state == "starting"
            self._state = "stopping"
            if starting and self._starting is not None:
                self._starting.cancel()
                await asyncio.wait([self._starting])
            await self._take_down()
            self._state = "stopped"

    async def _take_down(self) -> None:
        try:
            await self._connection.close(self._stopped())
        finally:
            await self._backend.stop()
        if self._processes:
            await asyncio.wait(self._processes)

    async def _call(self, doing: str, head: dict[str, object], data: bytes = b"") -> Reply:
        async def work(session: Session) -> Reply:
            reply = await session.call(head, data)
            if reply.error is not None:
                raise exception(doing, reply.error)
            return reply

        return await self._on_files(doing, work, FILE_DEADLINE)

    async def _chore(self, doing: str, what: dict[str, str | int | bool], *, data: bytes = b"", most: int = 0) -> bytes:
        """Work on files by a process of its own. ``most``: bytes that it may answer with."""
        timeout = FILE_DEADLINE + (len(data) + most) / SPEED
        job = Specification(chore=what, timeout=timeout)

        async def work(session: Session) -> bytes:
            return await chore(session, doing, job, data=data, most=most)

        return await self._on_files(doing, work, timeout + MARGIN)

    async def _on_files(self, doing: str, work: Callable[[Session], Awaitable[T]], deadline: float) -> T:
        evidence: Evidence | None = None
        for _ in range(2):  # once more, if the runner was killed under it: by its own doing the request kills none
            self._check_running()
            session = await self._connection.session()
            try:
                async with asyncio.timeout(deadline):
                    return await work(session)
            except SessionEnded:
                evidence = await self._connection.verdict(session)
            except TimeoutError:
                session.abandon(f"{doing} took more than {deadline:g} s")
                evidence = await self._connection.verdict(session)
                raise MachineLost(f"{doing} took more than {deadline:g} s; the file system hangs", evidence) from None
        raise MachineLost(f"{doing}: the runner was killed twice meanwhile", evidence)

    def _process_ended(self, task: asyncio.Task[ExecResult]) -> None:
        self._processes.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits will see it; nobody has to

    def _stopped(self) -> MachineLost:
        return MachineLost(f"machine {self._id} was stopped; start another one", Evidence(cause="stopped"))

    def _being_stopped(self) -> bool:
        return self._state in ("stopping", "stopped")

    def _check_running(self) -> None:
        if self._state in ("new", "starting"):
            raise MachineError(f"machine {self._id} is not started; await start() first")
        if self._being_stopped():
            raise self._stopped()


async def _settled(end: asyncio.Task[ExecResult]) -> None:
    await asyncio.wait([end], timeout=MARGIN)


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
