"""A program on the other host as a byte stream, read by the event loop without a thread of its own.

paramiko's reader thread puts what comes in into the channel's buffers and rings a bell when it does so. paramiko's own
bell is a pipe (``Channel.fileno``); it would be closed under the hands of that thread, and its numbers cost two
descriptors per channel. Ours is a callback into the loop.

Two things that a channel does write to the socket, and so may wait for a peer that reads nothing: sending, and
telling the peer that a tenth of its window has been read. Both are done in the connection's sending thread (a
:class:`~palmette.machines.ssh.threads.Lane`); everything else is done at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, cast

from palmette.machines.ssh.threads import Lane

if TYPE_CHECKING:
    import paramiko

_CHUNK = 1 << 16
_PACKET = 1 << 15
_BURST = 1 << 18
"""Bytes that one channel may send before another one has its turn."""
_COMPLAINT = 4096
_NOISE = 1 << 16


class SshChannel:
    """One program. Made on the event loop, by :meth:`~palmette.machines.ssh.connection.Connection.session`.

    Args:
        mark: what the program's output starts with; anything before it is the login shell's (a greeting in
            ``.bashrc``) and goes to :attr:`complaint`.
        on_end: called once, when the program has ended and the server has closed the channel.
    """

    def __init__(
        self, channel: paramiko.Channel, lane: Lane, *, mark: bytes = b"", on_end: Callable[[], None] = lambda: None
    ) -> None:
        self._channel = channel
        self._lane = lane
        self._on_end = on_end
        self._mark = mark
        self._before = b""
        self._said = b""
        self._pieces: deque[bytes] = deque()
        self._fetching = False
        self._closing = False
        self._wake = asyncio.Event()
        self._gone = asyncio.Event()
        channel.settimeout(0.0)
        bell = cast(Event, _Bell(asyncio.get_running_loop(), self._rung))
        # Rings at once for what came before.
        channel.in_buffer.set_event(bell)
        channel.in_stderr_buffer.set_event(bell)

    async def read(self) -> bytes:
        """Some bytes of output; ``b""`` at the end. One reader at a time; cancelling it loses nothing."""
        while True:
            self._wake.clear()
            if self._pieces:
                return self._pieces.popleft()
            if self._take() and not self._pieces:
                return b""
            if not self._pieces:
                await self._wake.wait()

    async def write(self, data: bytes) -> None:
        """All of ``data``; waits while the program does not read. One writer at a time.

        Raises:
            ConnectionError: the stream has ended.
        """
        left, pause = memoryview(data), 0.001
        while left:
            if self._channel.closed or self._closing:
                raise ConnectionResetError("the program on the other host has ended")
            if not self._channel.send_ready():
                # Nobody is told when the window opens again; it is shut only while the program does not read.
                await asyncio.sleep(pause)
                pause = min(2 * pause, 0.02)
                continue
            pause = 0.001
            try:
                sent = await self._lane.submit(partial(_push, self._channel, left[:_BURST]))
            except (OSError, EOFError) as error:
                raise ConnectionResetError(f"the connection to the other host has ended: {error}") from error
            left = left[sent:]

    async def end_input(self) -> None:
        """The program reads the end of its input after what was written."""
        self._lane.submit(self._channel.shutdown_write).add_done_callback(_forget)

    async def close(self) -> None:
        """Give it up: the program reads the end of its input, and what it still says is dropped.

        The server counts the session until the program has ended; :meth:`ended` waits for that.
        """
        if not self._closing:
            self._closing = True
            await self.end_input()
            self._rung()

    async def ended(self) -> None:
        """Wait until the program has ended and the server has closed the channel, or the connection has gone."""
        await self._gone.wait()

    @property
    def has_ended(self) -> bool:
        return self._channel.closed

    @property
    def given_up(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closing

    @property
    def exit_status(self) -> int | None:
        """Once it has ended: what the program returned; ``None`` when a signal or the connection ended it."""
        status = self._channel.exit_status
        return status if self._channel.closed and status >= 0 else None

    @property
    def complaint(self) -> str:
        """The last of what the program wrote to standard error, and what the login shell said before it."""
        return (self._before + self._said).decode("utf-8", "replace").strip()

    def _rung(self) -> None:
        if self._channel.closed and not self._gone.is_set():
            self._take()  # its last words, though nobody reads
            self._gone.set()
            self._on_end()
        while self._closing and not self._take() and self._pieces:
            self._pieces.clear()
        self._wake.set()

    def _take(self) -> bool:
        """Move what has come into ``_pieces``; whether the stream has ended."""
        if self._fetching:
            return False
        # In this order: what came before the end is in the buffers when the end can be seen.
        ended = bool(self._channel.eof_received) or self._channel.closed
        while self._channel.recv_stderr_ready() and not self._fetching:
            self._receive(self._channel.recv_stderr, self._complain)
        while not self._pieces and not self._fetching and self._channel.recv_ready():
            self._receive(self._channel.recv, self._accept)
        return ended and not self._fetching and not self._channel.recv_ready()

    def _receive(self, receive: Callable[[int], bytes], accept: Callable[[bytes], None]) -> None:
        quiet = self._channel.in_window_threshold - self._channel.in_window_sofar
        if quiet > 0:  # so many bytes can be taken without telling the peer
            accept(receive(min(quiet, _CHUNK)))
            return

        def received(future: asyncio.Future[bytes]) -> None:
            self._fetching = False
            accept(b"" if future.exception() else future.result())  # a dead connection ends the stream by itself
            self._rung()

        self._fetching = True
        self._lane.submit(partial(receive, _CHUNK)).add_done_callback(received)

    def _complain(self, data: bytes) -> None:
        self._said = (self._said + data)[-_COMPLAINT:]

    def _accept(self, data: bytes) -> None:
        if self._mark:
            self._before += data
            noise, mark, data = self._before.partition(self._mark)
            self._before = noise[-_NOISE:]
            if not mark:
                return
            self._mark = b""
        if data:
            self._pieces.append(data)


class _Bell:
    """What a buffer takes for a ``threading.Event``: set when something came, or it was closed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._ringing = False

    def set(self) -> None:
        # Called before the bytes are in the buffer, but under its lock, which the loop takes to look into it.
        if not self._ringing:
            self._ringing = True
            try:
                self._loop.call_soon_threadsafe(self._rung)
            except RuntimeError:  # the loop is closed; an exception here would end the connection of others
                return

    def clear(self) -> None:
        """The loop looks for itself."""

    def _rung(self) -> None:
        self._ringing = False
        self._ring()


def _push(channel: paramiko.Channel, data: memoryview) -> int:
    """Send what the window takes; how many bytes. Blocks while the socket is full."""
    sent = 0
    while sent < len(data):
        try:
            count = channel.send(bytes(data[sent : sent + _PACKET]))
        except TimeoutError:  # the window is shut
            return sent
        if not count:
            raise ConnectionResetError("the channel is closed")
        sent += count
    return sent


def _forget(future: asyncio.Future[None]) -> None:
    future.exception()  # a connection that is gone has no input to end
