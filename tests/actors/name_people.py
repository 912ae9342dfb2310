"""Actors for the tests of names across nodes, and a look into what every node knows. Classes travel by name."""

from __future__ import annotations

import asyncio
from typing import cast

import msgspec

from palmette.actors import Actor, Ref, Registered, Registry, System, Unregistered, endpoint
from palmette.actors.simulation import SimulatedLoop
from palmette.actors.simulation.nodes import SimulatedNode
from palmette.supervisors import Supervisor, child


class Note(msgspec.Struct, frozen=True):
    """Sent to all of a group."""

    text: str


class Person(Actor):
    """Has names, is in groups, and hears of others."""

    def __init__(self) -> None:
        self.news: list[Registered | Unregistered] = []
        self.notes: list[str] = []

    async def receive(self, message: object) -> None:
        if isinstance(message, Note):
            self.notes.append(message.text)
        else:
            assert isinstance(message, Registered | Unregistered)
            self.news.append(message)

    @endpoint
    async def heard(self) -> list[Registered | Unregistered]:
        return self.news

    @endpoint
    async def noted(self) -> list[str]:
        return self.notes

    @endpoint
    async def take(self, name: str) -> None:
        await self.system.registry.call(Registry.register, name, self.ref)

    @endpoint
    async def drop(self, name: str) -> None:
        await self.system.registry.call(Registry.unregister, name)

    @endpoint
    async def join(self, group: str, value: int) -> None:
        await self.system.registry.call(Registry.join, group, self.ref, value)

    @endpoint
    async def update(self, group: str, value: int) -> None:
        await self.system.registry.call(Registry.update, group, self.ref, value)

    @endpoint
    async def leave(self, group: str) -> None:
        await self.system.registry.call(Registry.leave, group, self.ref)

    @endpoint
    async def subscribe(self, name: str | None) -> None:
        await self.system.registry.call(Registry.subscribe, self.ref, name)

    @endpoint
    async def find(self, name: str) -> str:
        """Without asking anybody."""
        return self.system.whereis(name, Person).path

    @endpoint
    async def wait_for(self, name: str, seconds: float) -> str:
        return (await self.system.wait_for(name, Person, timeout=seconds)).path

    @endpoint
    async def entries(self, group: str) -> list[tuple[str, object]]:
        return [(ref.path, value) for ref, value in await self.system.entries(group, Person)]

    @endpoint
    async def dispatch(self, group: str, text: str) -> int:
        return await self.system.dispatch(group, Note(text))

    @endpoint
    async def ask_by_name(self, name: str) -> list[str]:
        return await self.system.whereis(name, Person).call(Person.noted)

    @endpoint
    async def join_and_crash(self, group: str) -> None:
        """Its supervisor, here, has started it anew before anybody elsewhere has heard of either."""
        self.system.registry.cast(Registry.join, group, self.ref, 1)
        self.system.registry.cast(Registry.subscribe, self.ref)
        raise RuntimeError("in haste")


class Site(Supervisor):
    """Where people live: in this process, a node, or a node of a node."""

    def __init__(self) -> None:
        super().__init__(max_restarts=1000)


class Estate(Supervisor):
    """A node with a node of its own."""

    def __init__(self) -> None:
        super().__init__(max_restarts=1000, children=[child(Site, name="annex", isolation="process")])


def world() -> SimulatedLoop:
    return cast("SimulatedLoop", asyncio.get_running_loop())


def node_systems() -> dict[str, System]:
    """The systems of all simulated nodes, by the path of each one's own actor."""
    keeps = [thing for loop in world().nodes.values() for thing in loop._keeps]  # pyright: ignore[reportPrivateUsage]
    nodes = [thing for thing in keeps if isinstance(thing, SimulatedNode) and hasattr(thing, "system")]  # it has booted
    return {str(node.system.own_path): node.system for node in nodes}


def known(system: System) -> dict[str, tuple[str, bool]]:
    """What a process believes: who has which name, and whether somebody lives there."""
    table = system.registry_table
    return {name: (slot.path, table.is_up(slot)) for name, slot in table.names.items()}


def site(system: System, path: str) -> Ref[Supervisor]:
    return system.ref_at(path, Supervisor)


def person(system: System, path: str) -> Ref[Person]:
    return system.ref_at(path, Person)
