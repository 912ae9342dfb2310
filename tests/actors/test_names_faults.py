"""Names while nodes are killed, stopped, cut off, and frames lost: whatever happened, all agree again, on the truth."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter

from name_people import Estate, Person, Site, known, node_systems, person, site, world

from palmette.actors import ActorError, Registered, Registry, System, deadline, simulation
from palmette.actors.simulation import RandomFaults
from palmette.supervisors import Supervisor, child

SITES = ("/here", "/one", "/two", "/two/annex", "/three")
KEYS = ("a", "b", "c")
NAMES = ("u", "v", "w", "x")
FAULTS = RandomFaults(
    rate=0.7, match="/t*", kinds=("kill_node", "freeze_node", "partition", "slow_link", "delay", "drop", "duplicate")
)


class Beginning(Person):
    """Has a name of its own from its start on, and takes it in ``started``."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    async def started(self) -> None:
        await self.take(self.name)


async def bustle(system: System, rng: random.Random, until: float) -> None:
    """Start, end and rename people; whatever is refused, dead or late is left."""
    while system.loop.time() < until:
        path, key, name = rng.choice(SITES), rng.choice(KEYS), rng.choice(NAMES)
        boss, it = site(system, path), person(system, f"{path}/{key}")
        with contextlib.suppress(ActorError), deadline(3.0):
            match rng.randrange(9):
                case 0 | 1:
                    await boss.call(Supervisor.start_child, child(Person, name=key, register=name))
                case 2:
                    # Temporary: one whose name is taken would be tried again for ever.
                    spec = child(Beginning, name, name=key, register=f"own-{path}-{key}", restart="temporary")
                    await boss.call(Supervisor.start_child, spec)
                case 3:
                    await boss.call(Supervisor.terminate_child, key)
                    await boss.call(Supervisor.delete_child, key)
                case 4:
                    await boss.call(Supervisor.terminate_child, key)
                    await boss.call(Supervisor.restart_child, key)
                case 5:
                    await it.call(Person.take, name)
                case 6:
                    await system.registry.call(Registry.register, name, it)
                    await system.registry.call(Registry.join, "g", it, 1)
                case 7:
                    await it.call(Person.join, "g", 2)
                case _:
                    rng.choice((it, system.registry)).kill()
        await asyncio.sleep(rng.random())


def check(system: System, news: list[object]) -> int:
    """Everybody agrees, and it is so."""
    due = known(system)
    living: dict[str, str] = {}
    for where, process in {"/": system, **node_systems()}.items():
        assert known(process) == due, (where, known(process), due)
        assert process.registry_table._starting == {}  # pyright: ignore[reportPrivateUsage]
        for path, slot in process.slots.items():
            if slot.target is not None and process.is_mine(path) == (process is not system):
                living[path] = slot.target.state
    for name, (path, up) in due.items():
        assert up == (path in living), (name, path, up)
    assert "starting" not in system.registry_table.elsewhere.values(), "a name that nobody has, and nobody can take"
    for slot, _ in system.registry_table.members("g"):
        assert slot.path in living
    alive: dict[str, str] = {}
    for item in news:
        name, path = item.name, item.path  # type: ignore[attr-defined] # pyright: ignore
        if isinstance(item, Registered):
            assert name not in alive, f"{name} came twice"
            alive[name] = path
        else:
            assert alive.pop(name) == path
    assert alive.items() <= {name: path for name, (path, up) in due.items() if up}.items()
    return len(due)


async def story() -> tuple[int, int]:
    sites = [
        child(Site, name="here"),
        child(Site, name="one", isolation="process"),
        child(Estate, name="two", isolation="process"),
        child(Site, name="three", isolation="process"),
    ]
    rng = random.Random(world().seed)
    tree = Supervisor.spec(children=[child(Person, name="watcher")], max_restarts=100_000)
    async with System.start(tree) as system:
        root = site(system, "/")
        watcher = system.whereis("watcher", Person)
        await watcher.call(Person.subscribe, None)
        for spec in sites:
            for _ in range(20):
                with contextlib.suppress(ActorError), deadline(200.0):
                    await root.call(Supervisor.start_child, spec)
                    break
        until = system.loop.time() + 60.0
        await asyncio.gather(*(bustle(system, rng, until) for _ in range(4)))
        await asyncio.sleep(120.0)
        news = list[object](await watcher.call(Person.heard))
        return check(system, news), len(news)


def test_after_any_faults_all_nodes_agree_and_nobody_was_told_twice() -> None:
    struck, told = Counter[str](), 0
    for seed in range(12):
        result = simulation.run(story, seed=seed, faults=FAULTS)
        struck.update(fault.kind for fault in result.faults)
        told += result.value[1]
    assert len(struck) == len(FAULTS.kinds), struck
    assert told > 25 * 20
