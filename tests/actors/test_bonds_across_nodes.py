"""Monitors and links between nodes that are killed, stopped and cut off: each is told of an end, and once."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable, Coroutine

import pytest
from bond_people import Bonded, Book, Faithful, Home
from name_people import node_systems, world

from palmette.actors import ActorError, Ref, System, deadline, simulation
from palmette.actors.cell import Cell
from palmette.actors.simulation import Fault, RandomFaults
from palmette.supervisors import DynamicSupervisor, Supervisor, child

HOMES = ("/all/here", "/all/one", "/all/two", "/all/three")
FAULTS = RandomFaults(
    rate=0.7, match="/all/*", kinds=("kill_node", "freeze_node", "partition", "slow_link", "delay", "drop", "duplicate")
)


def people(system: System) -> list[Ref[Bonded]]:
    return [system.ref_at(f"{home}/{key}", Bonded) for home in HOMES for key in "ab"]


def living(system: System) -> set[int]:
    """The lives that go on."""
    found: set[int] = set()
    for process in (system, *node_systems().values()):
        for slot in process.slots.values():
            actor = getattr(slot.target, "actor", None)
            if isinstance(actor, Bonded):
                found.add(actor.life)
    return found


async def furnish(system: System, home: str) -> None:
    """See to it that a home and its people are there."""
    boss = system.ref_at("/all", DynamicSupervisor)
    name = home.rpartition("/")[2]
    isolation = "inline" if name == "here" else "process"
    with contextlib.suppress(ActorError), deadline(100.0):
        await boss.call(DynamicSupervisor.start_child, child(Home, name=name, isolation=isolation))
    for key, kind in (("a", Bonded), ("b", Faithful)):
        with contextlib.suppress(ActorError), deadline(3.0):
            await system.ref_at(home, Supervisor).call(Supervisor.start_child, child(kind, name=key))


async def bustle(system: System, rng: random.Random, until: float, both_ways: bool) -> None:
    """Have people watch and tie each other, and end: alone, with their node, or two nodes at a time."""
    while system.loop.time() < until:
        everybody = people(system)
        first, second = sorted(rng.sample(range(len(everybody)), 2))
        one, other = everybody[first], everybody[second]
        if both_ways and rng.random() < 0.5:
            one, other = other, one
        with contextlib.suppress(ActorError), deadline(2.0):
            match rng.randrange(12):
                case 0 | 1 | 2:
                    await one.call(Bonded.watch, other)
                case 3 | 4 | 5:
                    await one.call(Bonded.tie, other)
                case 6 if both_ways:
                    # Both at once, and one ends at the same moment.
                    one.cast(Bonded.tie, other)
                    other.cast(Bonded.tie, one)
                    if rng.random() < 0.5:
                        one.cast(Bonded.crash)
                case 7:
                    rng.choice((one, other)).cast(Bonded.crash)
                case 8:
                    rng.choice((one, other)).kill()
                case 9:
                    await furnish(system, rng.choice(HOMES))
                case 10:
                    if rng.random() < 0.3:
                        for home in rng.sample(HOMES[1:], rng.randint(1, 2)):
                            system.ref_at(home, Home).kill()
                case _:
                    pass
        await asyncio.sleep(rng.random() * 0.3)


def check(alive: set[int], survivor: int, at: float) -> tuple[int, int]:
    """``alive`` were those who lived at a quiet time ``at``; all but the ``survivor`` have ended since."""

    def was_early(path: str, since: float, told: float) -> bool:
        """Whether who was there when the bond was made lived on when its end was told."""
        there = [number for number, life in Book.lives.items() if life.path == path and life.born < since]
        return bool(there) and there[-1] in alive and told < at

    for key, times in Book.downs.items():
        assert len(times) == 1, (key, times)
        assert not was_early(*Book.watches[key], times[0]), key
    for key, told in Book.exits.items():
        mine, others = Book.ties.get(key, []), _ties_of_others(key)
        assert len(told) <= len(mine) + others, f"{Book.lives[key[0]]} was told of {key[1]} {len(told)} times"
        if not others:
            assert not any(was_early(key[1], since, end) for since, end in zip(mine, told, strict=False)), key
    for (who, monitor), (path, since) in Book.watches.items():
        if who == survivor and since < at:
            assert (who, monitor) in Book.downs, f"a monitor of {path}, made at {since}, was never told"
    for (who, path), times in Book.ties.items():
        due = len([since for since in times if since < at])
        if who == survivor:
            assert len(Book.exits.get((who, path), ())) >= due, f"a link to {path}, made at {times}, was not told"
    return len(Book.downs), sum(map(len, Book.exits.values()))


def _ties_of_others(key: tuple[int, str]) -> int:
    """Links that others have made to this life: each may end once more."""
    who, path = key
    mine = Book.lives[who].path
    return sum(len(times) for (other, to), times in Book.ties.items() if to == mine and Book.lives[other].path == path)


async def one_way() -> tuple[int, int]:
    return await story(both_ways=False)


async def both_ways() -> tuple[int, int]:
    return await story(both_ways=True)


async def story(*, both_ways: bool) -> tuple[int, int]:
    """Where links are made one way only, from the first to the second of two, what is told can be said exactly."""
    Book.clear()
    rng = random.Random(world().seed)
    tree = Supervisor.spec(children=[DynamicSupervisor.spec(name="all", max_restarts=100_000)], max_restarts=100_000)
    async with System.start(tree) as system:
        for home in HOMES:
            await furnish(system, home)
        until = system.loop.time() + 60.0
        await asyncio.gather(*(bustle(system, rng, until, both_ways) for _ in range(3)))
        await asyncio.sleep(60.0)
        alive, at = living(system), system.loop.time()
        # Now everybody ends but one, who lives here and where nobody cuts it off.
        survivor, other = rng.sample("ab", 2)
        for ref in [system.ref_at(home, Home) for home in HOMES[1:]] + [system.ref_at(f"/all/here/{other}", Bonded)]:
            ref.kill()
            await asyncio.sleep(5.0)
        target = system.slots[f"/all/here/{survivor}"].target
        assert isinstance(target, Cell)
        assert isinstance(target.actor, Bonded)
        return check(alive, target.actor.life, at)


@pytest.mark.parametrize("story", [one_way, both_ways])
def test_every_monitor_and_link_between_nodes_is_told_of_an_end_once_whatever_happens(
    story: Callable[[], Coroutine[object, object, tuple[int, int]]],
) -> None:
    struck, downs, exits = Counter[str](), 0, 0
    for seed in range(10):
        result = simulation.run(story, seed=seed, faults=FAULTS)
        struck.update(fault.kind for fault in result.faults)
        downs, exits = downs + result.value[0], exits + result.value[1]
    assert len(struck) == len(FAULTS.kinds), struck
    assert min(downs, exits) > 20 * 10


def _life_at(path: str) -> int:
    return max(number for number, life in Book.lives.items() if life.path == path)


@pytest.mark.parametrize("where", ["here", "one"])
def test_the_end_of_a_link_is_not_taken_for_that_of_its_successor(where: str) -> None:
    """Whoever hears of an end ties itself to the next incarnation, while more news of the old one may be under way."""

    async def main() -> tuple[list[float], list[list[float]]]:
        Book.clear()
        tree = DynamicSupervisor.spec(name="all", max_restarts=1000)
        async with System.start(Supervisor.spec(children=[tree])) as system:
            for home in (f"/all/{where}", "/all/two"):
                await furnish(system, home)
            faithful = child(Faithful, name="faithful")
            await system.ref_at(f"/all/{where}", Supervisor).call(Supervisor.start_child, faithful)
            it, other = system.ref_at(f"/all/{where}/faithful", Bonded), system.ref_at("/all/two/a", Bonded)
            await it.call(Bonded.tie, other)
            await it.call(Bonded.watch, other)
            for _ in range(10):
                other.cast(Bonded.crash)
                await asyncio.sleep(10.0)
            return list(Book.exits[(_life_at(it.path), other.path)]), [list(told) for told in Book.downs.values()]

    for seed in range(10):
        faults = [Fault(kind="slow_link", path=f"/all/{name}", message=4, seconds=0.5) for name in ("one", "two")]
        exits, downs = simulation.run(main, seed=seed, faults=faults).value
        assert len(exits) == 10
        assert list(map(len, downs)) == [1] * 10
