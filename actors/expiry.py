"""The deadlines of calls under way, thousands at a time, without a timer for each.

Nearly every call is answered long before its deadline, and a timer that is only ever cancelled is a large part of a
call's cost. So calls are put in one drawer per tick of an eighth of a second, each drawer with one timer. When a tick
begins, those that are still in its drawer (few) get the exact timer that they were spared until then: a deadline holds
to the loop's own resolution, as it would with ``call_at``.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Never

from palmette.actors.errors import DeadlineExceeded

if TYPE_CHECKING:
    from palmette.actors.endpoints import Endpoint
    from palmette.actors.slot import Slot

TICKS: Final = 8
"""Per second."""

Call = tuple[float, "Slot", "Endpoint[Never, ..., object]"]
Drawer = dict["asyncio.Future[object]", Call]


def expire(future: asyncio.Future[object], path: str, what: str) -> None:
    """Fail a call whose time is up; a reply that comes later finds the future done and is dropped."""
    if not future.done():
        future.set_exception(DeadlineExceeded(f"{path} did not answer {what} in time"))


class Expiry:
    """See the module's text. One per system."""

    __slots__ = ("_drawers", "_loop", "_timers")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._drawers: dict[int, Drawer] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}

    def watch(
        self, future: asyncio.Future[object], at: float, slot: Slot, endpoint: Endpoint[Never, ..., object]
    ) -> Drawer:
        """Have ``future`` fail at ``at``. Take it out of the returned drawer when it is done."""
        try:
            tick = int(at * TICKS)
        except OverflowError:
            return {future: (at, slot, endpoint)}  # infinitely far off
        try:
            drawer = self._drawers[tick]
        except KeyError:
            begins = tick / TICKS
            if begins <= self._loop.time():
                return self._exactly({future: (at, slot, endpoint)})
            drawer = self._drawers[tick] = {}
            self._timers[tick] = self._loop.call_at(begins, self._open, tick)
        drawer[future] = (at, slot, endpoint)
        return drawer

    def _open(self, tick: int) -> None:
        del self._timers[tick]
        self._exactly(self._drawers.pop(tick))

    def _exactly(self, drawer: Drawer) -> Drawer:
        for future, (at, slot, endpoint) in drawer.items():
            timer = self._loop.call_at(at, expire, future, slot.path, endpoint.name)
            future.add_done_callback(lambda _, timer=timer: timer.cancel())
        return drawer

    def close(self) -> None:
        """Nobody calls any more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
