"""Names and groups: who is called what, kept true by deaths.

There is one table, in the program at the root of the tree, and the :class:`Registry` actor is the way to it for
everybody. Reading it is a plain function (``system.whereis``), as in Erlang's ETS, in process nodes as well: each has a
copy, kept true by the program. A name belongs to an *address*: when the actor there is restarted, on whatever node, the
name stands; when the address is given up, or the node is lost that it was on, the name is free at once. A name whose
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

from typing import TYPE_CHECKING, Final

import msgspec

from palmette.actors.actor import Actor
from palmette.actors.endpoints import endpoint
from palmette.actors.errors import NameTaken, Refused
from palmette.actors.proxy import Inner
from palmette.actors.ref import Ref
from palmette.actors.registry_table import RegistryTable

if TYPE_CHECKING:
    from palmette.actors.slot import Slot


REGISTRY: Final = "/system/registry"
"""Where the authority lives."""


class Member(msgspec.Struct, frozen=True):
    """One entry of a group."""

    path: str
    value: object
    """What it joined with, or was updated to. From another process, a Struct arrives as plain data."""


class Registry(Actor):
    """The registry as an actor, at ``/system/registry``: the authority of its system.

    All that it knows is the system's (:class:`RegistryTable`): one that is killed and comes back has lost nothing, and
    its subscribers stay subscribed. Calls from other processes do not wait in its mailbox: they are carried out in the
    order in which they and the news of deaths arrive.
    """

    def __init__(self, table: RegistryTable) -> None:
        self.table = table

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

        Whether somebody lives at an address below another process's own actor is not known here: if nobody does, the
        name is free again as soon as that process has said so.

        Raises:
            Refused: somebody living has that name, or nobody lives at that address.
        """
        slot = _slot_of(actor)
        try:
            if isinstance(slot.target, Inner):
                self.table.register_elsewhere(name, slot, starts=False)
            else:
                self.table.register(name, slot)
        except NameTaken as error:
            raise Refused(str(error)) from None

    @endpoint
    async def unregister(self, name: str) -> None:
        """Free a name; one that nobody has is fine."""
        self.table.unregister(name)

    @endpoint
    async def join(self, group: str, actor: Ref[object], value: object = None) -> None:
        """Make ``actor``'s present incarnation a member of a group, until it leaves or ends.

        To join again is to keep the place and change the value. Raises Refused where nobody lives.
        """
        slot = _slot_of(actor)
        self.table.join(group, slot, value)
        self._follow(slot)

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
        """Send ``Registered`` and ``Unregistered`` to ``subscriber``, for one name or for all, until it ends.

        To subscribe again changes nothing; nor does the death of the registry itself. Raises Refused where nobody
        lives.
        """
        slot = _slot_of(subscriber)
        self.table.subscribe(subscriber, name)
        self._follow(slot)

    def _follow(self, slot: Slot) -> None:
        """Have the end of one in another process told to the table; of the others it hears at once."""
        if isinstance(slot.target, Inner):
            self.table.watch(slot)

    async def receive(self, message: object) -> None:
        # The authority of the whole system does not fall over a stray message.
        self.system.dead_letter(self.path, message)


def _slot_of(actor: Ref[object]) -> Slot:
    slot = actor._slot  # pyright: ignore[reportPrivateUsage]
    target = slot.target
    if target is None or (isinstance(target, Inner) and target.way() is None):
        raise Refused(f"nobody lives at {actor.path}; a name or a group needs a living actor")
    return slot
