"""Links and monitors of one incarnation: whom it watches, who watches it, and whose fate it shares.

A *monitor* is one-way and stackable: each delivers exactly one :class:`Down`, at once if nobody is there. A *link* is
two-way and idempotent: when one end ends for any reason but ``Normal``, the other ends with it, without a say, unless
it traps exits, in which case it gets an :class:`Exit` message for every reason.

Most actors have neither, so a cell makes this object on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from palmette.actors.exits import Declined, NoProcess, Normal, Reason
from palmette.actors.messages import Down, Exit

if TYPE_CHECKING:
    from palmette.actors.cell import Cell
    from palmette.actors.ref import Ref
    from palmette.actors.slot import Linked, Slot, Watcher


class Bonds:
    """See the module's text."""

    __slots__ = ("cell", "ids", "links", "monitoring", "watchers")

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.ids = 0
        self.links: dict[Linked, None] = {}
        self.watchers: dict[tuple[Watcher, int], None] = {}
        """Who watches this cell, in the order of asking."""
        self.monitoring: dict[int, Slot] = {}
        """Whom this cell watches, by monitor id."""

    # --- monitors ------------------------------------------------------------------------------------------------

    def monitor(self, slot: Slot) -> int:
        """Watch the present incarnation at ``slot``."""
        self.ids += 1
        self.monitoring[self.ids] = slot
        if slot.target is None:
            self.down(self.cell.system.ref(slot), NoProcess(slot.path), self.ids)
        else:
            slot.target.add_monitor(self.cell, self.ids)
        return self.ids

    def down(self, ref: Ref[object], reason: Reason, monitor: int) -> None:
        """Deliver a monitor's one message, unless it was undone meanwhile."""
        if self.monitoring.pop(monitor, None) is not None:
            self.cell.post(Down(ref, reason, monitor))

    def demonitor(self, monitor: int) -> None:
        """Undo one monitor, also where its ``Down`` waits in the mailbox already."""
        slot = self.monitoring.pop(monitor, None)
        if slot is None:
            self.cell.mailbox.remove(lambda message: isinstance(message, Down) and message.monitor == monitor)
        elif slot.target is not None:
            slot.target.remove_monitor(self.cell, monitor)

    # --- links ---------------------------------------------------------------------------------------------------

    def link(self, slot: Slot) -> None:
        """Share the fate of the present incarnation at ``slot``; one that is gone counts as ended."""
        if slot.target is None:
            self.exit_signal(self.cell.system.ref(slot), NoProcess(slot.path))
        else:
            self.links[slot.target] = None
            slot.target.add_link(self.cell)

    def unlink(self, slot: Slot) -> None:
        """Undo :meth:`link`, from either side."""
        if slot.target is not None:
            self.links.pop(slot.target, None)
            slot.target.remove_link(self.cell)

    def exit_signal(self, ref: Ref[object], reason: Reason) -> None:
        """A linked actor has ended."""
        actor = self.cell.actor
        if actor is not None and actor.trap_exit:
            self.cell.post(Exit(ref, reason))
        elif not isinstance(reason, Normal | Declined):
            self.cell.kill(reason)

    def link_ended(self, ref: Ref[object], reason: Reason) -> None:
        """One in another process has ended. Both sides may have made the link: it ends once."""
        ends = [end for end in self.links if end.path == ref.path]
        for end in ends:
            self.links.pop(end, None)
            end.remove_link(self.cell)
        if ends:
            self.exit_signal(ref, reason)

    # --- the end -------------------------------------------------------------------------------------------------

    def announce(self, ref: Ref[object], reason: Reason) -> None:
        """This cell has ended: tell everybody whom it concerns, and stop watching others."""
        links, self.links = self.links, {}
        for other in links:
            # In this order: the far side of a stand-in ignores the signal of a link that was undone.
            other.exit_signal(ref, reason)
            other.remove_link(self.cell)
        watchers, self.watchers = self.watchers, {}
        for watcher, monitor in watchers:
            watcher.down(ref, reason, monitor)
        monitoring, self.monitoring = self.monitoring, {}
        for monitor, slot in monitoring.items():
            if slot.target is not None:
                slot.target.remove_monitor(self.cell, monitor)


class Bonded:
    """What has bonds: the part of a cell that others watch and link themselves to."""

    __slots__ = ("_bonds",)

    _bonds: Bonds | None

    @property
    def bonds(self) -> Bonds:
        """Links and monitors."""
        if self._bonds is None:
            self._bonds = Bonds(cast("Cell", self))
        return self._bonds

    @property
    def links(self) -> tuple[Linked, ...]:
        """The other ends of this one's links."""
        return () if self._bonds is None else tuple(self._bonds.links)

    def add_monitor(self, watcher: Watcher, monitor: int) -> None:
        self.bonds.watchers[(watcher, monitor)] = None

    def remove_monitor(self, watcher: Watcher, monitor: int) -> None:
        self.bonds.watchers.pop((watcher, monitor), None)

    def down(self, ref: Ref[object], reason: Reason, monitor: int) -> None:
        self.bonds.down(ref, reason, monitor)

    def add_link(self, other: Linked) -> None:
        self.bonds.links[other] = None

    def remove_link(self, other: Linked) -> None:
        self.bonds.links.pop(other, None)

    def exit_signal(self, ref: Ref[object], reason: Reason) -> None:
        self.bonds.exit_signal(ref, reason)

    def link_ended(self, ref: Ref[object], reason: Reason) -> None:
        self.bonds.link_ended(ref, reason)

    def announce(self, ref: Ref[object], reason: Reason) -> None:
        """Its end, to everybody whom it concerns."""
        if self._bonds is not None:
            self._bonds.announce(ref, reason)
