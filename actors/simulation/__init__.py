"""Simulation: the same application on a virtual clock, under a seeded schedule and injected faults, nodes included.

    from palmette.actors import System
    from palmette.actors.simulation import RandomFaults, simulate

    @simulate(seeds=500, faults=RandomFaults(rate=0.2, match="/episodes/*"))
    async def test_every_episode_ends_exactly_once() -> None:
        async with System.start(tree()) as system:      # as in production, isolation="process" and all
            reason = await system.wait_ended()
        ...

One seed is one world: the same schedule, the same faults, the same event log, byte for byte. A failing seed is reported
with the fewest faults that still make it fail, and ``pytest --palmette-seed N`` brings it back.

**Process nodes.** A child with ``isolation="process"`` lives in a simulated node: it has a system of its own on a loop
of its own, which shares the clock and the schedule, and talks to its head over the real links, frames and codec, on a
network that is simulated. There is no socket, process or thread. What can go wrong, by chance or on purpose:

    run(main, seed=3, faults=[
        Fault(kind="partition", path="/trainer", message=40, seconds=30.0),    # from the 40th frame on its link
        Fault(kind="kill_node", path="/trainer", incarnation=2, seconds=5.0),  # kill -9 of its successor
        Fault(kind="duplicate", path="/judge", message=7),                     # the 7th frame arrives twice
    ])

:class:`Fault` lists all kinds. Simulated nodes count as being on other hosts: a partition keeps the head from killing
one, and silence is all that either side has to go by (:mod:`palmette.actors.heartbeat`). A stream keeps its order, so
nothing is reordered; a frame that is lost or repeated must end the link, and does.

**Hosts.** A child that says what it needs (``on=needs(gpu=1)``) is placed on one of ``hosts``, by the same books as in
earnest; where nothing is said that is one large host. Its environment is that of the test.

Nodes share this process, and so its modules' globals, ``os.getpid()``, files and logging: an application that depends
on having these to itself in a node is not simulated faithfully. What it schedules and awaits is kept apart. A killed
node runs nothing more while the simulation lasts; its ``finally`` blocks run, unheard, when all is cleared away.
"""

from palmette.actors.simulation.clock import RealTime
from palmette.actors.simulation.decorator import simulate
from palmette.actors.simulation.faults import Fault, InjectedFault, Kind, RandomFaults
from palmette.actors.simulation.loop import START, RanAway, SimulatedLoop, Stuck
from palmette.actors.simulation.node_loop import NodeLoop
from palmette.actors.simulation.run import SimulationFailed, SimulationResult, run, shrink
from palmette.actors.simulation.world import EventLog, SimulatedSystem

__all__ = [
    "START",
    "EventLog",
    "Fault",
    "InjectedFault",
    "Kind",
    "NodeLoop",
    "RanAway",
    "RandomFaults",
    "RealTime",
    "SimulatedLoop",
    "SimulatedSystem",
    "SimulationFailed",
    "SimulationResult",
    "Stuck",
    "run",
    "shrink",
    "simulate",
]
