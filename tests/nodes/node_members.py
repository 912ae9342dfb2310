"""Actors that join groups, for the tests of process nodes."""

from __future__ import annotations

from node_actors import Worker

from palmette.actors import Registry, endpoint
from palmette.supervisors import Supervisor, child


class Joining(Worker):
    """Joins, reads and sends to groups from where it lives."""

    @endpoint
    async def join(self, group: str, value: int) -> None:
        await self.system.registry.call(Registry.join, group, self.ref, value)

    @endpoint
    async def entries(self, group: str) -> list[tuple[str, object]]:
        return [(ref.path, value) for ref, value in await self.system.entries(group, Worker)]


class Members(Supervisor):
    """Brings a member of its own, in whatever process it lives."""

    def __init__(self) -> None:
        super().__init__(children=[child(Joining, tag="inner", name="inner", restart="temporary")])
