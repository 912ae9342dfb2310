"""Simulated nodes: what ``isolation="process"`` means in a simulation.

The head's book-keeping, the links and the node's life are the real ones; what is played here is what is outside of
them: a host that starts processes, the processes, and the network between. Each node runs on a loop of its own, which
shares the world's clock and its seeded schedule. It counts as being on another host: a partition keeps the head from
killing it, and silence alone makes it lost, from either side.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Final

from palmette.actors import wire
from palmette.actors.cluster.books import Placed
from palmette.actors.fingerprint import this_build
from palmette.actors.link import Link
from palmette.actors.node_life import NodeLife, NodeSystem
from palmette.actors.nodes import NodeHost, Nodes
from palmette.actors.simulation.faults import Fault
from palmette.actors.simulation.loop import SimulatedLoop, VirtualLoop
from palmette.actors.simulation.network import LATENCY, Connection, End
from palmette.actors.simulation.node_loop import NodeLoop
from palmette.actors.simulation.world import SimulatedSystem
from palmette.actors.slot import Slot

if TYPE_CHECKING:
    from palmette.actors.system import System

BOOT: Final = (0.1, 0.5)
"""Seconds that a process takes to come up."""


class SimulatedNodeSystem(NodeSystem, SimulatedSystem):
    """A node's part of a simulated system."""


class SimulatedNode(NodeLife):
    """A node's life in a simulation."""

    def __init__(self, loop: NodeLoop, order: wire.Order, end: End) -> None:
        super().__init__()
        self._loop = loop
        self._order = order
        self._end = end

    def run(self) -> None:
        """Call the head."""
        order = self._order
        self.system = SimulatedNodeSystem(name=order.node)
        self.system.heartbeat = order.heartbeat
        hello = wire.Hello(order.node, order.token, self._loop.pid, this_build())
        self._end.write(b"".join(wire.encode_frame(hello, 0)))
        self._end.attach(self.meet_head(written=1))
        self.link.keep_alive(order.heartbeat, _always)

    def move_in(self) -> None:
        """It has no logging or exit handlers of its own: those are this process's, and stay."""

    def last_acts(self) -> None:
        """See :meth:`move_in`."""

    def leave(self) -> None:
        self._loop.die()


class SimulatedProcess:
    """A node's process, as the head can reach it: over the network."""

    patience = None

    def __init__(self, loop: NodeLoop, head: VirtualLoop, connection: Connection) -> None:
        self.loop = loop
        self._head = head
        self._connection = connection
        self._waiting: list[Callable[[], None]] = []
        loop.at_death.append(self._died)

    def kill(self) -> None:
        world, connection = self.loop.world, self._connection
        world.call_later(connection.rng.uniform(*LATENCY), connection.when_whole, self.loop.die)

    def when_gone(self, tell: Callable[[], None]) -> Callable[[], None]:
        if self.loop.is_dead and not self._connection.is_cut:
            return self._head.call_soon(tell).cancel
        self._waiting.append(tell)
        return lambda: self._waiting.remove(tell) if tell in self._waiting else None

    def _died(self) -> None:
        self.loop.log.write("node ended", self._connection.name)
        self._connection.node.abort()
        self._connection.when_whole(self._spread_the_word)

    def _spread_the_word(self) -> None:
        waiting, self._waiting = self._waiting, []
        for tell in waiting:
            self._head.call_soon(tell)

    def may_be_gone(self) -> bool:
        return _always()


