"""What the processes of a member's nodes print: read by the member, and logged where the program is.

The member reads, and not the node, so that the last words of a process arrive however it dies. A node's standard output
and error are connections to a unix socket of the member; what the node starts inherits them.

    in the member    readers = OutputReaders(tell)
                     await readers.open(directory / "output")
                     readers.expect(node, token)              # before its process is started
    in the node      connect_output(path, node, token)        # before anything of the user's is imported
    in the program   log_output(path_of_the_actor, pid, lines)

A node never waits for whoever reads its words in the end: lines above a rate are dropped here, and counted. Records go
to the loggers ``palmette.node.stdout`` (as INFO) and ``palmette.node.stderr`` (as WARNING), under the actor's path.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, Literal, cast

import msgspec

Stream = Literal["stdout", "stderr"]

LOGGERS: Final[dict[str, tuple[logging.Logger, int]]] = {
    "stdout": (logging.getLogger("palmette.node.stdout"), logging.INFO),
    "stderr": (logging.getLogger("palmette.node.stderr"), logging.WARNING),
}
CONNECT_SECONDS: Final = 10.0
MAX_HEADER: Final = 1024
"""Bytes of the line in which a connection says whose it is."""
MAX_LINE: Final = 16 << 10
"""Bytes. A longer line is cut into several."""
UNFINISHED_SECONDS: Final = 2.0
"""After which a line that has not ended is passed on as far as it goes: a progress bar, a prompt."""
RATE: Final = 256 << 10
"""Bytes a second that each stream may go on writing; the rest is dropped and counted."""
BURST: Final = 1 << 20
"""Bytes that it may write at once."""


class Line(msgspec.Struct, frozen=True, array_like=True):
    """One line, without its end."""

    stream: Stream
    text: str
    at: float
    """When it was read, in seconds since the epoch."""


class _Header(msgspec.Struct, frozen=True):
    node: str
    token: str
    stream: Stream


# --- in the node -----------------------------------------------------------------------------------------------------


def connect_output(path: str, node: str, token: str) -> None:
    """Have the member at ``path`` read what this process prints from now on. Raises OSError."""
    streams: tuple[Stream, ...] = ("stdout", "stderr")
    for descriptor, stream in enumerate(streams, start=1):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(CONNECT_SECONDS)
            connection.connect(path)
            connection.sendall(msgspec.json.encode(_Header(node, token, stream)) + b"\n")
            connection.setblocking(True)  # it is the open file, and not this object, that would not wait
            os.dup2(connection.fileno(), descriptor)


# --- in the member ---------------------------------------------------------------------------------------------------


class OutputReaders:
    """The member's end of its nodes' output. ``tell`` is given a node's name and its next lines, at least one."""

    def __init__(self, tell: Callable[[str, list[Line]], None]) -> None:
        self.tell = tell
        self._server: asyncio.Server | None = None
        self._expected: dict[str, str] = {}
        self._open: set[_Reader] = set()

    async def open(self, path: Path) -> None:
        """Listen at ``path``, in a directory that only this user can enter. Raises OSError."""
        self._server = await asyncio.get_running_loop().create_unix_server(lambda: _Reader(self), str(path))

    def expect(self, node: str, token: str) -> None:
        """Read what ``node`` prints, which knows ``token``; before it is started."""
        self._expected[node] = token

    def forget(self, node: str) -> None:
        """Take no further connection of ``node``, which has ended; what it has printed is still read."""
        self._expected.pop(node, None)

    async def close(self) -> None:
        """Pass on what was read, and hang up on everybody."""
        if self._server is not None:
            self._server.close()
        for reader in list(self._open):
            reader.close()
        await asyncio.sleep(0)  # transports close in the next turn

    # --- for the readers ---------------------------------------------------------------------------------------------

    def joined(self, reader: _Reader) -> None:
        self._open.add(reader)

    def left(self, reader: _Reader) -> None:
        self._open.discard(reader)

    def knows(self, header: _Header) -> bool:
        token = self._expected.get(header.node)
        return token is not None and hmac.compare_digest(token.encode(), header.token.encode())


class _Reader(asyncio.Protocol):
    """One stream of one node."""

    def __init__(self, readers: OutputReaders) -> None:
        self._readers = readers
        self._loop = asyncio.get_running_loop()
        self._header: _Header | None = None
        self._buffer = bytearray()
        self._late: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._left = float(BURST)
        """Bytes that may be passed on now."""
        self._counted = self._loop.time()
        self._dropped = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._readers.joined(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._header is None and not self._introduce():
            return
        self._pass_on(self._lines())
        if not self._buffer:
            self._stop_waiting()
        elif self._late is None:
            self._late = self._loop.call_later(UNFINISHED_SECONDS, self._flush)

    def connection_lost(self, exc: Exception | None) -> None:
        self._flush()
        if self._dropped:
            self._left = BURST
            self._pass_on(())
        self._stop_waiting()
        self._readers.left(self)

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()

    # --- what is done with it ----------------------------------------------------------------------------------------

    def _introduce(self) -> bool:
        head, newline, rest = self._buffer.partition(b"\n")
        if not newline and len(head) <= MAX_HEADER:
            return False
        try:
            header = msgspec.json.decode(head[:MAX_HEADER], type=_Header)
        except msgspec.MsgspecError:
            header = None
        if header is None or not self._readers.knows(header):
            self._buffer.clear()
            self.close()
            return False
        self._header, self._buffer = header, rest
        return True

    def _lines(self) -> Iterator[bytearray]:
        *lines, rest = self._buffer.split(b"\n")
        for line in lines:
            yield from _pieces(line)
        self._buffer = rest
        if len(rest) > MAX_LINE:
            *pieces, self._buffer = _pieces(rest)
            yield from pieces

    def _flush(self) -> None:
        self._stop_waiting()
        if self._header is not None and self._buffer:
            rest, self._buffer = self._buffer, bytearray()
            self._pass_on(_pieces(rest))

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _pass_on(self, lines: Iterable[bytearray]) -> None:
        assert self._header is not None
        now = self._loop.time()
        self._left = min(float(BURST), self._left + (now - self._counted) * RATE)
        self._counted = now
        stream, at = self._header.stream, time.time()
        told: list[Line] = []
        if self._dropped and self._left >= MAX_LINE:
            told.append(Line(stream, f"[{self._dropped} lines were dropped: more than {RATE >> 10} KiB/s]", at))
            self._dropped = 0
        for line in lines:
            if self._dropped or len(line) > self._left:
                self._dropped += 1
            else:
                self._left -= len(line) + 1
                told.append(Line(stream, line.decode(errors="replace"), at))
        if told:
            self._readers.tell(self._header.node, told)


def _pieces(line: bytearray) -> list[bytearray]:
    """``line`` as a terminal would show it in the end, cut where it is too long."""
    line = line.removesuffix(b"\r")
    line = line[line.rfind(b"\r") + 1 :]
    return [line[at : at + MAX_LINE] for at in range(0, len(line), MAX_LINE)] or [line]


# --- in the program --------------------------------------------------------------------------------------------------


def log_output(path: str, pid: int, lines: Iterable[Line]) -> None:
    """Log what the process ``pid`` of the actor at ``path`` has printed."""
    for line in lines:
        logger, level = LOGGERS[line.stream]
        if logger.isEnabledFor(level):
            record = logger.makeRecord(logger.name, level, path, 0, "%s", (line.text,), None)
            record.created, record.process, record.processName = line.at, pid, path
            logger.handle(record)
