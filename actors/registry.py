"""Names and groups: who is called what, kept true by deaths.

The table is owned by the :class:`Registry` actor, which answers from elsewhere and tells subscribers. Within one
process reading it is a plain function (``system.whereis``), as in Erlang's ETS. A name belongs to an *address*: when
the actor there is restarted the name stands, when the address is given up the name is free at once. A name whose
holder is not alive never stands in the way of a new one.

A *group* is a key that many may have, each with a value of its own: what Elixir's ``Registry`` calls duplicate keys.
Unlike a name it belongs to an *incarnation*, which leaves all its groups by ending.

=====================================  ============================================================================
``register`` ``unregister`` ``whereis``  a name: one holder, kept through restarts
``join`` ``update`` ``leave``            a group: many members, each with a value, until they end
``entries`` ``members`` ``groups_of``    who is in a group; in which groups one is
=====================================  ============================================================================

From inside an actor, in whichever process: ``await self.system.registry.call(Registry.join, "solvers", self.ref)``.
``system.entries`` and ``system.dispatch`` read a group and send to all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from palmette.actors.actor import Actor
from palmette.actors.endpoints import endpoint
from palmette.actors.errors import NameTaken, Refused
from palmette.actors.exits import Reason
from palmette.actors.messages import Down
from palmette.actors.ref import Ref

if TYPE_CHECKING:
    from palmette.actors.slot import Slot, Target


class Registered(msgspec.Struct, frozen=True):
    """Told to subscribers: somebody lives under ``name`` now (again after a restart)."""

    name: str
    path: str


class Unregistered(msgspec.Struct, frozen=True):
    """Told to subscribers: nobody lives under ``name`` at present."""

    name: str
    path: str
    reason: Reason


class Member(msgspec.Struct, frozen=True):
    """One entry of a group."""

    path: str
    value: object
    """What it joined with, or was updated to. From another process, a Struct arrives as plain data."""


class RegistryTable:
    """The table itself. Every operation is one step of the loop."""

    def __init__(self) -> None:
        self.names: dict[str, Slot] = {}
        self.groups: dict[str, dict[Slot, object]] = {}
        """The members of each group, in the order of joining, with their values."""
        self._names_of: dict[str, dict[str, None]] = {}
        self._groups_of: dict[str, dict[str, None]] = {}
        self.subscribers: list[tuple[str | None, Ref[object]]] = []
        self.far: dict[Ref[object], None] = {}
        """Owners that live below another process's own actor."""

    # --- names -----------------------------------------------------------------------------------------------------

    def register(self, name: str, slot: Slot) -> None:
        """Give ``name`` to an address. Raises NameTaken while another *living* actor holds it."""
        holder = self.names.get(name)
        if holder is slot:
            return
        if holder is not None:
            if holder.target is not None:
                raise NameTaken(f"the name {name!r} belongs to {_holder(holder, holder.target)}")
            self.unregister(name)
        self.names[name] = slot
        self._names_of.setdefault(slot.path, {})[name] = None
        if slot.target is not None and slot.target.state != "starting":
            self._tell(Registered(name, slot.path))

    def unregister(self, name: str) -> None:
        slot = self.names.pop(name, None)
        if slot is not None:
            _remove(self._names_of, slot.path, name)

    # --- groups ----------------------------------------------------------------------------------------------------

    def join(self, group: str, slot: Slot, value: object) -> None:
        self.groups.setdefault(group, {})[slot] = value
        self._groups_of.setdefault(slot.path, {})[group] = None

    def is_member(self, group: str, slot: Slot) -> bool:
        return slot in self.groups.get(group, ())

    def members(self, group: str) -> list[tuple[Slot, object]]:
        """The living members of a group with their values. A zombie is none: it takes no messages."""
        entries = self.groups.get(group, {}).items()
        return [(slot, value) for slot, value in entries if slot.target is not None and slot.target.state != "zombie"]

    def groups_of(self, slot: Slot) -> list[str]:
        return sorted(self._groups_of.get(slot.path, ()))

    def leave(self, group: str, slot: Slot) -> None:
        members = self.groups.get(group, {})
        members.pop(slot, None)
        if not members:
            self.groups.pop(group, None)
        _remove(self._groups_of, slot.path, group)

    # --- what becomes of the owners --------------------------------------------------------------------------------

    def owner_started(self, slot: Slot) -> None:
        for name in self._names_of.get(slot.path, ()):
            self._tell(Registered(name, slot.path))

    def owner_died(self, slot: Slot, reason: Reason) -> None:
        for name in self._names_of.get(slot.path, ()):
            self._tell(Unregistered(name, slot.path, reason))
        for group in self._groups_of.pop(slot.path, ()):
            self.leave(group, slot)

    def owner_released(self, slot: Slot) -> None:
        for name in self._names_of.pop(slot.path, ()):
            self.names.pop(name, None)

    def _tell(self, news: Registered | Unregistered) -> None:
        for name, ref in self.subscribers:
            # One that is just ending is about to be taken off the list.
            if (name is None or name == news.name) and ref.is_alive():
                ref.send(news)