class SimulatedHost:
    """What starts the nodes of one head, and ends them with it."""

    def __init__(self, nodes: Nodes, head: VirtualLoop) -> None:
        self.is_gone = False
        self._nodes = nodes
        self._head = head
        self._world = world_of(head)
        self._booting: set[asyncio.TimerHandle] = set()
        self._processes: dict[int, SimulatedProcess] = {}
        if isinstance(head, NodeLoop):
            head.at_death.append(self._end)

    def process(self, pid: int) -> SimulatedProcess:
        """One that was started here."""
        return self._processes[pid]

    def order(self, order: wire.Order) -> None:
        self.start(order, order.node, [])

    def log_place(self, name: str, placed: Placed) -> None:
        """Write down where a node is said to be."""
        self._world.log.write("placed", name, str(placed))

    def start(self, order: wire.Order, name: str, faults: list[Fault]) -> None:
        """Have a node started, under ``faults``; ``name`` is for the log."""
        rng = random.Random(f"boot/{self._world.seed}/{name}")
        late = sum(fault.seconds for fault in faults if fault.kind == "slow_node")
        for fault in faults:
            if fault.kind in ("slow_node", "fail_node"):
                self._world.log.write("fault", name, fault.kind)
        act = self._boot
        if any(fault.kind == "fail_node" for fault in faults):
            act = self._report

        def up() -> None:
            self._booting.discard(timer)
            act(order, name, faults)

        timer = self._world.call_later(rng.uniform(*BOOT) + late, up)
        self._booting.add(timer)

    def _boot(self, order: wire.Order, name: str, faults: list[Fault]) -> None:
        loop = NodeLoop(self._world, self._world.next_pid())

        def strike(fault: Fault) -> None:
            if fault.kind == "kill_node":
                self._world.call_later(fault.seconds, loop.die)
            elif fault.kind == "freeze_node":
                loop.freeze()
                self._world.call_later(fault.seconds, loop.thaw)

        connection = Connection(self._world, name, loop, self._head, faults, strike)
        self._processes[loop.pid] = SimulatedProcess(loop, self._head, connection)
        self._world.log.write("node started", name)
        node = SimulatedNode(loop, order, connection.node)
        loop.keep(node)
        self._head.call_soon(self._accept, connection, context=Context())
        loop.call_soon(node.run, context=Context())
        connection.begin()

    def _report(self, order: wire.Order, name: str, faults: list[Fault]) -> None:
        """Tell the head that a process has ended, as the keeper does."""
        connection = Connection(self._world, f"{name} (stillborn)", self._world, self._head)
        self._head.call_soon(self._accept, connection, context=Context())
        connection.node.write(b"".join(wire.encode_frame(wire.Stillborn(order.node, order.token), 0)))
        connection.node.abort()

    def _accept(self, connection: Connection) -> None:
        connection.head.attach(self._nodes.accept())

    async def close(self) -> None:
        self._end()
        self._nodes.host_gone(self, "the simulated host was closed")

    def _end(self) -> None:
        # It is on the host of its nodes: no partition keeps it from them.
        self.is_gone = True
        for timer in self._booting:
            timer.cancel()
        for process in self._processes.values():
            process.loop.die()


class SimulatedNodes(Nodes):
    """The head's side of simulated nodes."""

    async def open_host(self) -> NodeHost:
        return SimulatedHost(self, virtual(self.system))

    def order(self, host: NodeHost, node: str, token: str, slot: Slot, placed: Placed | None) -> None:
        assert isinstance(host, SimulatedHost)
        faults = virtual(self.system).injector.for_node(slot.path)
        order = wire.Order(node, "", token, self.system.heartbeat)
        name = f"{slot.path}#{slot.incarnation}"
        if placed is not None:
            host.log_place(name, placed)
        host.start(order, name, faults)

    def process_of(self, link: Link) -> SimulatedProcess:
        host = self._host
        assert isinstance(host, SimulatedHost)
        return host.process(link.pid)


def virtual(system: System) -> VirtualLoop:
    """The loop of a simulated system."""
    assert isinstance(system.loop, VirtualLoop)
    return system.loop


def world_of(loop: VirtualLoop) -> SimulatedLoop:
    """The loop that all of a simulation runs on."""
    if isinstance(loop, NodeLoop):
        return loop.world
    assert isinstance(loop, SimulatedLoop)
    return loop


def _always() -> bool:
    return True
