"""A command of a local machine that its caller talks with."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import struct
import termios
from collections import deque
from collections.abc import Coroutine, Mapping

import msgspec

from palmette.machines.contract import ExecResult, StreamName, TerminalSize
from palmette.machines.errors import MachineLost
from palmette.machines.process import Execution
from palmette.machines.tree import Tree

OUTPUT_WINDOW = 1 << 20
"""Bytes of output that wait for their reader; then the command is held up."""
INPUT_WINDOW = 1 << 18
_KEPT = 1000
"""Bytes of each stream that are kept beside: for the wrapper's last words."""


class Conversation(Execution):
    """An execution whose input comes, and whose output goes, piece by piece."""

    def __init__(self, *, tree: Tree, env: Mapping[str, str], timeout: float, terminal: TerminalSize | None) -> None:
        super().__init__(
            [], tree=tree, env=env, stdin=b"", timeout=timeout, max_output=_KEPT, on_output=None
        )  # what to run is known when the terminal's name is
        self._terminal = terminal
        self._slave = -1
        self._pieces: deque[tuple[StreamName, bytes]] = deque()
        self._waiting = 0
        self._held = False
        self._input = bytearray()
        self._input_ends = False
        self._came = asyncio.Event()
        self._room = asyncio.Event()
        self._closing = False
        self._over = False
        self._was_read = False
        self._awaited = False

    def open_terminal(self) -> str | None:
        """The terminal's name, if it is to have one."""
        if self._terminal is None:
            return None
        master, self._slave = pty.openpty()
        self._readers[master] = "stdout"
        self._writer = os.dup(master)
        self.resize(self._terminal)
        return os.ttyname(self._slave)

    def last_words(self) -> bytes:
        return self._captures["stdout" if self._terminal is not None else "stderr"].value().replace(b"\r\n", b"\n")

    def told(self, result: ExecResult) -> ExecResult:
        return msgspec.structs.replace(result, stdout=b"", stderr=b"", bytes_left_out=0)

    def set_command(self, argv: list[str]) -> None:
        self._argv = argv

    def resize(self, size: TerminalSize) -> None:
        if self._terminal is not None and self._writer >= 0:
            fcntl.ioctl(self._writer, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.columns, 0, 0))

    async def read(self) -> tuple[StreamName, bytes] | None:
        self._was_read = True
        while not self._pieces:
            if self._over or not self._readers:
                return None
            self._came.clear()
            await self._came.wait()
        piece = self._pieces.popleft()
        self._waiting -= len(piece[1])
        if self._waiting < OUTPUT_WINDOW // 2:
            self._go_on()
        return piece

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while True:
            if self._closing or self._writer < 0 or self._input_ends:
                raise BrokenPipeError(f"the command has ended or closed its input, {len(view)} bytes were not written")
            if not view:
                return
            room = INPUT_WINDOW - len(self._input)
            if room > 0:
                self._input += view[:room]
                view = view[room:]
                self._loop.add_writer(self._writer, self._note, self._writer)
            else:
                self._room.clear()
                await self._room.wait()

    def close_stdin(self) -> None:
        if self._closing or self._writer < 0:
            return
        if self._terminal is not None:
            self._input += b"\x04"
        else:
            self._input_ends = True
        self._loop.add_writer(self._writer, self._note, self._writer)

    def end(self) -> None:
        """It is buried."""
        self._over = True
        self._came.set()
        self._room.set()

    def await_end(self) -> None:
        """Somebody waits for its end. If nobody has ever read, output is no reason to hold it up any more."""
        self._awaited = True
        self._drop()

    def _drop(self) -> None:
        if self._awaited and not self._was_read and self._waiting >= OUTPUT_WINDOW:
            self._pieces.clear()
            self._waiting = 0
            self._go_on()

    def _go_on(self) -> None:
        if self._held and not self._closing:
            self._held = False
            for fd in self._readers:
                self._loop.add_reader(fd, self._note, fd)

    def _connect(self, theirs: list[int]) -> tuple[int, int, int]:
        if self._slave >= 0:
            theirs.append(self._slave)
            return self._slave, self._slave, self._slave
        stdin, self._writer = os.pipe()
        theirs.append(stdin)
        _, stdout, stderr = super()._connect(theirs)
        return stdin, stdout, stderr

    def _watch(self) -> None:
        super()._watch()
        if not (self._input or self._input_ends):
            self._loop.remove_writer(self._writer)  # until there is something to write

    def _unwatch(self) -> None:
        self._closing = True
        self._room.set()
        super()._unwatch()

    def _take(self, name: StreamName, chunk: bytes) -> None:
        self._captures[name].feed(chunk)
        self._pieces.append((name, chunk))
        self._waiting += len(chunk)
        self._came.set()
        self._drop()
        if self._waiting >= OUTPUT_WINDOW and not self._held:
            self._held = True
            for fd in self._readers:
                self._loop.remove_reader(fd)

    def _read(self, fd: int, room: int) -> bool:
        if not self._exited:
            room = min(room, max(OUTPUT_WINDOW - self._waiting, 0))
        ended = super()._read(fd, room)
        if not self._readers:
            self._came.set()
        return ended

    def _write(self) -> None:
        try:
            del self._input[: os.write(self._writer, self._input)]
        except BlockingIOError:
            return
        except OSError:  # it does not want to read (any more), or nobody has the terminal open
            self._input.clear()
            self._input_ends = True
        self._room.set()
        if self._input:
            return
        if self._input_ends:
            self._close_writer()
        else:
            self._loop.remove_writer(self._writer)


class LocalProcess:
    """:class:`~palmette.machines.contract.Process`: a conversation, and the task that runs it to its end."""

    def __init__(self, conversation: Conversation, run: Coroutine[object, object, ExecResult]) -> None:
        self._conversation = conversation
        self.end = asyncio.create_task(self._until_end(run))

    async def _until_end(self, run: Coroutine[object, object, ExecResult]) -> ExecResult:
        try:
            return await run
        finally:
            self._conversation.end()

    async def read(self) -> tuple[StreamName, bytes] | None:
        piece = await self._conversation.read()
        if piece is None and self.end.done():
            await self.wait()
        return piece

    async def write(self, data: bytes) -> None:
        await self._conversation.write(data)

    async def close_stdin(self) -> None:
        self._conversation.close_stdin()

    async def resize(self, size: TerminalSize) -> None:
        self._conversation.resize(size)

    async def kill(self) -> None:
        self._conversation.kill()

    async def wait(self) -> ExecResult:
        self._conversation.await_end()
        try:
            return await asyncio.shield(self.end)
        except MachineLost as error:
            copy = MachineLost(str(error))
            copy.evidence = error.evidence
            raise copy from error
