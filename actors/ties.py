"""Actors' links that cross a connection: who is tied to whom over it, and by which of their links.

A link has a number, given by the side that made it, and every word about it names the number. An actor may hear of an
end, tie itself to the successor at the same address, and then be sent more news of the old one: that is about another
link, and changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from palmette.actors import wire
from palmette.actors.exits import NoProcess, Reason

if TYPE_CHECKING:
    from palmette.actors.link import Link
    from palmette.actors.proxy import Proxy
    from palmette.actors.ref import Ref
    from palmette.actors.slot import Linked, Target


class FarEnd:
    """The other side's end of a link to an actor here: made by it, under its ``number``."""

    def __init__(self, ties: Ties, path: str, number: int) -> None:
        self.ties = ties
        self.path = path
        self.number = number

    def add_link(self, other: Linked) -> None:
        """The other side did, by its Tie."""

    def remove_link(self, other: Linked) -> None:
        """The actor here unlinked itself, or has ended."""
        _, end = self.ties.theirs.get((other.path, self.path), (None, None))
        if end is self:
            del self.ties.theirs[(other.path, self.path)]

    def exit_signal(self, ref: Ref[object], reason: Reason) -> None:
        self.ties.link.write(wire.ExitSignal(self.path, ref.path, reason, self.number, True))

    def link_ended(self, ref: Ref[object], reason: Reason) -> None:
        """The link that it was passed on by has."""
        self.ties.theirs.pop((ref.path, self.path), None)
        self.exit_signal(ref, reason)


class Ties:
    """Those of one connection."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.theirs: dict[tuple[str, str], tuple[Target, FarEnd]] = {}
        """Links that the other side made, by both addresses, that of the actor here first."""
        self._made: dict[int, tuple[Proxy, Linked]] = {}
        """Links that this side made."""
        self._numbers = 0

    # --- made here -------------------------------------------------------------------------------------------------

    def make(self, proxy: Proxy, other: Linked) -> int:
        """Tie ``other`` to the actor behind ``proxy``; the link's number."""
        self._numbers += 1
        self._made[self._numbers] = (proxy, other)
        self.link.write(wire.Tie(proxy.path, other.path, self._numbers))
        return self._numbers

    def undo(self, number: int, path: str, source: str) -> None:
        """The counterpart."""
        if self._made.pop(number, None) is not None:
            self.link.write(wire.Untie(path, source, number))

    def _ended(self, number: int, reason: Reason) -> None:
        proxy, other = self._made.pop(number, (None, None))
        if proxy is not None and other is not None:
            proxy.forget(other)
            other.link_ended(self.link.system.ref_at(proxy.path, object), reason)

    # --- what the other side says ------------------------------------------------------------------------------------

    def take(self, frame: wire.Tie | wire.Untie | wire.ExitSignal) -> None:
        """A frame about a link."""
        match frame:
            case wire.Tie():
                self._tied(frame)
            case wire.Untie(path, source, number):
                target, end = self.theirs.get((path, source), (None, None))
                if target is not None and end is not None and end.number == number:
                    del self.theirs[(path, source)]
                    target.remove_link(end)
            case wire.ExitSignal(_, _, reason, number, True):
                self._ended(number, reason)
            case wire.ExitSignal(path, source, reason, number, _):
                target, end = self.theirs.get((path, source), (None, None))
                if target is not None and end is not None and end.number == number:
                    self._their_end(target, end, reason)

    def _tied(self, frame: wire.Tie) -> None:
        before = self.theirs.pop((frame.path, frame.source), None)
        if before is not None:  # it has heard of the end of that one already
            before[0].remove_link(before[1])
        target = self.link.system.target_at(frame.path)
        end = FarEnd(self, frame.source, frame.number)
        if target is None:
            gone = NoProcess(frame.path)
            end.exit_signal(self.link.system.ref_at(frame.path, object), gone)
        else:
            self.theirs[(frame.path, frame.source)] = (target, end)
            target.add_link(end)

    def _their_end(self, target: Target, end: FarEnd, reason: Reason) -> None:
        self.theirs.pop((target.path, end.path), None)
        target.link_ended(self.link.system.ref_at(end.path, object), reason)

    def release(self, reason: Reason) -> None:
        """The connection is lost, and with it, for each side, all who live on the other."""
        for number in list(self._made):
            self._ended(number, reason)
        for target, end in list(self.theirs.values()):
            self._their_end(target, end, reason)
