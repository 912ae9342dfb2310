"""A machine as an actor: its death is an ordinary supervision event.

:class:`MachineActor` owns one backend machine, its forks, and the processes that were opened on them. What a command
does wrong (a missing file, a bad exit code) goes back to the caller; what the *machine* does wrong
(:class:`MachineLost`) crashes the actor, with the cause in its reason, so that its supervisor replaces it and everybody
who waited learns of it at once; where a command was the machine's end, the actor ends with :class:`MachineBroken`.
:class:`~palmette.machines.remote.RemoteMachine` is what tools and evaluators hold: the machine contract, spoken through
a reference, also from another process.

A fork lives in the actor of the machine that it was made of, and shares its end. Who wants one with a life of its own
starts another ``MachineActor`` of a snapshot's image.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Mapping
from typing import TypeVar, cast

from palmette.actors import Actor, ActorDied, Reason, endpoint
from palmette.actors.exits import reason_of
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
from palmette.machines.errors import MachineBroken, MachineError, MachineLost
from palmette.machines.images import machine_for

T = TypeVar("T")

OnOutput = Callable[[StreamName, bytes], None]
WATCH_SECONDS = 15.0
"""A machine that nobody has used for that long is probed: a warm one that is lost must not wait for its first user."""
OWN = 0
"""The number of the machine that the actor was started for; its forks have others."""


class MachineActor(Actor):
    """One machine of ``image``, belonging to run ``owner``."""

    def __init__(self, image: str, owner: str) -> None:
        self._machines: dict[int, Machine] = {OWN: machine_for(image, owner=owner)}
        self._processes: dict[int, Process] = {}
        self._under_way: dict[str, asyncio.Task[object] | None] = {}
        """By ticket, what may be given up; ``None`` until its first step."""
        self._given_up: set[str] = set()
        self._opened_by: dict[str, int] = {}
        self._numbers = itertools.count(OWN + 1)
        self._dirty = False
        self._in_use = 0
        self._used_at = 0.0
        self._is_stopping = False

    async def continued(self) -> None:
        self.start_task(self._clean_up())
        # Not in started(): a machine that takes seconds to come up must not keep its supervisor, and all others that
        # wait to be started, from their work. Calls wait in the mailbox meanwhile.
        await self._machines[OWN].start()
        self.start_task(self._watch())

    async def stopping(self, reason: Reason) -> None:
        self._is_stopping = True
        await self._stop_all()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if not self._in_use and self.system.loop.time() - self._used_at >= WATCH_SECONDS:
                try:
                    await self._machines[OWN].probe()
                except MachineLost as error:
                    if self._is_stopping:
                        return
                    raise _blamed(error) from error.__cause__

    async def _clean_up(self) -> None:
        # An actor that is killed does not get to stopping(), but its tasks are cancelled whatever ends it.
        try:
            await self.system.loop.create_future()
        except asyncio.CancelledError:
            if not self._is_stopping:
                await self._stop_all()
            raise

    async def _stop_all(self) -> None:
        outcomes = await asyncio.gather(*(one.stop() for one in self._machines.values()), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    @endpoint
    async def id(self, machine: int = OWN) -> str:
        """The machine's id, which labels everything that it creates."""
        return self._ordinary(self._on(machine, _id_of))

    @endpoint
    async def prepare(self, files: dict[str, bytes]) -> None:
        """An empty working directory with ``files`` in it, whatever was there before."""
        return self._ordinary(self._prepared(files))

    @endpoint
    async def exec(
        self,
        command: str | list[str],
        stdin: bytes = b"",
        timeout: float = 60.0,
        env: dict[str, str] | None = None,
        cwd: str = ".",
        limits: Limits | None = None,
        max_output: int = 1 << 20,
        on_output: OnOutput | None = None,
        machine: int = OWN,
        ticket: str = "",
    ) -> ExecResult:
        """Run a command; several may run at once. ``on_output`` only within this process; see :meth:`give_up`."""
        self._dirty = True
        work = self._on(
            machine,
            lambda one: one.exec(
                command,
                stdin=stdin,
                timeout=timeout,
                env=env,
                cwd=cwd,
                limits=limits,
                max_output=max_output,
                on_output=on_output,
            ),
        )
        return self._ordinary(self._with_ticket(work, ticket))

    @endpoint
    async def give_up(self, ticket: str) -> None:
        """The caller of the ``exec`` or ``open`` with this ticket has gone: kill, and return when it is buried."""
        if ticket in self._opened_by:
            process = self._processes.pop(self._opened_by.pop(ticket))
            return self._ordinary(_killed(process))
        if ticket not in self._under_way:
            return None
        task = self._under_way[ticket]
        if task is None:
            self._given_up.add(ticket)
            return None
        task.cancel()
        return self._ordinary(_ended(task))

    @endpoint
    async def open(
        self,
        command: str | list[str],
        timeout: float = 3600.0,
        env: dict[str, str] | None = None,
        cwd: str = ".",
        limits: Limits | None = None,
        terminal: TerminalSize | None = None,
        machine: int = OWN,
        ticket: str = "",
    ) -> int:
        """Start a process; its number, for the endpoints below. It runs until its deadline if nobody ends it."""
        self._dirty = True
        opening = self._on(
            machine,
            lambda one: one.open(command, timeout=timeout, env=env, cwd=cwd, limits=limits, terminal=terminal),
        )
        return self._ordinary(self._with_ticket(self._opened(opening, ticket), ticket))

    @endpoint
    async def process_read(self, process: int) -> tuple[StreamName, bytes] | None:
        """One caller at a time."""
        return self._ordinary(self._with(process, lambda one: one.read()))

    @endpoint
    async def process_write(self, process: int, data: bytes) -> None:
        """One caller at a time."""
        return self._ordinary(self._with(process, lambda one: one.write(data)))

    @endpoint
    async def process_close_stdin(self, process: int) -> None:
        """End its input."""
        return self._ordinary(self._with(process, lambda one: one.close_stdin()))

    @endpoint
    async def process_resize(self, process: int, size: TerminalSize) -> None:
        """Of its terminal."""
        return self._ordinary(self._with(process, lambda one: one.resize(size)))

    @endpoint
    async def process_kill(self, process: int) -> None:
        """With all that it started."""
        return self._ordinary(self._with(process, lambda one: one.kill()))

    @endpoint
    async def process_wait(self, process: int) -> ExecResult:
        """Any number of callers."""
        return self._ordinary(self._with(process, lambda one: one.wait()))

    @endpoint
    async def process_forget(self, process: int) -> None:
        """It has ended, and all of it was read: its number means nothing any more."""
        self._processes.pop(process, None)
        self._opened_by = {ticket: number for ticket, number in self._opened_by.items() if number != process}

    @endpoint
    async def put(self, path: str, data: bytes, mode: int = 0o644, machine: int = OWN) -> None:
        """Write a file."""
        self._dirty = True
        return self._ordinary(self._on(machine, lambda one: one.put(path, data, mode=mode)))

    @endpoint
    async def get(self, path: str, max_bytes: int = 64 << 20, machine: int = OWN) -> bytes:
        """Read a file."""
        return self._ordinary(self._on(machine, lambda one: one.get(path, max_bytes=max_bytes)))

    @endpoint
    async def put_archive(self, path: str, archive: bytes, machine: int = OWN) -> None:
        """Unpack an archive."""
        self._dirty = True
        return self._ordinary(self._on(machine, lambda one: one.put_archive(path, archive)))

    @endpoint
    async def get_archive(self, path: str = ".", max_bytes: int = 1 << 30, machine: int = OWN) -> bytes:
        """Pack a directory. From another process at most what fits into one message, 255 MiB."""
        return self._ordinary(self._on(machine, lambda one: one.get_archive(path, max_bytes=max_bytes)))

    @endpoint
    async def list(self, path: str = ".", machine: int = OWN) -> list[str]:
        """Names in a directory."""
        return self._ordinary(self._on(machine, lambda one: one.list(path)))

    @endpoint
    async def probe(self, timeout: float = 5.0, machine: int = OWN) -> float:
        """Whether it can run a command; if it cannot, the actor crashes."""
        return self._ordinary(self._on(machine, lambda one: one.probe(timeout=timeout)))

    @endpoint
    async def snapshot(self, minimum: SnapshotGrade = "workdir", machine: int = OWN) -> Snapshot:
        """Keep its state."""
        return self._ordinary(self._on(machine, lambda one: one.snapshot(minimum=minimum)))

    @endpoint
    async def fork(self, machine: int = OWN) -> int:
        """Another machine with this one's state, in this actor; its number."""
        return self._ordinary(self._forked(machine))

    @endpoint
    async def release(self, machine: int) -> None:
        """Stop a fork. The actor's own machine ends with the actor."""
        twin = self._machines.pop(machine, None) if machine != OWN else None
        return self._ordinary(twin.stop()) if twin is not None else None

    @endpoint
    async def describe(self, machine: int = OWN) -> MachineDescription:
        """What there is to know."""
        return self._ordinary(self._on(machine, lambda one: one.describe()))

    @endpoint
    async def reset(self, machine: int = OWN) -> None:
        """An empty working directory; what runs is killed."""
        if machine != OWN:
            return self._ordinary(self._on(machine, lambda one: one.reset()))
        try:
            await self._machines[OWN].reset()  # in the mailbox's turn: what comes after it finds it done
        except MachineLost as error:
            raise _blamed(error) from error.__cause__
        self._dirty = False
        return None

    async def _prepared(self, files: Mapping[str, bytes]) -> None:
        if self._dirty:
            await self._machines[OWN].reset()
        self._dirty = True
        for path, data in files.items():
            await self._machines[OWN].put(path, data)

    async def _opened(self, opening: Coroutine[object, object, Process], ticket: str) -> int:
        process = await opening
        number = next(self._numbers)
        self._processes[number] = process
        if ticket:
            self._opened_by[ticket] = number
        return number

    async def _forked(self, machine: int) -> int:
        twin = await self._machine(machine).fork()
        self._machines[number := next(self._numbers)] = twin
        return number

    def _with_ticket(self, work: Coroutine[object, object, T], ticket: str) -> Coroutine[object, object, T]:
        """``work``, so that :meth:`give_up` reaches it from now on."""
        if not ticket:
            return work
        self._under_way[ticket] = None
        return self._watched(work, ticket)

    async def _watched(self, work: Coroutine[object, object, T], ticket: str) -> T:
        try:
            if ticket in self._given_up:
                work.close()
                raise MachineError("its caller gave up")
            task = asyncio.ensure_future(work)
            self._under_way[ticket] = task
            return await task
        finally:
            self._given_up.discard(ticket)
            del self._under_way[ticket]

    # Here and not in the endpoint: that a fork is gone is its caller's mistake, and none of the actor's.
    async def _on(self, number: int, use: Callable[[Machine], Coroutine[object, object, T]]) -> T:
        return await use(self._machine(number))

    async def _with(self, number: int, use: Callable[[Process], Coroutine[object, object, T]]) -> T:
        return await use(self._process(number))

    def _machine(self, number: int) -> Machine:
        machine = self._machines.get(number)
        if machine is None:
            raise MachineError(f"there is no machine {number} here; a fork is gone once it was stopped")
        return machine

    def _process(self, number: int) -> Process:
        process = self._processes.get(number)
        if process is None:
            raise MachineError(f"there is no process {number} here; it was opened on an earlier machine, or forgotten")
        return process

    def _ordinary(self, work: Coroutine[object, object, T]) -> T:
        """Answer the present call with ``work``'s result or its ordinary failure, beside the mailbox.

        A lost machine is no ordinary failure: it crashes the actor, and its callers learn of that.
        """
        token = self.reply_later()

        async def run() -> None:
            self._in_use += 1
            try:
                token.reply(await work)
            except MachineLost as error:
                lost = _blamed(error)
                # Now, and not with the actor's end: what is left of the machine is taken down before that, which takes
                # as long as a daemon that does not answer lets it.
                token.fail(ActorDied(self.path, reason_of(lost)))
                raise lost from error.__cause__
            except (MachineError, OSError, ValueError) as error:
                token.fail(error)
            except asyncio.CancelledError:
                if _being_cancelled():
                    raise
                token.fail(MachineError("its caller gave up"))
            finally:
                self._in_use -= 1
                self._used_at = self.system.loop.time()

        self.start_task(run())
        return cast("T", None)  # the kernel ignores what an endpoint returns once its reply is owed


def _blamed(error: MachineLost) -> MachineLost:
    """``error``, said of whose doing it is.

    Not asked about a machine that fails to start: nobody has run anything on it yet, whatever killed it.
    """
    if error.evidence is None or not error.evidence.agents_doing:
        return error
    broken = MachineBroken(str(error))
    broken.evidence = error.evidence
    return broken


async def _id_of(machine: Machine) -> str:
    return machine.id


async def _ended(task: asyncio.Task[object]) -> None:
    await asyncio.wait([task])


async def _killed(process: Process) -> None:
    await process.kill()
    await process.wait()


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
