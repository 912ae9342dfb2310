"""A system: one tree of actors, its registry, and everything that can be asked about them.

``async with System.start(tree) as system`` starts the tree, gives it to you, and stops it in reverse order at the end
of the block. If the tree's root gives up while the block runs, the block is cancelled and :class:`ActorDied` is raised
with the reason: a program whose root supervisor is gone must not idle on.

A cancellation from outside, while the tree starts, runs or stops, stops it in the same order, and comes out after that.
"""

from __future__ import annotations

import asyncio
import logging
import random
import reprlib
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar, cast
from weakref import WeakValueDictionary

from palmette.actors import starting
from palmette.actors.actor import Actor
from palmette.actors.cell import Cell
from palmette.actors.deadlines import DEFAULT_CALL_SECONDS, get_deadline
from palmette.actors.ending import settle
from palmette.actors.errors import ActorDied, DeadlineExceeded, StartFailed
from palmette.actors.exits import Killed, NoProcess, Reason, Shutdown, describe, is_graceful
from palmette.actors.expiry import Expiry
from palmette.actors.heartbeat import Heartbeat
from palmette.actors.introspection import DeadLetter, ExitRecord, SystemStatistics, TreeNode, tree_of
from palmette.actors.messages import Request
from palmette.actors.parking import Parking
from palmette.actors.ref import Ref
from palmette.actors.registry import Registry, RegistryTable
from palmette.actors.slot import CURRENT, Slot, Target
from palmette.actors.starting import Startable, StartOptions

if TYPE_CHECKING:
    from palmette.actors.nodes import Nodes

A = TypeVar("A", bound=Actor)
T = TypeVar("T")

KEEP = 1000
"""Dead letters and exits that are kept for looking at; all are counted."""

log = logging.getLogger("palmette")

_brief = reprlib.Repr()
"""For dead letters: bounded, and a message whose own repr raises cannot break an actor's end."""
_brief.maxother = _brief.maxstring = _brief.maxlong = 200