def _holder(slot: Slot, target: Target) -> str:
    if target.state == "zombie":
        return f"{slot.path}, a zombie: it was killed, and its code runs on; the name is free when that ends"
    return f"{slot.path}; choose another, or stop that actor"


def _remove(sets: dict[str, dict[str, None]], key: str, value: str) -> None:
    members = sets.get(key)
    if members is not None:
        members.pop(value, None)
        if not members:
            del sets[key]


class Registry(Actor):
    """The registry as an actor, at ``/system/registry``: the authority of its system."""

    def __init__(self, table: RegistryTable) -> None:
        self.table = table
        # Not empty where this is a registry that was killed and came back: the table survives it.
        self._monitors: dict[int, Ref[object]] = {}
        for watched in {ref: None for _, ref in table.subscribers} | table.far:
            self._monitors[self.monitor(watched)] = watched

    @endpoint
    async def whereis(self, name: str) -> str | None:
        """The address that holds ``name``, or nothing."""
        slot = self.table.names.get(name)
        return None if slot is None else slot.path

    @endpoint
    async def names(self) -> dict[str, str]:
        """All names with their addresses."""
        return {name: slot.path for name, slot in sorted(self.table.names.items())}

    @endpoint
    async def register(self, name: str, actor: Ref[object]) -> None:
        """Give ``actor``'s address one more name, which it keeps through restarts.

        (One that lives below another process's own actor keeps it until it ends: its restarts are not seen here.)

        Raises:
            Refused: somebody living has that name, or nobody lives at that address.
        """
        slot = _slot_of(actor)
        try:
            self.table.register(name, slot)
        except NameTaken as error:
            raise Refused(str(error)) from None
        self._follow(actor)

    @endpoint
    async def unregister(self, name: str) -> None:
        """Free a name; one that nobody has is fine."""
        self.table.unregister(name)

    @endpoint
    async def join(self, group: str, actor: Ref[object], value: object = None) -> None:
        """Make ``actor``'s present incarnation a member of a group, until it leaves or ends.

        To join again is to keep the place and change the value. Raises Refused where nobody lives.
        """
        self.table.join(group, _slot_of(actor), value)
        self._follow(actor)

    @endpoint
    async def update(self, group: str, actor: Ref[object], value: object) -> None:
        """Change the value of a member. Raises Refused if it is none (any more)."""
        slot = _slot_of(actor)
        if not self.table.is_member(group, slot):
            raise Refused(f"{actor.path} is not in the group {group!r}; join it first")
        self.table.join(group, slot, value)

    @endpoint
    async def leave(self, group: str, actor: Ref[object]) -> None:
        """End a membership; one that is not there is fine."""
        self.table.leave(group, actor._slot)  # pyright: ignore[reportPrivateUsage]

    @endpoint
    async def members(self, group: str) -> list[str]:
        """The addresses in a group, in the order of joining."""
        return [slot.path for slot, _ in self.table.members(group)]

    @endpoint
    async def entries(self, group: str) -> list[Member]:
        """The members of a group with their values, in the order of joining."""
        return [Member(slot.path, value) for slot, value in self.table.members(group)]

    @endpoint
    async def groups_of(self, actor: Ref[object]) -> list[str]:
        """The groups that ``actor`` is in."""
        return self.table.groups_of(actor._slot)  # pyright: ignore[reportPrivateUsage]

    @endpoint
    async def subscribe(self, subscriber: Ref[object], name: str | None = None) -> None:
        """Send ``Registered`` and ``Unregistered`` to ``subscriber``, for one name or for all, until it ends."""
        if (name, subscriber) in self.table.subscribers:
            return
        self.table.subscribers.append((name, subscriber))
        self._monitors[self.monitor(subscriber)] = subscriber

    def _follow(self, owner: Ref[object]) -> None:
        """Have the end of an owner told whose address is not this process's; of the others the table hears at once."""
        slot = owner._slot  # pyright: ignore[reportPrivateUsage]
        if self.system.slots.get(slot.path) is not slot and owner not in self.table.far:
            self.table.far[owner] = None
            self._monitors[self.monitor(owner)] = owner

    async def receive(self, message: object) -> None:
        if isinstance(message, Down):
            gone = self._monitors.pop(message.monitor, None)
            self.table.subscribers = [entry for entry in self.table.subscribers if entry[1] != gone]
            if gone is not None and gone in self.table.far:
                del self.table.far[gone]
                slot = gone._slot  # pyright: ignore[reportPrivateUsage]
                self.table.owner_died(slot, message.reason)
                self.table.owner_released(slot)
        else:
            # The authority of the whole system does not fall over a stray message.
            self.system.dead_letter(self.path, message)


def _slot_of(actor: Ref[object]) -> Slot:
    slot = actor._slot  # pyright: ignore[reportPrivateUsage]
    if slot.target is None:
        raise Refused(f"nobody lives at {actor.path}; a name or a group needs a living actor")
    return slot
