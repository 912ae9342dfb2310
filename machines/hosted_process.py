"""A process of a hosted machine, as whoever opened it sees it."""

from __future__ import annotations

import asyncio
from collections import deque

from palmette.machines.contract import ExecResult, StreamName, TerminalSize
from palmette.machines.errors import MachineLost
from palmette.machines.runner import wire
from palmette.machines.session import Job, SessionEnded

_SLACK = 1 << 23
"""Bytes past the window that a runner may send: what was in the pipes when everything died."""


class Output:
    """A process's output between the session, which feeds it, and its reader."""

    def __init__(self) -> None:
        self._pieces: deque[tuple[StreamName, bytes]] = deque()
        self._waiting = 0
        self._ended = False
        self._came = asyncio.Event()
        self._was_read = False
        self._awaited = False
        self.job: Job | None = None

    def feed(self, stream: StreamName, data: bytes) -> None:
        self._waiting += len(data)
        if self._waiting > wire.OUTPUT_WINDOW + _SLACK:
            raise wire.ProtocolError("more output came than was asked for")
        self._pieces.append((stream, data))
        self._came.set()
        self._drop()

    def end(self) -> None:
        self._ended = True
        self._came.set()

    def await_end(self) -> None:
        """Somebody waits for its end. If nobody has ever read, output is no reason to hold it up any more."""
        self._awaited = True
        self._drop()

    def _drop(self) -> None:
        if self._awaited and not self._was_read and self._waiting >= wire.OUTPUT_WINDOW:
            self._pieces.clear()
            self._give_credit(self._waiting)
            self._waiting = 0

    async def read(self) -> tuple[StreamName, bytes] | None:
        self._was_read = True
        while not self._pieces:
            if self._ended:
                return None
            self._came.clear()
            await self._came.wait()
        stream, data = self._pieces.popleft()
        self._waiting -= len(data)
        self._give_credit(len(data))
        return stream, data

    def _give_credit(self, size: int) -> None:
        if self.job is not None:
            self.job.give_credit(size)


class HostedProcess:
    """:class:`~palmette.machines.contract.Process`. ``end`` waits for its burial and says how it ended."""

    def __init__(self, job: Job, output: Output, end: asyncio.Task[ExecResult]) -> None:
        self._job = job
        self._output = output
        self._end = end

    async def read(self) -> tuple[StreamName, bytes] | None:
        piece = await self._output.read()
        if piece is None and self._job.ended.done() and self._job.ended.exception() is not None:
            await self.wait()  # MachineLost, or a runner that was killed: then the streams have ended
        return piece

    async def write(self, data: bytes) -> None:
        try:
            await self._job.write(data)
        except SessionEnded as error:
            await self.wait()
            raise BrokenPipeError(f"the command was killed ({error})") from None

    async def close_stdin(self) -> None:
        if not self._job.ended.done():
            self._job.close_input()

    async def resize(self, size: TerminalSize) -> None:
        if not self._job.ended.done():
            self._job.resize(size.rows, size.columns)

    async def kill(self) -> None:
        self._job.kill()

    async def wait(self) -> ExecResult:
        self._output.await_end()
        try:
            return await asyncio.shield(self._end)
        except MachineLost as error:
            copy = MachineLost(str(error))
            copy.evidence = error.evidence
            raise copy from error
