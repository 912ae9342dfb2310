"""The runner's loop: descriptors that are waited for, and one stream of frames in and out."""

import contextlib
import os
import select
import time
from collections.abc import Callable

from palmette.machines.runner import wire

BACKLOG = 1 << 20
"""Bytes of frames that may wait to be written before commands are held up."""


class Loop:
    """Calls back when descriptors are ready. Never blocks but in :meth:`turn`."""

    def __init__(self, given: int, taken: int) -> None:
        self._given = given
        self._taken = taken
        os.set_blocking(given, False)
        os.set_blocking(taken, False)
        self._decoder = wire.Decoder(wire.FROM_CONTROLLER)
        self._outgoing = bytearray()
        self._callbacks: dict[int, Callable[[], object]] = {}
        self._everything = select.poll()
        self._vital = select.poll()
        self._vital.register(given, select.POLLIN)
        self._everything.register(given, select.POLLIN)
        self.incoming: list[tuple[int, int, bytes]] = []
        self.ended = False
        """Whether the controller is gone: the end of input, or nobody to write to."""
        self.owned: set[int] = set()
        """Descriptors that a fork should close."""
        self.now = time.monotonic()

    def pipe(self) -> "tuple[int, int]":
        """A pipe, both ends owned."""
        ends = os.pipe()
        self.owned.update(ends)
        return ends

    def close(self, fd: int) -> None:
        """Close an owned descriptor."""
        self.unwatch(fd)
        self.owned.discard(fd)
        os.close(fd)

    def watch(self, fd: int, callback: "Callable[[], object]", *, write: bool = False, vital: bool = True) -> None:
        """Have ``callback`` called while ``fd`` is ready. What is not ``vital`` waits while frames pile up."""
        self._callbacks[fd] = callback
        events = select.POLLOUT if write else select.POLLIN
        self._everything.register(fd, events)
        if vital:
            self._vital.register(fd, events)

    def unwatch(self, fd: int) -> None:
        """The counterpart; what is not watched is fine."""
        if self._callbacks.pop(fd, None) is not None:
            self._everything.unregister(fd)
            with contextlib.suppress(KeyError):
                self._vital.unregister(fd)

    def send(self, kind: int, number: int, payload: bytes = b"") -> None:
        """A frame to the controller, written before the next wait."""
        self._outgoing += wire.frame(kind, number, payload)

    def turn(self, until: float) -> None:
        """Wait for something to be ready, not past ``until``, and serve it. Frames are left in :attr:`incoming`."""
        ended = self.ended
        self.flush()
        if self.ended and not ended:
            return
        poller = self._everything if len(self._outgoing) < BACKLOG else self._vital
        wait = max(0.0, until - time.monotonic())
        ready = poller.poll(wait * 1000 + 1 if wait else 0)
        self.now = time.monotonic()
        for fd, _ in ready:
            if fd == self._given:
                self._receive()
            elif fd == self._taken:
                self.flush()
            elif fd in self._callbacks:
                self._callbacks[fd]()

    def flush(self) -> None:
        """Write what the controller takes now; the rest when it takes more."""
        if not self._outgoing:
            return
        try:
            while self._outgoing and not self.ended:
                del self._outgoing[: os.write(self._taken, self._outgoing[: 1 << 20])]
        except BlockingIOError:
            pass
        except OSError:
            self.ended = True
        if self.ended:
            self._outgoing.clear()
        for poller in (self._everything, self._vital):
            if self._outgoing:
                poller.register(self._taken, select.POLLOUT)
            else:
                with contextlib.suppress(KeyError):
                    poller.unregister(self._taken)

    def _receive(self) -> None:
        try:
            data = os.read(self._given, 1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.ended = True
            self._everything.unregister(self._given)
            self._vital.unregister(self._given)
        self.incoming += self._decoder.feed(data)
