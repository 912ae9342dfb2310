"""A system: one tree of actors, its registry, and everything that can be asked about them.

``async with System.start(tree) as system`` starts the tree, gives it to you, and stops it in reverse order at the end
of the block. If the tree's root gives up while the block runs, the block is cancelled and :class:`ActorDied` is raised
with the reason: a program whose root supervisor is gone must not idle on.

A cancellation from outside, while the tree starts, runs or stops, stops it in the same order, and comes out after that.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from palmette.actors import starting
from palmette.actors.actor import Actor
from palmette.actors.addresses import Addresses
from palmette.actors.cell import Cell
from palmette.actors.cluster.placer import Placer, this_host
from palmette.actors.ending import settle
from palmette.actors.errors import ActorDied, StartFailed
from palmette.actors.exits import Killed, NoProcess, Reason, Shutdown, is_graceful
from palmette.actors.expiry import Expiry
from palmette.actors.heartbeat import Heartbeat
from palmette.actors.introspection import TreeNode, tree_of
from palmette.actors.parking import Parking
from palmette.actors.records import Records
from palmette.actors.ref import Ref
from palmette.actors.registry import REGISTRY, Registry
from palmette.actors.slot import CURRENT, Slot
from palmette.actors.starting import Startable, StartOptions
from palmette.actors.watchdog import watch

if TYPE_CHECKING:
    from palmette.actors.naming import Naming
    from palmette.actors.nodes import Nodes


class System(Addresses, Records):
    """See the module's text. Made by :meth:`start`."""

    def __init__(self, *, name: str = "palmette", kill_grace: float = 1.0) -> None:
        Addresses.__init__(self)
        Records.__init__(self)
        self.name = name
        self.loop = asyncio.get_running_loop()
        self.kill_grace = kill_grace
        """Seconds that killed code gets before it is called a zombie."""
        self.expiry = Expiry(self.loop)
        """Of the calls that are under way."""
        self.parking = Parking(self.loop)
        """The engines of idle actors."""
        self.random = random.Random()
        """Jitter and the like; seeded in simulation."""
        self.failure: Reason | None = None
        """Why the root gave up, if it did."""
        self._closing = False
        self._rebirth: asyncio.Task[None] | None = None
        self.heartbeat = Heartbeat()
        """Of links to process nodes."""
        self.capabilities: Mapping[str, str] = {}
        """What is said of this host, for children that say what they need."""

    # --- life ----------------------------------------------------------------------------------------------------

    @staticmethod
    @asynccontextmanager
    async def start(
        tree: Startable,
        *,
        name: str = "palmette",
        kill_grace: float = 1.0,
        blocked_after: float | None = 1.0,
        heartbeat: Heartbeat | None = None,
        capabilities: Mapping[str, str] | None = None,
        cluster: str | None = None,
    ) -> AsyncGenerator[System]:
        """Start ``tree`` and stop it at the end of the block. ``heartbeat`` says when a silent process node is lost,
        ``capabilities`` what this host offers beyond what can be found: ``{"gpu": "1", "zone": "eu"}`` (see
        :mod:`palmette.actors.cluster.capabilities`; a simulation is told of its hosts elsewhere). ``cluster`` is the
        address of a cluster's head (``HOST:PORT``): its members are then the hosts of such children, and its heartbeat
        is that of the system.

        Code that was killed is called a zombie after ``kill_grace`` seconds. An actor that holds up the event loop for
        more than ``blocked_after`` seconds is named in a warning (``None``: nobody looks; nor in a simulation); see
        :mod:`palmette.actors.watchdog`.

        Raises:
            StartFailed: a child could not start; what had been started was stopped again, in reverse.
            ClusterError: no head answers at ``cluster``, or this host has no credentials for it.
            ActorDied: the tree's root gave up during the block.
        """
        # A simulated loop brings the system that belongs to it.
        simulated: type[System] | None = getattr(asyncio.get_running_loop(), "system_class", None)
        system = (simulated or System)(name=name, kill_grace=kill_grace)
        system.heartbeat = heartbeat or system.heartbeat
        system.capabilities = capabilities or {}
        watchdog = watch(system, blocked_after, simulated=simulated is not None)
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
            if cluster is not None:
                await system._join(cluster)
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
            if watchdog is not None:
                watchdog.close()
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
        slot = self.slots.setdefault(REGISTRY, Slot(REGISTRY))
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
        await self._end(self.slots[REGISTRY], self.kill_grace)
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

    async def _join(self, cluster: str) -> None:
        from palmette.actors.cluster.program import join

        self._nodes = await join(self, cluster)

    def make_placer(self) -> Placer:
        """What finds places for children that say what they need: here, this host's own books."""
        return this_host(self.capabilities)

    def make_naming(self) -> Naming:
        """The part of this process in the system's names."""
        from palmette.actors.naming import Naming

        return Naming(self)

    def ref(self, slot: Slot) -> Ref[object]:
        return Ref(self, slot)

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
        return tree_of(self.slots[self.own_path or "/"])

    async def full_tree(self, timeout: float = 2.0) -> TreeNode:
        """Like :meth:`tree`, with what lives in process nodes, save those that do not say it within ``timeout`` s."""
        from palmette.actors.full_tree import full_tree

        return await full_tree(self.slots[self.own_path or "/"], timeout)
