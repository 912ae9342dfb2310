"""What the tests of one module share: a running system with workers in several processes."""

from __future__ import annotations

from node_actors import Worker

from palmette.actors import Actor, Ref, System
from palmette.supervisors import ChildSpec, DynamicSupervisor, Supervisor, child


class Bench:
    """A running system: workers here, there and yonder, and a dynamic supervisor for more."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.here = system.whereis("here", Worker)
        self.there = system.whereis("there", Worker)
        self.yonder = system.whereis("yonder", Worker)
        self.more = system.whereis("more", DynamicSupervisor)

    async def start(self, spec: ChildSpec[Actor]) -> Ref[Worker]:
        """Start one more child."""
        return self.system.ref_at(await self.more.call(DynamicSupervisor.start_child, spec), Worker)

    async def spare(self, name: str) -> Ref[Worker]:
        """A worker in a process of its own that a test may kill: it is not restarted."""
        return await self.start(child(Worker, tag=name, name=name, isolation="process", restart="temporary"))

    async def clear(self) -> None:
        """End the children of ``more``, and wait for those that are about to end."""
        for info in await self.more.call(DynamicSupervisor.which_children):
            await self.more.call(DynamicSupervisor.terminate_child, info.name)


def bench_spec() -> ChildSpec[Supervisor]:
    return Supervisor.spec(
        max_restarts=100,
        children=[
            child(Worker, tag="here", name="here"),
            child(Worker, tag="there", name="there", isolation="process"),
            child(Worker, tag="yonder", name="yonder", isolation="process"),
            DynamicSupervisor.spec(name="more", max_restarts=100),
        ],
    )
