"""Where the engines of idle actors wait for the next message, up to a bound.

To start a task costs more than to wake one, and to keep one costs memory. So some engines are kept, and the one that
was kept the longest gives way to a new one: an actor that talks all the time rarely starts a task, and sleeping ones
keep few.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from palmette.actors.cell import Cell

PLACES: Final = 256
"""Engines that are kept, at about a kilobyte each."""


class Parking:
    """See the module's text. One per system."""

    __slots__ = ("_loop", "_places")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._places: dict[Cell, None] = {}

    def park(self, cell: Cell) -> asyncio.Future[bool]:
        """What ``cell``'s engine is to wait for. It resolves to whether there is something to do; else it is to go."""
        if not cell.has_place:
            if len(self._places) >= PLACES:
                self._make_room()
            self._places[cell] = None
            cell.has_place = True
        cell.parked = parked = self._loop.create_future()
        return parked

    def _make_room(self) -> None:
        oldest = next(iter(self._places))
        self.leave(oldest)
        parked = oldest.parked
        if parked is not None:
            # From here on it counts as one without an engine: a message that comes now starts a new one.
            oldest.task = oldest.parked = None
            if not parked.done():
                parked.set_result(False)

    def leave(self, cell: Cell) -> None:
        """Give up ``cell``'s place."""
        if cell.has_place:
            cell.has_place = False
            del self._places[cell]
