"""Actors that join groups and find each other, for the tests of process nodes."""

from __future__ import annotations

from node_actors import Worker

from palmette.actors import Ref, Registry, endpoint
from palmette.supervisors import Supervisor, child


class Joining(Worker):
    """Joins, reads and sends to groups from where it lives."""

    @endpoint
    async def join(self, group: str, value: int) -> None:
        await self.system.registry.call(Registry.join, group, self.ref, value)

    @endpoint
    async def entries(self, group: str) -> list[tuple[str, object]]:
        return [(ref.path, value) for ref, value in await self.system.entries(group, Worker)]


class Finder(Worker):
    """Finds others without asking."""

    @endpoint
    async def find_here(self, name: str) -> Ref[Worker]:
        return self.system.whereis(name, Worker)


class Household(Supervisor):
    """Somebody who finds others, and more as they come."""

    def __init__(self, first: str) -> None:
        super().__init__(children=[child(Finder, tag=first, name=first)])


class Members(Supervisor):
    """Brings a member of its own, in whatever process it lives."""

    def __init__(self) -> None:
        super().__init__(children=[child(Joining, tag="inner", name="inner", restart="temporary")])
