"""10,000 episodes at the same time, each of which waits one second for a pretended model.

An episode is a supervisor with an agent below it, started by a dynamic supervisor: the agent asks the model in a task
beside its mailbox, as a real one does, and ends; its end, being significant, ends the episode. The clock runs from the
first start until the last episode is gone. The reference is the same waits in one ``asyncio.gather``.

Once all of them run in this process, on one core, and once half of them in each of two process nodes, as a run on two
cores would have it. The nodes are up before the clock runs.
"""

from __future__ import annotations

import asyncio
import time

from palmette.actors import Actor, Ref, System, TaskDone, endpoint
from palmette.supervisors import ChildSpec, DynamicSupervisor, Supervisor, child
from tests.bench.measure import Line, Settings, compare, rounds, timed
from tests.bench.workers import pool, tree

GATHER = "asyncio.gather of the same waits"
ONE, TWO = "palmette, one process", "palmette, two process nodes"


async def model(seconds: float) -> str:
    """The pretended model."""
    await asyncio.sleep(seconds)
    return "an answer"


class Agent(Actor):
    """Asks the model once."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def continued(self) -> None:
        self.start_task(model(self._seconds), tag="answer")

    async def receive(self, message: object) -> None:
        assert isinstance(message, TaskDone)
        self.stop()


def episode(name: str, seconds: float) -> ChildSpec[Supervisor]:
    """One episode."""
    return Supervisor.spec(
        name=name,
        restart="temporary",
        auto_shutdown="any_significant",
        children=[child(Agent, seconds, name="agent", restart="transient", significant=True)],
    )


class Host(Actor):
    """In a process node: plays episodes under the dynamic supervisor beside it."""

    def __init__(self, pool: str) -> None:
        self._pool = pool

    @endpoint
    async def play(self, count: int, seconds: float) -> None:
        """Start ``count`` episodes at once; answers when all are gone."""
        await play(self.system, self.sibling(self._pool, DynamicSupervisor), count, seconds)


def node(name: str) -> ChildSpec[Supervisor]:
    """One process with a host in it."""
    # Names are one over all processes.
    pool = f"{name}-pool"
    children = [DynamicSupervisor.spec(name=pool), child(Host, pool, name=f"{name}-host")]
    return Supervisor.spec(name=name, isolation="process", children=children)


async def play(system: System, supervisor: Ref[DynamicSupervisor], count: int, seconds: float) -> None:
    """Start ``count`` episodes, and wait until the last one is gone."""
    empty = len(system.slots)
    patience = time.monotonic() + 120.0
    for number in range(count):
        await supervisor.call(DynamicSupervisor.start_child, episode(f"e{number}", seconds))
    # An episode's addresses are given up with it; to ask would have the supervisor count its children.
    while len(system.slots) > empty:
        if time.monotonic() > patience:
            raise TimeoutError(f"{len(system.slots) - empty} actors are left")
        await asyncio.sleep(0.005)


async def measure(settings: Settings) -> list[Line]:
    """The row."""
    n, seconds = settings.size(10_000), 0.01 if settings.small else 1.0

    async def here() -> float:
        async with pool() as (system, supervisor):
            return await timed(play(system, supervisor, n, seconds))

    async def gather() -> float:
        return await timed(asyncio.gather(*(model(seconds) for _ in range(n))))

    async with System.start(tree(node("left"), node("right"))) as system:
        hosts = [system.ref_at(f"/{name}/{name}-host", Host) for name in ("left", "right")]

        async def on_nodes() -> float:
            return await timed(asyncio.gather(*(host.call(Host.play, n // 2, seconds) for host in hosts)))

        costs = await rounds(2 if settings.small else 5, {ONE: here, TWO: on_nodes, GATHER: gather})
    work = f"{n:,} concurrent episodes"
    return [
        compare(f"{work}, on 2 cores", settings.loop, costs, TWO, GATHER, at_most=1.3),
        compare(f"{work}, on 1 core", settings.loop, costs, ONE, GATHER),
    ]
