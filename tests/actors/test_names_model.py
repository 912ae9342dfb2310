"""Names and groups over several nodes against a model: a plain dictionary, and whoever is alive."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from name_people import Estate, Person, Site, known, node_systems, person, site, world

from palmette.actors import Refused, Registered, System, simulation
from palmette.supervisors import Supervisor, child

SITES: Final = ("/here", "/one", "/two", "/two/annex")
KEYS: Final = ("a", "b")
NAMES: Final = ("x", "y", "z")
GROUPS: Final = ("g", "h")

PHASES: Final = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)
"""Not the explanation of a failure, which takes minutes."""

Command = tuple[str, str, str, str]
"""What, where, who there, and which name or group."""
commands = st.tuples(
    st.sampled_from(
        ("start", "start", "start",  "delete", "terminate", "restart", "crash", "take", "drop", "join", "update",
         "leave", "kill_site", "kill_registry")
    ),
    st.sampled_from(SITES),
    st.sampled_from(KEYS),
    st.sampled_from(NAMES),
)  # fmt: skip


class Model:
    """What should be."""

    def __init__(self) -> None:
        self.lives: dict[str, str] = {}
        """Who is in a supervisor's care, by path: the name it starts with."""
        self.down: set[str] = set()
        """Who of these was terminated."""
        self.names: dict[str, str] = {}
        self.groups: dict[str, dict[str, int]] = {}

    def is_up(self, path: str) -> bool:
        return path in self.lives and path not in self.down

    def may_have(self, path: str, name: str) -> bool:
        holder = self.names.get(name)
        return holder is None or holder == path or not self.is_up(holder)

    def ends(self, path: str) -> None:
        for members in self.groups.values():
            members.pop(path, None)

    def forget(self, path: str) -> None:
        self.ends(path)
        self.lives.pop(path, None)
        self.down.discard(path)
        self.names = {name: holder for name, holder in self.names.items() if holder != path}


async def succeeds(call: Awaitable[object]) -> bool:
    """Whether a call is not refused."""
    try:
        await call
    except Refused:
        return False
    return True


async def act(system: System, model: Model, command: Command, number: int) -> None:
    """Carry out one command, and see that it succeeds exactly where the model says so."""
    what, where, key, name = command
    path, boss = f"{where}/{key}", site(system, where)
    it = person(system, path)
    group = GROUPS[number % 2]
    match what:
        case "start":
            fine = path not in model.lives and model.may_have(path, name)
            start = boss.call(Supervisor.start_child, child(Person, name=key, register=name))
            assert await succeeds(start) == fine
            if fine:
                model.lives[path] = name
                model.names[name] = path
        case "delete" | "terminate":
            assert await succeeds(boss.call(Supervisor.terminate_child, key)) == (path in model.lives)
            if path in model.lives:
                model.ends(path)
                model.down.add(path)
                if what == "delete":
                    await boss.call(Supervisor.delete_child, key)
                    model.forget(path)
        case "restart":
            fine = path in model.down and model.may_have(path, model.lives[path])
            assert await succeeds(boss.call(Supervisor.restart_child, key)) == fine
            if fine:
                model.down.discard(path)
                model.names[model.lives[path]] = path
        case "crash":
            it.kill()
            model.ends(path)
        case "take":
            if model.is_up(path):
                fine = model.may_have(path, name)
                assert await succeeds(it.call(Person.take, name)) == fine
                if fine:
                    model.names[name] = path
        case "drop":
            # Only what nobody starts with: a supervisor would restart its holder under it.
            if model.is_up(path) and name not in model.lives.values():
                await it.call(Person.drop, name)
                model.names.pop(name, None)
        case "join":
            if model.is_up(path):
                await it.call(Person.join, group, number)
                model.groups.setdefault(group, {})[path] = number
        case "update" | "leave":
            if model.is_up(path):
                member = path in model.groups.get(group, {})
                if what == "leave":
                    await it.call(Person.leave, group)
                    model.groups.get(group, {}).pop(path, None)
                else:
                    assert await succeeds(it.call(Person.update, group, number)) == member
                    if member:
                        model.groups[group][path] = number
        case "kill_site":
            boss.kill()
            for other in [other for other in model.lives if other.startswith(where + "/")]:
                model.forget(other)
            await asyncio.sleep(3.0)
        case _:
            system.registry.kill()
    await asyncio.sleep(1.0)


async def compare(system: System, model: Model) -> None:
    """What everybody knows is what should be."""
    due = {name: (path, model.is_up(path)) for name, path in model.names.items()}
    for where, process in {"the program": system, **node_systems()}.items():
        found = {name: entry for name, entry in known(process).items() if name in NAMES}
        assert found == due, f"{where} believes {found}, and {due} is the truth"
    for group in GROUPS:
        members = model.groups.get(group, {})
        assert {(ref.path, value) for ref, value in await system.entries(group, Person)} == set(members.items())


async def story(plan: list[Command]) -> None:
    sites = [
        child(Site, name="here"),
        child(Site, name="one", isolation="process"),
        child(Estate, name="two", isolation="process"),
    ]
    watcher = child(Person, name="watcher", isolation="process")
    model = Model()
    async with System.start(Supervisor.spec(children=[*sites, watcher], max_restarts=1000)) as system:
        listener = system.whereis("watcher", Person)
        await listener.call(Person.subscribe, None)
        for number, command in enumerate(plan):
            await act(system, model, command, number)
            await compare(system, model)
        alive: dict[str, str] = {}
        for news in await listener.call(Person.heard):
            if news.name in NAMES:
                assert isinstance(news, Registered) == (news.name not in alive), f"told twice: {news}"
                if isinstance(news, Registered):
                    alive[news.name] = news.path
                else:
                    assert alive.pop(news.name) == news.path
        assert alive == {name: path for name, path in model.names.items() if model.is_up(path)}
    assert world().nodes == {}


@settings(max_examples=40, phases=PHASES)
@given(plan=st.lists(commands, max_size=14), seed=st.integers(0, 1000))
def test_names_and_groups_over_all_nodes_are_what_the_model_says(plan: list[Command], seed: int) -> None:
    simulation.run(lambda: story(plan), seed=seed)
