"""Heartbeats: how each side of a link learns that the other has gone silent without the connection having broken.

A stopped process keeps its connections, and so does one behind a network that has come apart: both look like somebody
who has nothing to say. So each side of a link says a word at least every ``interval`` seconds, and who hears nothing
for ``loss`` seconds gives the other up: everything on it ends as :class:`~palmette.actors.Unreachable`.

    System.start(tree, heartbeat=Heartbeat(interval=1.0, loss=5.0))

Silence is not counted in seconds but in turns of this side's own clock: a program that was itself stopped (a Ctrl-Z, a
debugger) finds a single turn missed when it comes back, and reads what has waited for it before the next.

A node whose handler blocks is silent as well, and must not be given up for it: to block is what process nodes are for.
So silence counts only while the other side *may* be gone. Within a host the operating system says whether a process is
stopped or just busy; on a link to another host, and in a simulation, silence is all there is to go by. A node on its
head's own host does not watch the head: the connection tells of its death, and from a stop (Ctrl-Z) it comes back.
A node on another host goes by a :class:`Lease`, so that it is gone before anybody takes its place.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from typing import Protocol

import msgspec


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """How often each side of a link shows that it is there, and how long it may be silent."""

    interval: float = 3.0
    """Seconds between two signs of life."""
    loss: float = 15.0
    """Seconds of silence within which the other side is given up."""

    def __post_init__(self) -> None:
        # With fewer than three intervals a single late beat would be a lost node.
        if not (self.interval > 0 and self.loss >= 3 * self.interval):
            raise ValueError(
                f"a heartbeat needs an interval above 0 s and a loss time of at least three intervals; got "
                f"interval={self.interval:g}, loss={self.loss:g}"
            )

    @property
    def lease(self) -> float:
        """Seconds for which one side may go on after a sign of life that the other has heard.

        Silence is counted in whole intervals, so the other gives up after ``loss`` seconds or up to two intervals
        earlier. A quarter of an interval is left for two clocks that do not run alike, and to go.
        """
        return (math.floor(self.loss / self.interval + 1e-9) - 1.25) * self.interval


class Beating(Protocol):
    """What is kept alive: a link."""

    def beat(self) -> None:
        """Send a sign of life: also where others were sent, as it makes the other side miss a frame that was lost."""
        ...

    def was_heard(self) -> bool:
        """Whether something came in since this was asked last."""
        ...

    def gone_silent(self, seconds: float) -> None:
        """The other side is given up."""
        ...


class Pulse:
    """The turns of one side's clock. ``may_be_gone`` says whether silence counts; without it, it does not matter."""

    __slots__ = ("_beating", "_heartbeat", "_loop", "_may_be_gone", "_silent", "_timer")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        beating: Beating,
        heartbeat: Heartbeat,
        may_be_gone: Callable[[], bool] | None,
    ) -> None:
        self._loop = loop
        self._beating = beating
        self._heartbeat = heartbeat
        self._may_be_gone = may_be_gone
        self._silent = 0
        """Turns in a row without a word."""
        self._timer = loop.call_later(heartbeat.interval, self._turn)

    def _turn(self) -> None:
        interval, loss = self._heartbeat.interval, self._heartbeat.loss
        self._timer = self._loop.call_later(interval, self._turn)
        self._beating.beat()
        if self._may_be_gone is None:
            return
        if self._beating.was_heard() or not self._may_be_gone():
            self._silent = 0
            return
        self._silent += 1
        # The last word came up to one interval before the first silent turn; one more turn would be too late.
        if (self._silent + 2) * interval > loss * (1 + 1e-9):
            self.stop()
            self._beating.gone_silent(self._silent * interval)

    def stop(self) -> None:
        """No more."""
        self._timer.cancel()


class Lease:
    """The right to go on, where the other side may give this one up and put another into its place.

    Each beat of this side says when it was sent, and is echoed. This side has ``seconds`` from the sending of the last
    beat whose echo it has heard; then ``lapsed`` is called, once. The other side has heard that beat later than it was
    sent, and gives up later than that, so whatever is lost or late between the two, this side goes first.
    """

    __slots__ = ("_lapsed", "_loop", "_seconds", "_stopped", "_timer", "until")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, lapsed: Callable[[], None]) -> None:
        self._loop = loop
        self._seconds = seconds
        self._lapsed = lapsed
        self.until = loop.time() + seconds
        """On the loop's clock, which is the monotonic one."""
        self._timer = loop.call_at(self.until, self._look)
        self._stopped = threading.Event()

    def echoed(self, at: float) -> None:
        """The other side has heard the beat that was sent at ``at``."""
        if at <= self._loop.time():
            self.until = max(self.until, at + self._seconds)

    def is_over(self) -> bool:
        """Also before ``lapsed`` was called: who was stopped (a Ctrl-Z, a paused machine) finds it over."""
        return self._loop.time() >= self.until

    def _look(self) -> None:
        if self.is_over():
            self._lapsed()
        else:
            self._timer = self._loop.call_at(self.until, self._look)

    def stop(self) -> None:
        """No more."""
        self._timer.cancel()
        self._stopped.set()

    def guard(self, leave: Callable[[], None]) -> None:
        """Have ``leave`` called by a thread when the lease is over: for a process whose handlers may block its loop.

        Code that keeps Python's lock for that long (few extension modules do) holds up the thread, too.
        """

        def watch() -> None:
            while not self._stopped.wait(max(0.0, self.until - time.monotonic())):
                if time.monotonic() >= self.until:
                    leave()
                    return

        threading.Thread(target=watch, name="palmette-lease", daemon=True).start()
