"""The machine contract through a reference to a :class:`~palmette.machines.actor.MachineActor`."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import ParamSpec, TypeVar

import msgspec

from palmette.actors import ActorDied, DeadlineExceeded, NodeError, Ref, Refused, deadline
from palmette.actors.endpoints import Endpoint
from palmette.machines.actor import OWN, MachineActor, OnOutput
from palmette.machines.capture import Capture
from palmette.machines.contract import (
    ExecResult,
    Limits,
    MachineDescription,
    Snapshot,
    SnapshotGrade,
    StreamName,
    TerminalSize,
)
from palmette.machines.errors import (
    CommandNotStarted,
    FileTooLarge,
    ImageUnusable,
    MachineError,
    NotAFile,
    PathEscapes,
    SnapshotNotPossible,
    UnknownImage,
)
from palmette.machines.shelter import sheltered

P = ParamSpec("P")
R = TypeVar("R")

MARGIN = 30.0
"""Seconds that a call may take beyond its command's own timeout: for the kill, the last of the output, a judgement."""
SLOW = 900.0
"""Seconds for an archive, a snapshot or a fork."""
_tickets = itertools.count(1)


_ERRORS: dict[str, type[Exception]] = {
    each.__name__: each
    for each in (
        CommandNotStarted, PathEscapes, NotAFile, FileTooLarge, SnapshotNotPossible, ImageUnusable, UnknownImage,
        MachineError, ValueError,
    )
}  # fmt: skip
_OS_ERRORS = {
    each.__name__
    for each in (
        OSError, FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError,
        BrokenPipeError,
    )
}  # fmt: skip
_OS_TEXT = re.compile(r"\[Errno (\d+)\] (.*?)(?:: '(.*)')?", re.DOTALL)


