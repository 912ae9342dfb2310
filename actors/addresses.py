"""The addresses of a system: who lives where, who has which name, and waiting for somebody to come.

An address outlives its incarnations (:class:`~palmette.actors.slot.Slot`). Those in use are held by their supervisors;
those that only references know are held by these alone, so that a reference to nobody costs nothing once it is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar, cast
from weakref import WeakValueDictionary

from palmette.actors.cell import Cell
from palmette.actors.deadlines import DEFAULT_CALL_SECONDS, get_deadline
from palmette.actors.errors import ActorDied, DeadlineExceeded
from palmette.actors.exits import NoProcess
from palmette.actors.registry import REGISTRY, Registry
from palmette.actors.registry_table import RegistryTable
from palmette.actors.slot import Slot, Target

if TYPE_CHECKING:
    from palmette.actors.naming import Naming
    from palmette.actors.nodes import Nodes
    from palmette.actors.ref import Ref

T = TypeVar("T")


class Addresses:
    """See the module's text. A part of the system."""

    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        self.registry_table = RegistryTable()
        self.slots: dict[str, Slot] = {"/": Slot("/")}
        """The addresses of this process that are in use."""
        self.uplink: Callable[[str], Target] | None = None
        """In a process node: a stand-in for whatever lives at an address elsewhere."""
        self._arrivals: dict[asyncio.Future[None], None] = {}
        self._vacant: WeakValueDictionary[str, Slot] = WeakValueDictionary()
        """Addresses that only references know: given up, not yet in use, or elsewhere."""
        self.own_path: str | None = None
        """In a process node: where the actor lives that it was started for."""
        self._nodes: Nodes | None = None
        self._naming: Naming | None = None

    if TYPE_CHECKING:  # by System

        def ref(self, slot: Slot) -> Ref[object]: ...

        def make_naming(self) -> Naming: ...

    # --- in use, and given up --------------------------------------------------------------------------------------

    def child_slot(self, parent: Cell, name: str) -> Slot:
        """The address of ``parent``'s child ``name``, made on first use."""
        path = f"{parent.slot.path.rstrip('/')}/{name}"
        slot = self.slots.get(path)
        if slot is None:
            # The one that references hold already, if any do: they come alive with it.
            slot = self._vacant.pop(path, None) or Slot(path)
            slot.target = None  # it may have been in another process so far
            self.slots[path] = slot
        slot.dynamic = parent.slot.dynamic
        slot.given_up = False
        if parent.children is None:
            parent.children = {}
        parent.children[name] = slot
        return slot

    def own_slot(self, path: str) -> Slot:
        """In a process node: the address of the actor that the node was started for."""
        self.own_path = path
        slot = self.slots[path] = Slot(path)
        return slot

    def release(self, slot: Slot) -> None:
        """Give up an address for good; at once, or when a zombie's code there has ended."""
        if slot.target is not None:
            slot.given_up = True
            return
        parent = self.slots.get(slot.path.rpartition("/")[0] or "/")
        if parent is not None and isinstance(parent.target, Cell) and parent.target.children is not None:
            parent.target.children.pop(slot.name, None)
        self.registry_table.owner_released(slot)
        self.slots.pop(slot.path, None)
        self._vacant[slot.path] = slot

    # --- finding actors ---------------------------------------------------------------------------------------------

    def ref_at(self, path: str, actor: type[T]) -> Ref[T]:
        """A reference to an address, whether or not somebody lives there."""
        slot = self.slots.get(path) or self._vacant.get(path)
        if slot is None:
            slot = self._vacant[path] = Slot(path)
        if slot.target is None and path not in self.slots:
            slot.target = self._elsewhere(path)
        return cast("Ref[T]", self.ref(slot))

    def target_at(self, path: str) -> Target | None:
        """What lives at an address, or a stand-in for it, if it is this process's to know."""
        slot = self.slots.get(path)
        return self._elsewhere(path) if slot is None else slot.target

    def _elsewhere(self, path: str) -> Target | None:
        below = None if self._nodes is None else self._nodes.below(path)
        if below is not None or self.uplink is None:
            return below
        return None if self.is_mine(path) else self.uplink(path)

    def is_mine(self, path: str) -> bool:
        """In a process node: whether an address is at or below its own actor."""
        return self.own_path is not None and (path == self.own_path or path.startswith(self.own_path + "/"))

    def people(self, above: str) -> None:
        """A process now lives at ``above``: references to what may live below it come alive."""
        for path, slot in list(self._vacant.items()):
            if slot.target is None and path.startswith(above + "/"):
                slot.target = self._elsewhere(path)

    def whereis(self, name: str, actor: type[T]) -> Ref[T]:
        """The actor registered as ``name``, or living at the address ``name`` if that begins with ``/``.

        Raises:
            ActorDied: nobody has that name; the reason is ``NoProcess``.
        """
        slot = self.slots.get(name) if name.startswith("/") else self.registry_table.names.get(name)
        if slot is None and name.startswith("/") and self.target_at(name) is not None:
            return self.ref_at(name, actor)
        if slot is None:
            known = ", ".join(sorted(self.registry_table.names))
            raise ActorDied(f"{name!r} (registered are: {known})", NoProcess(name))
        return cast("Ref[T]", self.ref(slot))

    async def lookup(self, name: str, actor: type[T]) -> Ref[T]:
        """Like :meth:`whereis`; in a process node, the system's authority is asked about names not heard of so far."""
        if name in self.registry_table.names or name.startswith("/") or self.uplink is None:
            return self.whereis(name, actor)
        path = await self.registry.call(Registry.whereis, name)
        if path is None:
            raise ActorDied(repr(name), NoProcess(name))
        return self.ref_at(path, actor)

    @property
    def registry(self) -> Ref[Registry]:
        """The authority on names and groups, from any process of the system."""
        return self.ref_at(REGISTRY, Registry)

    @property
    def naming(self) -> Naming:
        """What other processes are told of names, and tell of theirs."""
        if self._naming is None:
            self._naming = self.make_naming()
        return self._naming

    async def claim(self, name: str, slot: Slot, timeout: float) -> None:
        """Begin a start in ``slot`` with ``name`` for it; to be followed by :meth:`settle`, however it ends.

        Raises:
            NameTaken: somebody living has it, or is about to.
        """
        self.registry_table.begin(slot)
        if self.uplink is None:
            self.registry_table.register(name, slot)
        else:
            await self.naming.claim(name, slot, timeout)

    def settle(self, slot: Slot) -> None:
        """A start with a claim is over."""
        self.registry_table.settle(slot)
        if self.uplink is not None:
            self.naming.settled(slot)

    async def entries(self, group: str, actor: type[T]) -> list[tuple[Ref[T], object]]:
        """The members of a group with the values that they joined with, in the order of joining."""
        if self.uplink is None:
            return [(cast("Ref[T]", self.ref(slot)), value) for slot, value in self.registry_table.members(group)]
        members = await self.registry.call(Registry.entries, group)
        return [(self.ref_at(member.path, actor), member.value) for member in members]

    async def dispatch(self, group: str, message: object) -> int:
        """Send ``message`` to the ``receive`` of each member of a group; how many there were."""
        members = await self.entries(group, object)
        for member, _ in members:
            member.send(message)
        return len(members)

    async def wait_for(self, name: str, actor: type[T], *, timeout: float | None = None) -> Ref[T]:
        """Wait until somebody lives under ``name``; at most ``timeout`` seconds (default: the deadline in force).

        Raises:
            DeadlineExceeded: nobody came.
        """
        at = get_deadline()
        if timeout is not None or at is None:
            at = self.loop.time() + (DEFAULT_CALL_SECONDS if timeout is None else timeout)
        while True:
            slot = self.slots.get(name) if name.startswith("/") else self.registry_table.names.get(name)
            if slot is not None and self.registry_table.is_up(slot):
                return cast("Ref[T]", self.ref(slot))
            if self.loop.time() >= at:
                where = "at" if name.startswith("/") else "registered as"
                raise DeadlineExceeded(f"nobody lived {where} {name!r} in time")
            arrival: asyncio.Future[None] = self.loop.create_future()
            self._arrivals[arrival] = None
            try:
                await asyncio.wait([arrival], timeout=at - self.loop.time())
            finally:
                self._arrivals.pop(arrival, None)

    def arrived(self, slot: Slot) -> None:
        """For starters: an incarnation is up; tell those who wait for its name."""
        self.registry_table.owner_started(slot)
        self.somebody_arrived()

    def somebody_arrived(self) -> None:
        """Here or elsewhere: those who wait for a name look again."""
        arrivals, self._arrivals = self._arrivals, {}
        for arrival in arrivals:
            if not arrival.done():
                arrival.set_result(None)