class System:
    """See the module's text. Made by :meth:`start`."""

    def __init__(self, *, name: str = "palmette", kill_grace: float = 1.0) -> None:
        self.name = name
        self.loop = asyncio.get_running_loop()
        self.kill_grace = kill_grace
        """Seconds that killed code gets before it is called a zombie."""
        self.expiry = Expiry(self.loop)
        """Of the calls that are under way."""
        self.parking = Parking(self.loop)
        """The engines of idle actors."""
        self.registry_table = RegistryTable()
        self.slots: dict[str, Slot] = {"/": Slot("/")}
        """The addresses of this process that are in use."""
        self.exits: deque[ExitRecord] = deque(maxlen=KEEP)
        self.dead_letters: deque[DeadLetter] = deque(maxlen=KEEP)
        self.failure: Reason | None = None
        """Why the root gave up, if it did."""
        self._counts = {"started": 0, "exits": 0, "crashes": 0, "dead_letters": 0, "zombies": 0}
        self._exit_watchers: list[Ref[object]] = []
        self._arrivals: dict[asyncio.Future[None], None] = {}
        self._vacant: WeakValueDictionary[str, Slot] = WeakValueDictionary()
        """Addresses that only references know: given up, not yet in use, or elsewhere."""
        self._own_path: str | None = None
        self._closing = False
        self._rebirth: asyncio.Task[None] | None = None
        self.clock: Callable[[], float] = time.time
        """Seconds since the epoch, for records."""
        self.random = random.Random()
        """Jitter and the like; seeded in simulation."""
        self.uplink: Callable[[str], Target] | None = None
        """In a process node: a stand-in for whatever lives at an address elsewhere."""
        self.heartbeat = Heartbeat()
        """Of links to process nodes."""
        self._nodes: Nodes | None = None

    # --- life ----------------------------------------------------------------------------------------------------

    @staticmethod
    @asynccontextmanager
    async def start(
        tree: Startable, *, name: str = "palmette", kill_grace: float = 1.0, heartbeat: Heartbeat | None = None
    ) -> AsyncGenerator[System]:
        """Start ``tree`` and stop it at the end of the block. ``heartbeat`` says when a silent process node is lost.

        Raises:
            StartFailed: a child could not start; what had been started was stopped again, in reverse.
            ActorDied: the tree's root gave up during the block.
        """
        # A simulated loop brings the system that belongs to it.
        make: type[System] = getattr(asyncio.get_running_loop(), "system_class", System)
        system = make(name=name, kill_grace=kill_grace)
        system.heartbeat = heartbeat or system.heartbeat
        body = asyncio.current_task()
        assert body is not None
        cancelling = body.cancelling()
        cancelled_by_root = False

        def root_ended(future: asyncio.Future[Reason]) -> None:
            nonlocal cancelled_by_root
            if not system._closing and not is_graceful(future.result()):
                system.failure = future.result()
                cancelled_by_root = body.cancel()

        def failed() -> ActorDied:
            assert system.failure is not None
            return ActorDied("the root of the tree", system.failure)

        try:
            await system._boot_registry()
            root = await tree.start(system, system.slots["/"], None)
            root.ended().add_done_callback(root_ended)
            yield system
        except asyncio.CancelledError:
            # The same test as in asyncio.timeout: a cancellation from outside counts more than ours.
            if cancelled_by_root and body.uncancel() <= cancelling:
                raise failed() from None
            raise
        except BaseException:
            if cancelled_by_root:
                body.uncancel()
            raise
        else:
            if system.failure is not None:
                # The block swallowed our cancellation; it must not look like a success.
                body.uncancel()
                raise failed()
        finally:
            system._closing = True
            stop = system.loop.create_task(system._shutdown(tree))
            cancelled = await settle([stop])
            stop.result()
            if cancelled:
                raise asyncio.CancelledError

    async def wait_ended(self) -> Reason:
        """Wait until the tree's root has ended by itself (``auto_shutdown``), and return its reason.

        The one wait without a deadline: it *is* the program's life. A root that gives up ends the block instead.
        """
        target = self.slots["/"].target
        return self.slots["/"].last_exit or NoProcess("/") if target is None else await asyncio.shield(target.ended())

    async def _boot_registry(self) -> None:
        slot = self.slots.setdefault("/system/registry", Slot("/system/registry"))
        self.registry_table.names["registry"] = slot
        cell = await self.start_actor(slot, None, Registry, (self.registry_table,), {}, StartOptions())
        cell.ended().add_done_callback(self._registry_ended)

    def _registry_ended(self, _: asyncio.Future[Reason]) -> None:
        # It has no supervisor above it: somebody killed it, and everybody goes on needing it.
        if not self._closing:
            self._rebirth = self.loop.create_task(self._boot_registry())

    async def _shutdown(self, tree: Startable) -> None:
        if self._rebirth is not None:
            await settle([self._rebirth])
        # A supervisor bounds its own children's shutdown, and has all the time that these take.
        seconds = None if tree.shutdown == "infinity" else 0.0 if tree.shutdown == "brutal" else tree.shutdown
        await self._end(self.slots["/"], seconds)
        await self._end(self.slots["/system/registry"], self.kill_grace)
        if self._nodes is not None:
            await self._nodes.close()
        self.expiry.close()

    async def _end(self, slot: Slot, seconds: float | None) -> None:
        target = slot.target
        if target is None:
            return
        ended = target.ended()
        target.stop(Shutdown("the system stops"))
        await settle([ended], timeout=seconds)
        if not ended.done():
            target.kill(Killed("the system stops"))
            # Past this it is a zombie, and there is nothing that could still be done about it.
            await settle([ended], timeout=4 * self.kill_grace)

    async def start_actor(
        self,
        slot: Slot,
        parent: Cell | None,
        cls: type[Actor],
        args: tuple[object, ...],
        kwargs: dict[str, object],
        options: StartOptions,
    ) -> Cell:
        """Start one inline incarnation in ``slot``; for supervisors and nodes. Raises StartFailed."""
        if slot.target is not None:
            raise StartFailed(slot.path, Killed(f"its address is still taken by a {slot.target.state} incarnation"))
        slot.incarnation += 1
        cell = self.make_cell(slot, parent, cls, options)
        slot.target = cell
        self._counts["started"] += 1
        await starting.start(cell, cls, args, kwargs, options.start_timeout)
        self.arrived(slot)
        return cell

    def make_cell(self, slot: Slot, parent: Cell | None, cls: type[Actor], options: StartOptions) -> Cell:
        """A new, unstarted incarnation. A simulation makes cells that can be struck by faults."""
        return Cell(self, slot, parent, cls, options)

    def arrived(self, slot: Slot) -> None:
        """For starters: an incarnation is up; tell those who wait for its name."""
        self.registry_table.owner_started(slot)
        arrivals, self._arrivals = self._arrivals, {}
        for arrival in arrivals:
            if not arrival.done():
                arrival.set_result(None)

    @property
    def nodes(self) -> Nodes:
        """The process nodes of this system; the first use starts what they need."""
        if self._nodes is None:
            self._nodes = self.make_nodes()
        return self._nodes

    def make_nodes(self) -> Nodes:
        """What starts process nodes. A simulation has nodes of its own."""
        from palmette.actors.nodes import Nodes

        return Nodes(self)

    # --- finding actors ---------------------------------------------------------------------------------------------

    def child_slot(self, parent: Cell, name: str) -> Slot:
        """The address of ``parent``'s child ``name``, made on first use."""
        path = f"{parent.slot.path.rstrip('/')}/{name}"
        slot = self.slots.get(path)
        if slot is None:
            # The one that references hold already, if any do: they come alive with it.
            slot = self._vacant.pop(path, None)
            if slot is None or slot.target is not None:
                slot = Slot(path)
            self.slots[path] = slot
        slot.dynamic = parent.slot.dynamic
        slot.given_up = False
        if parent.children is None:
            parent.children = {}
        parent.children[name] = slot
        return slot

    def own_slot(self, path: str) -> Slot:
        """In a process node: the address of the actor that the node was started for."""
        self._own_path = path
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
        self.slots.pop(slot.path, None)
        self._vacant[slot.path] = slot
        self.registry_table.owner_released(slot)

    def ref(self, slot: Slot) -> Ref[object]:
        return Ref(self, slot)

    def ref_at(self, path: str, actor: type[T]) -> Ref[T]:
        """A reference to an address, whether or not somebody lives there."""
        slot = self.slots.get(path) or self._vacant.get(path)
        if slot is None:
            slot = self._vacant[path] = Slot(path)
        if slot.target is None and path not in self.slots:
            slot.target = self._elsewhere(path)
        return cast("Ref[T]", Ref(self, slot))

    def target_at(self, path: str) -> Target | None:
        """What lives at an address, or a stand-in for it, if it is this process's to know."""
        slot = self.slots.get(path)
        return self._elsewhere(path) if slot is None else slot.target

    def _elsewhere(self, path: str) -> Target | None:
        below = None if self._nodes is None else self._nodes.below(path)
        if below is not None or self.uplink is None:
            return below
        mine = self._own_path is not None and (path == self._own_path or path.startswith(self._own_path + "/"))
        return None if mine else self.uplink(path)

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
        return cast("Ref[T]", Ref(self, slot))

    async def lookup(self, name: str, actor: type[T]) -> Ref[T]:
        """Like :meth:`whereis`, but asks the system's authority: what a process node uses for names elsewhere."""
        if name in self.registry_table.names or self.uplink is None:
            return self.whereis(name, actor)
        path = await self.ref_at("/system/registry", Registry).call(Registry.whereis, name)
        if path is None:
            raise ActorDied(repr(name), NoProcess(name))
        return self.ref_at(path, actor)

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
            if slot is not None and slot.target is not None and slot.target.state in ("running", "suspended"):
                return cast("Ref[T]", Ref(self, slot))
            if self.loop.time() >= at:
                where = "at" if name.startswith("/") else "registered as"
                raise DeadlineExceeded(f"nobody lived {where} {name!r} in time")
            arrival: asyncio.Future[None] = self.loop.create_future()
            self._arrivals[arrival] = None
            try:
                await asyncio.wait([arrival], timeout=at - self.loop.time())
            finally:
                self._arrivals.pop(arrival, None)

    def current_slot(self) -> Slot | None:
        """The address of the actor whose code is running, if any."""
        cell = CURRENT.get()
        return None if cell is None else cell.slot

    def is_running_here(self, slot: Slot) -> bool:
        """Whether the code that asks is the handler or hook of the inline actor at ``slot``."""
        return isinstance(slot.target, Cell) and slot.target.is_running_here()

    # --- looking at it ------------------------------------------------------------------------------------------------

    def tree(self) -> TreeNode:
        """The tree of what is alive, as this process sees it: a process child is shown without what lives below it."""
        return tree_of(self.slots[self._own_path or "/"])

    async def full_tree(self, timeout: float = 2.0) -> TreeNode:
        """Like :meth:`tree`, with what lives in process nodes, save those that do not say it within ``timeout`` s."""
        from palmette.actors.full_tree import full_tree

        return await full_tree(self.slots[self._own_path or "/"], timeout)

    def statistics(self) -> SystemStatistics:
        alive = sum(1 for slot in self.slots.values() if slot.target is not None)
        return SystemStatistics(actors=alive, **self._counts)

    def why(self, path: str) -> list[ExitRecord]:
        """The exits recorded at or below an address, oldest first."""
        return [r for r in self.exits if r.path == path or r.path.startswith(path.rstrip("/") + "/")]

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
