"""The table of names and groups, as one process knows it. Every operation is one step of the loop.

In the program itself it is the truth; the registry actor and the system's own code work on it, and neither's death
takes anything from it. In a process node the names are a copy that the program keeps true (:mod:`.naming`), and groups
and subscribers are not there at all: they are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from palmette.actors.errors import NameTaken
from palmette.actors.exits import NoProcess, Normal, Reason

if TYPE_CHECKING:
    from palmette.actors.name_frames import Presence
    from palmette.actors.ref import Ref
    from palmette.actors.slot import Slot, Target


class Registered(msgspec.Struct, frozen=True, tag="registered"):
    """Told to subscribers: somebody lives under ``name`` now (again after a restart)."""

    name: str
    path: str


class Unregistered(msgspec.Struct, frozen=True, tag="unregistered"):
    """Told to subscribers: nobody lives under ``name`` at present."""

    name: str
    path: str
    reason: Reason


class Neighbours(Protocol):
    """Other processes, which are told of changes."""

    def named(self, name: str, slot: Slot) -> None:
        """``slot`` has ``name`` now."""
        ...

    def unnamed(self, name: str) -> None:
        """Nobody has ``name`` any more."""
        ...

    def owner_is(self, slot: Slot, presence: Presence, reason: Reason) -> None:
        """What has become of an address, whether or not it has a name."""
        ...


class RegistryTable:
    """See the module's text."""

    def __init__(self) -> None:
        self.names: dict[str, Slot] = {}
        self.groups: dict[str, dict[Slot, object]] = {}
        """The members of each group, in the order of joining, with their values."""
        self.subscribers: list[tuple[str | None, Ref[object]]] = []
        self.elsewhere: dict[str, Presence] = {}
        """Addresses of other processes that have names: whether somebody lives there, as these say."""
        self.neighbours: Neighbours | None = None
        self._names_of: dict[str, dict[str, None]] = {}
        self._groups_of: dict[str, dict[str, None]] = {}
        self._starting: dict[Slot, None] = {}
        """Addresses whose next incarnation is being started: their names are taken, though nobody is there yet."""
        self._told: dict[str, None] = {}
        """Names that subscribers believe to be lived under."""
        self._watched: dict[str, int] = {}
        """Members and subscribers of other processes, whose end this table is told of; by monitor."""
        self._watches = 0

    # --- names -----------------------------------------------------------------------------------------------------

    def register(self, name: str, slot: Slot) -> None:
        """Give ``name`` to an address. Raises NameTaken while another *living* actor holds it."""
        holder = self.names.get(name)
        if holder is slot:
            return
        if holder is not None and self.is_taken(holder):
            raise NameTaken(f"the name {name!r} belongs to {_holder(holder, holder.target)}")
        self.give(name, slot)
        if self.neighbours is not None:
            self.neighbours.named(name, slot)
        if self.is_up(slot):
            self._tell_registered(name, slot)

    def register_elsewhere(self, name: str, slot: Slot, *, starts: bool) -> None:
        """Give ``name`` to an address of another process, which is to say what becomes of it. Raises NameTaken.

        ``starts``: somebody is about to live there, and keeps the name from others until that has succeeded or failed.
        """
        before = self.elsewhere.get(slot.path)
        if before is None or (starts and before == "down"):
            self.elsewhere[slot.path] = "starting"
        try:
            self.register(name, slot)
        except NameTaken:
            if before is None:
                del self.elsewhere[slot.path]
            else:
                self.elsewhere[slot.path] = before
            raise

    def give(self, name: str, slot: Slot) -> None:
        """Write down who has a name, whoever had it before."""
        before = self.names.get(name)
        if before is not None:
            self._take_away(name, before, NoProcess(before.path))
        self.names[name] = slot
        self._names_of.setdefault(slot.path, {})[name] = None

    def unregister(self, name: str, reason: Reason | None = None) -> None:
        """Free a name; one that nobody has is fine."""
        slot = self.names.pop(name, None)
        if slot is not None:
            self._take_away(name, slot, reason or Normal())
            if self.neighbours is not None:
                self.neighbours.unnamed(name)

    def _take_away(self, name: str, slot: Slot, reason: Reason) -> None:
        self._tell_unregistered(name, slot, reason)
        _remove(self._names_of, slot.path, name)
        if not self.has_names(slot.path):
            self.elsewhere.pop(slot.path, None)

    def has_names(self, path: str) -> bool:
        return path in self._names_of

    def names_of(self, path: str) -> list[str]:
        return list(self._names_of.get(path, ()))

    def begin(self, slot: Slot) -> None:
        """A start begins: until :meth:`settle` nobody else may take the names of this address."""
        self._starting[slot] = None

    def settle(self, slot: Slot) -> None:
        """The start has ended, one way or the other."""
        self._starting.pop(slot, None)

    def is_starting(self, slot: Slot) -> bool:
        return slot in self._starting or (slot.target is not None and slot.target.state == "starting")

    def is_taken(self, slot: Slot) -> bool:
        """Whether a name of this address stands in the way of others."""
        presence = self.elsewhere.get(slot.path)
        if presence is not None:
            return presence in ("starting", "up")
        return slot.target is not None or slot in self._starting

    def is_up(self, slot: Slot) -> bool:
        """Whether the one who lives there may be talked to."""
        presence = self.elsewhere.get(slot.path)
        if presence is not None:
            return presence == "up"
        return slot.target is not None and slot.target.state in ("running", "suspended")

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

    # --- subscribers -----------------------------------------------------------------------------------------------

    def subscribe(self, subscriber: Ref[object], name: str | None) -> None:
        """Tell ``subscriber`` of one name, or of all, until it ends."""
        if (name, subscriber) not in self.subscribers:
            self.subscribers.append((name, subscriber))

    def _tell_registered(self, name: str, slot: Slot) -> None:
        if name not in self._told:
            self._told[name] = None
            self._tell(Registered(name, slot.path))

    def _tell_unregistered(self, name: str, slot: Slot, reason: Reason) -> None:
        if name in self._told:
            del self._told[name]
            self._tell(Unregistered(name, slot.path, reason))

    def _tell(self, news: Registered | Unregistered) -> None:
        for name, ref in self.subscribers:
            # One that is just ending is about to be taken off the list.
            if (name is None or name == news.name) and ref.is_alive():
                ref.send(news)

    # --- what becomes of the owners --------------------------------------------------------------------------------

    def owner_started(self, slot: Slot) -> None:
        for name in self._names_of.get(slot.path, ()):
            self._tell_registered(name, slot)
        if self.neighbours is not None:
            self.neighbours.owner_is(slot, "up", Normal())

    def owner_died(self, slot: Slot, reason: Reason) -> None:
        for name in self._names_of.get(slot.path, ()):
            self._tell_unregistered(name, slot, reason)
        self._incarnation_ended(slot)
        if self.neighbours is not None:
            self.neighbours.owner_is(slot, "down", reason)

    def owner_released(self, slot: Slot) -> None:
        if self.neighbours is not None:
            self.neighbours.owner_is(slot, "free", Normal())
        for name in self.names_of(slot.path):
            self.unregister(name)

    def owner_elsewhere(self, slot: Slot, presence: Presence, reason: Reason) -> None:
        """Another process says what has become of an address of its own."""
        before = self.elsewhere.get(slot.path)
        if self.has_names(slot.path):
            self.elsewhere[slot.path] = presence
        if presence == "up" and before != "up":
            self.owner_started(slot)
        elif presence in ("down", "free"):
            self.owner_died(slot, reason)
            if presence == "free":
                self.owner_released(slot)

    def _incarnation_ended(self, slot: Slot) -> None:
        """It leaves its groups, and is told nothing more."""
        for group in self._groups_of.pop(slot.path, ()):
            self.leave(group, slot)
        if self.subscribers:
            self.subscribers = [entry for entry in self.subscribers if entry[1].path != slot.path]

    # --- members and subscribers in other processes ------------------------------------------------------------------

    def watch(self, slot: Slot) -> None:
        """Be told when the one who lives there ends. (Of those in this process the table hears at once.)"""
        if slot.path not in self._watched and slot.target is not None:
            self._watches += 1
            self._watched[slot.path] = self._watches
            slot.target.add_monitor(self, self._watches)

    def down(self, ref: Ref[object], reason: Reason, monitor: int) -> None:
        """One that is watched has ended."""
        if self._watched.get(ref.path) == monitor:
            del self._watched[ref.path]
            self._incarnation_ended(ref._slot)  # pyright: ignore[reportPrivateUsage]


def _holder(slot: Slot, target: Target | None) -> str:
    if target is not None and target.state == "zombie":
        return f"{slot.path}, a zombie: it was killed, and its code runs on; the name is free when that ends"
    return f"{slot.path}; choose another, or stop that actor"


def _remove(sets: dict[str, dict[str, None]], key: str, value: str) -> None:
    members = sets.get(key)
    if members is not None:
        members.pop(value, None)
        if not members:
            del sets[key]
