"""An event loop inside a Thespian process, on one thread: the loop runs *in* Thespian's ``select``.

Thespian's transport makes a selector each turn and waits on it. :class:`HostedSelector` is that selector: its
``select`` watches Thespian's descriptors on the asyncio loop and runs the loop until one of them is ready or the time
is up. So actors run all the time, Thespian gets its turn within one turn of the loop, and there is no second thread
for the two to fight over the interpreter with.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import traceback
from typing import Final, NamedTuple

from palmette.actors.running import new_event_loop

EVENT_READ: Final = selectors.EVENT_READ
EVENT_WRITE: Final = selectors.EVENT_WRITE
LOOP: Final = "PALMETTE_NODE_LOOP"
"""The environment variable that chooses a node's event loop: ``uvloop`` (where there is one) or ``asyncio``."""


def new_loop() -> asyncio.AbstractEventLoop:
    """The loop that a node runs on: uvloop's, where that can be imported. Raises ValueError."""
    match os.environ.get(LOOP, "uvloop"):
        case "asyncio":
            return asyncio.new_event_loop()
        case "uvloop":
            return new_event_loop()
        case other:
            raise ValueError(f"{LOOP} is uvloop or asyncio, not {other!r}")


class Key(NamedTuple):
    """What Thespian looks at of a ready descriptor."""

    fd: int


class HostedSelector:
    """Stands in for ``selectors.DefaultSelector`` in Thespian's transport module."""

    loop: asyncio.AbstractEventLoop | None = None
    """Set by :func:`install`."""

    def __init__(self) -> None:
        self._wanted: dict[int, int] = {}

    def register(self, fileobj: int, events: int) -> None:
        self._wanted[fileobj] = self._wanted.get(fileobj, 0) | events

    def close(self) -> None:
        self._wanted.clear()

    def select(self, timeout: float | None = None) -> list[tuple[Key, int]]:
        loop = self.loop
        if loop is None or loop.is_running() or loop.is_closed():
            return self._select_plainly(timeout)
        ready: dict[int, int] = {}

        def on_ready(fd: int, event: int) -> None:
            ready[fd] = ready.get(fd, 0) | event
            loop.stop()

        timer = None if timeout is None else loop.call_later(timeout, loop.stop)
        try:
            for fd, events in self._wanted.items():
                if events & EVENT_READ:
                    loop.add_reader(fd, on_ready, fd, EVENT_READ)
                if events & EVENT_WRITE:
                    loop.add_writer(fd, on_ready, fd, EVENT_WRITE)
            _run(loop)
        finally:
            if timer is not None:
                timer.cancel()
            for fd, events in self._wanted.items():
                if events & EVENT_READ:
                    loop.remove_reader(fd)
                if events & EVENT_WRITE:
                    loop.remove_writer(fd)
        return [(Key(fd), events) for fd, events in ready.items()]

    def _select_plainly(self, timeout: float | None) -> list[tuple[Key, int]]:
        with selectors.DefaultSelector() as plain:
            for fd, events in self._wanted.items():
                plain.register(fd, events)
            return [(Key(key.fd), events) for key, events in plain.select(timeout)]


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    except BaseException:  # noqa: BLE001 - SystemExit and the like, out of a task that no actor owns
        # Thespian would go on without us. The process is what such code wants to end.
        traceback.print_exc()
        os.killpg(0, signal.SIGKILL)


class _Selectors:
    """Stands in for the ``selectors`` module in Thespian's transport."""

    DefaultSelector = HostedSelector
    EVENT_READ = EVENT_READ
    EVENT_WRITE = EVENT_WRITE


def install(loop: asyncio.AbstractEventLoop) -> None:
    """Host ``loop`` in this process's Thespian transport from its next turn on."""
    from thespian.system.transport import TCPTransport

    HostedSelector.loop = loop
    TCPTransport.selectors = _Selectors