class Line:
    """A reference whose ordinary failures keep their class on the way from another process.

    There the kernel makes each a ``Refused`` with the class's name before its text.
    """

    def __init__(self, ref: Ref[MachineActor]) -> None:
        self._ref = ref

    async def call(self, endpoint: Endpoint[MachineActor, P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await self._ref.call(endpoint, *args, **kwargs)
        except Refused as error:
            raise _as_it_was(error) from None

    def cast(self, endpoint: Endpoint[MachineActor, P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
        self._ref.cast(endpoint, *args, **kwargs)


def _as_it_was(refused: Refused) -> Exception:
    name, _, text = str(refused).partition(": ")
    if type(refused) is not Refused or not (name in _ERRORS or name in _OS_ERRORS):
        return refused
    if name in _ERRORS:
        return _ERRORS[name](text)
    told = _OS_TEXT.fullmatch(text)
    if told is not None:
        return OSError(int(told[1]), told[2], told[3])
    return BrokenPipeError(errno.EPIPE, text) if name == "BrokenPipeError" else OSError(text)


class RemoteProcess:
    """:class:`~palmette.machines.contract.Process`, through the machine's actor. Made by :meth:`RemoteMachine.open`."""

    def __init__(self, line: Line, number: int, seconds: float) -> None:
        self._line = line
        self._number = number
        self._seconds = seconds
        self._read_all = False
        self._result: ExecResult | None = None

    async def read(self) -> tuple[StreamName, bytes] | None:
        if self._read_all:
            return None
        with deadline(self._seconds):
            piece = await self._line.call(MachineActor.process_read, self._number)
        if piece is None:
            self._read_all = True
            self._forget()
        return piece

    async def write(self, data: bytes) -> None:
        if self._result is not None:
            raise BrokenPipeError(f"the command has ended, {len(data)} bytes were not written")
        with deadline(self._seconds):
            await self._line.call(MachineActor.process_write, self._number, data)

    async def close_stdin(self) -> None:
        if self._result is None:
            await self._line.call(MachineActor.process_close_stdin, self._number)

    async def resize(self, size: TerminalSize) -> None:
        if self._result is None:
            await self._line.call(MachineActor.process_resize, self._number, size)

    async def kill(self) -> None:
        if self._result is None:
            await self._line.call(MachineActor.process_kill, self._number)

    async def wait(self) -> ExecResult:
        if self._result is None:
            with deadline(self._seconds):
                self._result = await self._line.call(MachineActor.process_wait, self._number)
            self._forget()
        return self._result

    def _forget(self) -> None:
        if self._read_all and self._result is not None:
            self._line.cast(MachineActor.process_forget, self._number)


class RemoteMachine:
    """The contract :class:`~palmette.machines.contract.Machine`, through a reference to a :class:`MachineActor`.

    Raises, in all methods, ``ActorDied`` where a machine held directly raises ``MachineLost``.
    """

    def __init__(self, ref: Ref[MachineActor], number: int = OWN) -> None:
        self._ref = ref
        self._line = Line(ref)
        self._number = number

    @property
    def id(self) -> str:
        """The actor's address: it stays when the machine behind it is replaced. A fork's has its number too."""
        return self._ref.path if self._number == OWN else f"{self._ref.path}#{self._number}"

    @property
    def snapshot_grade(self) -> SnapshotGrade | None:
        """Not known from here, see :meth:`describe`; what every backend can."""
        return "workdir"

    async def start(self) -> None:
        """Its supervisor has started it."""

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
        on_output: OnOutput | None = None,
    ) -> ExecResult:
        words = command if isinstance(command, str) else list(command)
        extra = None if env is None else dict(env)
        ticket = f"{os.getpid()}.{next(_tickets)}"
        try:
            with deadline(timeout + MARGIN):
                return await self._line.call(
                    MachineActor.exec,
                    words,
                    stdin=stdin,
                    timeout=timeout,
                    env=extra,
                    cwd=cwd,
                    limits=limits,
                    max_output=max_output,
                    on_output=None if on_output is None else _guarded(on_output),
                    machine=self._number,
                    ticket=ticket,
                )
        except asyncio.CancelledError:
            await sheltered(self._give_up(ticket))
            raise
        except _WatcherFailed as failed:
            raise failed.error from None
        except NodeError:
            if on_output is None:
                raise
        # The machine lives in another process, to which no function goes: so the output comes here.
        process = await self.open(words, timeout=timeout, env=extra, cwd=cwd, limits=limits)
        return await _watched(process, stdin, max_output, on_output)

    async def _give_up(self, ticket: str) -> None:
        # An actor that died took its commands along; one that does not answer has their deadlines to keep.
        with suppress(ActorDied, DeadlineExceeded), deadline(MARGIN):
            await self._line.call(MachineActor.give_up, ticket)

    async def open(
        self,
        command: str | Sequence[str],
        *,
        timeout: float = 3600.0,
        env: Mapping[str, str] | None = None,
        cwd: str = ".",
        limits: Limits | None = None,
        terminal: TerminalSize | None = None,
    ) -> RemoteProcess:
        words = command if isinstance(command, str) else list(command)
        extra = None if env is None else dict(env)
        ticket = f"{os.getpid()}.{next(_tickets)}"
        try:
            number = await self._line.call(
                MachineActor.open, words, timeout, extra, cwd, limits, terminal, machine=self._number, ticket=ticket
            )
        except asyncio.CancelledError:
            await sheltered(self._give_up(ticket))
            raise
        return RemoteProcess(self._line, number, timeout + MARGIN)

    async def put(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        await self._line.call(MachineActor.put, path, data, mode, machine=self._number)

    async def get(self, path: str, *, max_bytes: int = 64 << 20) -> bytes:
        return await self._line.call(MachineActor.get, path, max_bytes, machine=self._number)

    async def put_archive(self, path: str, archive: bytes) -> None:
        with deadline(SLOW):
            await self._line.call(MachineActor.put_archive, path, archive, machine=self._number)

    async def get_archive(self, path: str = ".", *, max_bytes: int = 1 << 30) -> bytes:
        with deadline(SLOW):
            return await self._line.call(MachineActor.get_archive, path, max_bytes, machine=self._number)

    async def list(self, path: str = ".") -> list[str]:
        return await self._line.call(MachineActor.list, path, machine=self._number)

    async def prepare(self, files: dict[str, bytes]) -> None:
        """An empty working directory with ``files`` in it."""
        await self._line.call(MachineActor.prepare, files)

    async def probe(self, *, timeout: float = 5.0) -> float:
        with deadline(timeout + MARGIN):
            return await self._line.call(MachineActor.probe, timeout, machine=self._number)

    async def snapshot(self, *, minimum: SnapshotGrade = "workdir") -> Snapshot:
        with deadline(SLOW):
            return await self._line.call(MachineActor.snapshot, minimum, machine=self._number)

    async def fork(self) -> RemoteMachine:
        """A fork in the same actor, whose end is its end. Its :meth:`stop` stops it."""
        with deadline(SLOW):
            return RemoteMachine(self._ref, await self._line.call(MachineActor.fork, machine=self._number))

    async def describe(self) -> MachineDescription:
        return await self._line.call(MachineActor.describe, machine=self._number)

    async def reset(self) -> None:
        await self._line.call(MachineActor.reset, machine=self._number)

    async def stop(self) -> None:
        """Of a fork. Of the actor's own machine nothing: its supervisor stops that."""
        if self._number != OWN:
            await self._line.call(MachineActor.release, self._number)


class _WatcherFailed(MachineError):
    """``on_output`` raised: that is its caller's error, and none of the machine's actor."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def _guarded(on_output: OnOutput) -> OnOutput:
    def watch(stream: StreamName, data: bytes) -> None:
        try:
            on_output(stream, data)
        except Exception as error:
            raise _WatcherFailed(error) from error

    return watch


async def _watched(
    process: RemoteProcess, stdin: bytes, max_output: int, on_output: Callable[[StreamName, bytes], None] | None
) -> ExecResult:
    """An ``exec`` made of a process, for whoever watches it from elsewhere."""
    captures: dict[StreamName, Capture] = {"stdout": Capture(max_output), "stderr": Capture(max_output)}

    async def feed() -> None:
        try:
            for at in range(0, len(stdin), 1 << 16):
                await process.write(stdin[at : at + (1 << 16)])
            await process.close_stdin()
        except BrokenPipeError:
            return  # it need not read it

    feeding = asyncio.create_task(feed())
    try:
        while (piece := await process.read()) is not None:
            captures[piece[0]].feed(piece[1])
            if on_output is not None:
                on_output(*piece)
        result = await process.wait()
    except BaseException:
        await sheltered(_killed(process))
        raise
    finally:
        feeding.cancel()
        await asyncio.wait([feeding])
    return msgspec.structs.replace(
        result,
        stdout=captures["stdout"].value(),
        stderr=captures["stderr"].value(),
        bytes_left_out=sum(capture.left_out for capture in captures.values()),
    )


async def _killed(process: RemoteProcess) -> None:
    await process.kill()
    await process.wait()
