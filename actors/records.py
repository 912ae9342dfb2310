"""What a system remembers of what happened in it: exits, dead letters, counters. All are counted, the newest kept."""

from __future__ import annotations

import logging
import reprlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from heapq import merge
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from palmette.actors.errors import ActorDied
from palmette.actors.exits import Reason, describe, is_graceful
from palmette.actors.introspection import BlockRecord, DeadLetter, ExitRecord, SystemStatistics
from palmette.actors.messages import Request

if TYPE_CHECKING:
    from palmette.actors.cell import Cell
    from palmette.actors.ref import Ref
    from palmette.actors.slot import Slot

KEEP: Final = 1000
"""Dead letters, ordinary exits and crashes that are kept for looking at, of each; all are counted."""

log = logging.getLogger("palmette")

_brief = reprlib.Repr()
"""For dead letters: bounded, and a message whose own repr raises cannot break an actor's end."""
_brief.maxother = _brief.maxstring = _brief.maxlong = 200


class ExitHistory:
    """The newest exits, oldest first; the crashes among them are kept apart, so that no stream of ordinary ends (a
    thousand short tasks) drives out the one that somebody will ask about."""

    def __init__(self) -> None:
        self._ordinary: deque[tuple[int, ExitRecord]] = deque(maxlen=KEEP)
        self._crashes: deque[tuple[int, ExitRecord]] = deque(maxlen=KEEP)
        self._count = 0

    def append(self, record: ExitRecord) -> None:
        self._count += 1
        (self._ordinary if is_graceful(record.reason) else self._crashes).append((self._count, record))

    def clear(self) -> None:
        self._ordinary.clear()
        self._crashes.clear()

    def __len__(self) -> int:
        return len(self._ordinary) + len(self._crashes)

    def __iter__(self) -> Iterator[ExitRecord]:
        for _, record in merge(self._ordinary, self._crashes, key=itemgetter(0)):
            yield record

    def __reversed__(self) -> Iterator[ExitRecord]:
        newest_first = merge(reversed(self._ordinary), reversed(self._crashes), key=itemgetter(0), reverse=True)
        for _, record in newest_first:
            yield record


class Records:
    """See the module's text. A part of the system."""

    slots: dict[str, Slot]

    def __init__(self) -> None:
        self.exits = ExitHistory()
        self.dead_letters: deque[DeadLetter] = deque(maxlen=KEEP)
        self.blocked: deque[BlockRecord] = deque(maxlen=KEEP)
        """The times that one actor's code held up the event loop."""
        self.clock: Callable[[], float] = time.time
        """Seconds since the epoch, for records."""
        self._counts = {"started": 0, "exits": 0, "crashes": 0, "dead_letters": 0, "zombies": 0, "blocked": 0}
        self._exit_watchers: list[Ref[object]] = []

    # --- looking at them -------------------------------------------------------------------------------------------

    def statistics(self) -> SystemStatistics:
        alive = sum(1 for slot in self.slots.values() if slot.target is not None)
        return SystemStatistics(actors=alive, **self._counts)

    def why(self, path: str) -> list[ExitRecord]:
        """The exits recorded at or below an address, oldest first."""
        return [record for record in self.exits if _is_below(record.path, path)]

    def blocked_by(self, path: str) -> list[BlockRecord]:
        """The times that the actor at an address, or one below it, held up the event loop, oldest first."""
        return [record for record in self.blocked if _is_below(record.path, path)]

    def watch_exits(self, watcher: Ref[object]) -> None:
        """Send every :class:`ExitRecord` to ``watcher`` from now on, in order. To ask again changes nothing."""
        if watcher not in self._exit_watchers:
            self._exit_watchers.append(watcher)

    # --- book-keeping of the kernel ---------------------------------------------------------------------------------

    def record_exit(self, slot: Slot, kind: str, reason: Reason) -> None:
        """An incarnation of this process, or the process of one, has ended."""
        self.adopt_exit(
            ExitRecord(at=self.clock(), path=slot.path, kind=kind, incarnation=slot.incarnation, reason=reason)
        )

    def adopt_exit(self, record: ExitRecord) -> None:
        """Keep and pass on an exit that was recorded here or in a node."""
        self._counts["exits"] += 1
        if not is_graceful(record.reason):
            self._counts["crashes"] += 1
            log.info("%s (%s) ended: %s", record.path, record.kind, describe(record.reason))
        self.exits.append(record)
        for watcher in self._exit_watchers:
            if watcher.is_alive() and watcher.path != record.path:
                watcher.send(record)

    def record_block(self, record: BlockRecord) -> None:
        """An actor's code has held up the event loop."""
        self._counts["blocked"] += 1
        self.blocked.append(record)

    def log_zombie(self, cell: Cell) -> None:
        self._counts["zombies"] += 1
        log.warning("%s was killed but its code runs on: it swallows cancellation", cell.slot.path)

    def dead_letter(self, path: str, message: object) -> None:
        self._counts["dead_letters"] += 1
        self.dead_letters.append(DeadLetter(at=self.clock(), path=path, message=_brief.repr(message)))

    def undeliverable(self, path: str, request: Request, reason: Reason) -> None:
        """Fail a call that can no longer be answered; a cast becomes a dead letter."""
        if not request.fail(ActorDied(path, reason)):
            self.dead_letter(path, request)


def _is_below(path: str, above: str) -> bool:
    return path == above or path.startswith(above.rstrip("/") + "/")
