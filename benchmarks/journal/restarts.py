"""Which of a tree's exits led to a restart.

The kernel tells of every end; that its supervisor put a successor in its place shows later, when the same address has
a newer incarnation. An end that nobody replaced (a spent budget, the end of the run) is no restart, and neither is a
sibling's orderly stop while a group starts over: each restart is counted once, under the child whose end caused it.

>>> from palmette.actors import Crashed, ExitRecord, Normal
>>> restarts = Restarts()
>>> crash = ExitRecord(at=1.0, path="/pool", kind="Pool", incarnation=1, reason=Crashed("ValueError", "boom"))
>>> restarts.saw(crash)
[]
>>> [str(record) for record in restarts.settled({"/pool": 2}.get)]
['/pool#1 (Pool): ValueError: boom']
"""

from __future__ import annotations

from collections.abc import Callable

from palmette.actors import ExitRecord, System, is_graceful


class Restarts:
    """Feed it every :class:`ExitRecord`, in order; it returns those that were followed by a restart, once each."""

    def __init__(self) -> None:
        self._fallen: dict[str, ExitRecord] = {}

    def saw(self, record: ExitRecord) -> list[ExitRecord]:
        """Take an exit. It proves that an earlier one at the same address was followed by a restart."""
        earlier = self._fallen.pop(record.path, None)
        if not is_graceful(record.reason):
            self._fallen[record.path] = record
        return [earlier] if earlier is not None and record.incarnation > earlier.incarnation else []

    def settled(self, incarnation: Callable[[str], int | None]) -> list[ExitRecord]:
        """Those whose address has a newer incarnation by now, as ``incarnation(path)`` says."""
        # One whose address is gone stays: the exit of its successor may be on its way.
        replaced = [r for path, r in self._fallen.items() if (incarnation(path) or 0) > r.incarnation]
        for record in replaced:
            del self._fallen[record.path]
        return replaced


def incarnation_in(system: System) -> Callable[[str], int | None]:
    """For :meth:`Restarts.settled`."""

    def incarnation(path: str) -> int | None:
        slot = system.slots.get(path)
        return None if slot is None else slot.incarnation

    return incarnation
