"""Names between processes: what a process's table is told by its neighbours, and tells them.

The program at the root of the tree is the authority. Each node has a copy of all names, which comes with the order to
start its actor and is kept true by what follows on the same link. It says of every holder of its own whether somebody
lives there; a node that is lost takes the names of all that lived in it with it. So a name is free at the authority in
the turn in which the end is known there, and everywhere else as soon as that has been heard.

A process that is cut off from the authority goes on with what it knew, which can be at most the heartbeat's loss time
old: after that it ends itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from palmette.actors.errors import NameTaken
from palmette.actors.exits import NoProcess, Normal, Reason
from palmette.actors.messages import Request
from palmette.actors.name_frames import Claim, Claimed, Holder, Lost, Named, NameFrame, Presence, Unnamed
from palmette.actors.proxy import Direct, Inner
from palmette.actors.ref import Ref

if TYPE_CHECKING:
    from palmette.actors.link import Link
    from palmette.actors.slot import Slot
    from palmette.actors.system import System


class Naming:
    """One process's part. Made where there are process nodes, at either end of a link."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.table = system.registry_table
        self.table.neighbours = self
        self.upstream: Link | None = None
        """The link to the process that started this node."""
        self._followers: dict[Link, str] = {}
        """The nodes of this process, and the path of each one's own actor."""
        self._noted: dict[str, None] = {}
        """Addresses of this node whose present incarnation the authority has been told of: a member or subscriber."""
        self._claims: dict[int, Callable[[Claimed], None]] = {}
        self._ids = 0

    # --- a node's copy ---------------------------------------------------------------------------------------------

    def join(self, upstream: Link) -> None:
        """This process is a node."""
        self.upstream = upstream

    def load(self, names: Sequence[tuple[str, str, bool]]) -> None:
        """Begin with the names that came with the order to start."""
        for name, path, up in names:
            self._named(Named(name, path, up))

    async def claim(self, name: str, slot: Slot, timeout: float) -> None:
        """Ask the authority for a name for one of this node's addresses, whose start has begun.

        Raises:
            NameTaken: another living actor has it; or the authority did not answer within ``timeout`` seconds.
        """
        answered: asyncio.Future[str] = self.system.loop.create_future()

        def answer(frame: Claimed) -> None:
            if not answered.done():
                answered.set_result(frame.refusal)

        number = self._ask(name, slot.path, answer)
        try:
            await asyncio.wait([answered], timeout=timeout)
        finally:
            self._claims.pop(number, None)
        if not answered.done():
            raise NameTaken(f"the system did not say within {timeout:g} s whether {slot.path} may be called {name!r}")
        if answered.result():
            raise NameTaken(answered.result())

    def _ask(self, name: str, path: str, answer: Callable[[Claimed], None]) -> int:
        assert self.upstream is not None
        self._ids += 1
        self._claims[self._ids] = answer
        self.upstream.write(Claim(self._ids, name, path))
        return self._ids

    def settled(self, slot: Slot) -> None:
        """The start that a name was claimed for is over."""
        if slot.target is None:
            self._report(slot.path, "down", slot.last_exit or NoProcess(slot.path))

    def note(self, request: Request) -> None:
        """The authority is asked something about actors of this node: it will want to know when they end."""
        for value in (*request.args, *request.kwargs.values()):
            if isinstance(value, Ref):
                slot: Slot = value._slot  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType, reportUnknownVariableType]
                if self._is_ours(slot) and slot.target is not None:
                    self._noted[slot.path] = None

    # --- what becomes of this process's own ------------------------------------------------------------------------

    def named(self, name: str, slot: Slot) -> None:
        """For the table."""
        if self.upstream is None:
            self._push(Named(name, slot.path, self.table.is_up(slot)))

    def unnamed(self, name: str) -> None:
        """For the table."""
        if self.upstream is None:
            self._push(Unnamed(name))

    def owner_is(self, slot: Slot, presence: Presence, reason: Reason) -> None:
        """For the table."""
        if self.upstream is not None and slot.path != self.system.own_path:
            if self._is_ours(slot) and (self.table.has_names(slot.path) or slot.path in self._noted):
                self._report(slot.path, presence, reason)
        elif presence != "free":  # also of a node's own actor, of which the authority does not tell the node itself
            for name in self.table.names_of(slot.path):
                self._push(Named(name, slot.path, presence == "up"), but=slot.path)

    def _is_ours(self, slot: Slot) -> bool:
        # The end of a node's own actor is that of the node, of which the other side hears by itself.
        return slot.path != self.system.own_path and self.system.slots.get(slot.path) is slot

    def _report(self, path: str, presence: Presence, reason: Reason) -> None:
        assert self.upstream is not None
        if presence != "up":
            self._noted.pop(path, None)
        self.upstream.write(Holder(path, presence, reason))

    # --- the nodes of this process ---------------------------------------------------------------------------------

    def follow(self, link: Link, path: str) -> list[tuple[str, str, bool]]:
        """Tell the node of the actor at ``path`` of changes from now on; the names so far."""
        self._followers[link] = path
        self.system.people(path)
        return [(name, slot.path, self.table.is_up(slot)) for name, slot in self.table.names.items()]

    def node_lost(self, link: Link, reason: Reason) -> None:
        """A node's process is gone, and all who lived there."""
        above = self._followers.pop(link, None)
        if above is not None:
            self._lost(Lost(above, reason))

    def _lost(self, frame: Lost) -> None:
        if self.upstream is not None:
            self.upstream.write(frame)
            return
        for path in [path for path in self.table.elsewhere if path.startswith(frame.path + "/")]:
            self.table.owner_elsewhere(self._slot(path), "free", frame.reason)

    def _push(self, frame: NameFrame, *, but: str = "") -> None:
        """Tell all nodes, save the one of the actor at ``but``."""
        for link, path in self._followers.items():
            if path != but:
                link.write(frame)

    # --- what comes in -----------------------------------------------------------------------------------------------

    def take(self, link: Link, frame: object) -> bool:
        """Carry out a frame about names; false if it is of another kind, or not for ``link`` to say."""
        match frame:
            case Named() | Unnamed() | Claimed() if link is self.upstream:
                self._hear(frame)
            case Claim() | Holder() | Lost() if self._speaks_for(link, frame.path):
                self._decide(link, frame)
            case _:
                return False
        return True

    def _speaks_for(self, link: Link, path: str) -> bool:
        above = self._followers.get(link)
        return above is not None and path.startswith(above + "/")

    def _hear(self, frame: Named | Unnamed | Claimed) -> None:
        """What the authority says."""
        match frame:
            case Named():
                self._named(frame)
                self._push(frame)
            case Unnamed(name):
                self.table.unregister(name)
                self._push(frame)
            case Claimed(id):
                answer = self._claims.pop(id, None)
                if answer is not None:
                    answer(frame)

    def _named(self, frame: Named) -> None:
        slot, path = self._slot(frame.path), frame.path
        known = self.table.names.get(frame.name) is slot
        if self.system.slots.get(path) is slot:
            self.table.give(frame.name, slot)
            if not known and self._is_ours(slot) and not self.table.is_starting(slot):
                self._report(path, "down" if slot.target is None else "up", slot.last_exit or Normal())
        elif self.system.is_mine(path) and not self._is_below_a_node(slot):
            self._report(path, "free", NoProcess(path))
        else:
            self.table.give(frame.name, slot)
            self.table.elsewhere[path] = "up" if frame.up else "down"
        if frame.up:
            self.system.somebody_arrived()

    def _is_below_a_node(self, slot: Slot) -> bool:
        return isinstance(slot.target, Inner) and slot.target.way() is not None

    def _decide(self, link: Link, frame: Claim | Holder | Lost) -> None:
        """What a node of this process asks for or reports: the authority acts on it, others pass it on."""
        if isinstance(frame, Lost):
            self._lost(frame)
        elif isinstance(frame, Claim):
            self._answer(link, frame)
        elif self.upstream is not None:
            self.upstream.write(frame)
        else:
            self.table.owner_elsewhere(self._slot(frame.path), frame.presence, frame.reason)
            if frame.presence == "up":
                self.system.somebody_arrived()

    def _answer(self, link: Link, claim: Claim) -> None:
        if self.upstream is not None:
            self._ask(claim.name, claim.path, lambda answer: link.write(Claimed(claim.id, answer.refusal)))
            return
        slot = self._slot(claim.path)
        refusal = ""
        try:
            self.table.register_elsewhere(claim.name, slot, starts=True)
        except NameTaken as error:
            refusal = str(error)
        link.write(Claimed(claim.id, refusal))

    def _slot(self, path: str) -> Slot:
        return self.system.ref_at(path, object)._slot  # pyright: ignore[reportPrivateUsage]


class FarRegistry(Direct):
    """The authority, seen from a node."""

    def request(self, request: Request) -> None:
        self.system.naming.note(request)
        super().request(request)
