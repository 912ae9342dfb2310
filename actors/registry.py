"""Names and groups: who is called what, kept true by deaths.

The table is owned by the :class:`Registry` actor, which answers from elsewhere and tells subscribers. Within one
process reading it is a plain function (``system.whereis``), as in Erlang's ETS. A name belongs to an *address*: when
the actor there is restarted the name stands, when the address is given up the name is free at once. A name whose
holder is not alive never stands in the way of a new one.
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
    from palmette.actors.slot import Slot


class Registered(msgspec.Struct, frozen=True):
    """Told to subscribers: somebody lives under ``name`` now (again after a restart)."""

    name: str
    path: str


class Unregistered(msgspec.Struct, frozen=True):
    """Told to subscribers: nobody lives under ``name`` at present."""

    name: str
    path: str
    reason: Reason


class RegistryTable:
    """The table itself. Every operation is one step of the loop."""

    def __init__(self) -> None:
        self.names: dict[str, Slot] = {}
        self.groups: dict[str, dict[str, Slot]] = {}
        self._names_of: dict[str, dict[str, None]] = {}
        self._groups_of: dict[str, dict[str, None]] = {}
        self.subscribers: list[tuple[str | None, Ref[object]]] = []

    # --- names -----------------------------------------------------------------------------------------------------

    def register(self, name: str, slot: Slot) -> None:
        """Give ``name`` to an address. Raises NameTaken while another *living* actor holds it."""
        holder = self.names.get(name)
        if holder is slot:
            return
        if holder is not None:
            if holder.target is not None:
                raise NameTaken(f"the name {name!r} belongs to {holder.path}; choose another, or stop that actor")
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

    def join(self, group: str, slot: Slot) -> None:
        self.groups.setdefault(group, {})[slot.path] = slot
        self._groups_of.setdefault(slot.path, {})[group] = None

    def leave(self, group: str, slot: Slot) -> None:
        members = self.groups.get(group, {})
        members.pop(slot.path, None)
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
        self._monitors = {self.monitor(subscriber): subscriber for _, subscriber in table.subscribers}

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

        Raises:
            Refused: somebody living has that name, or nobody lives at that address.
        """
        try:
            self.table.register(name, _slot_of(actor))
        except NameTaken as error:
            raise Refused(str(error)) from None

    @endpoint
    async def unregister(self, name: str) -> None:
        """Free a name; one that nobody has is fine."""
        self.table.unregister(name)

    @endpoint
    async def join(self, group: str, actor: Ref[object]) -> None:
        """Make ``actor``'s present incarnation a member of a group, until it leaves or ends. Idempotent."""
        self.table.join(group, _slot_of(actor))

    @endpoint
    async def leave(self, group: str, actor: Ref[object]) -> None:
        """End a membership; one that is not there is fine."""
        self.table.leave(group, actor._slot)  # pyright: ignore[reportPrivateUsage]

    @endpoint
    async def members(self, group: str) -> list[str]:
        """The addresses in a group, in the order of joining."""
        return list(self.table.groups.get(group, {}))

    @endpoint
    async def subscribe(self, subscriber: Ref[object], name: str | None = None) -> None:
        """Send ``Registered`` and ``Unregistered`` to ``subscriber``, for one name or for all, until it ends."""
        if (name, subscriber) in self.table.subscribers:
            return
        self.table.subscribers.append((name, subscriber))
        self._monitors[self.monitor(subscriber)] = subscriber

    async def receive(self, message: object) -> None:
        if isinstance(message, Down):
            gone = self._monitors.pop(message.monitor, None)
            self.table.subscribers = [entry for entry in self.table.subscribers if entry[1] != gone]
        else:
            # The authority of the whole system does not fall over a stray message.
            self.system.dead_letter(self.path, message)


def _slot_of(actor: Ref[object]) -> Slot:
    slot = actor._slot  # pyright: ignore[reportPrivateUsage]
    if slot.target is None:
        raise Refused(f"nobody lives at {actor.path}; a name or a group needs a living actor")
    return slot
