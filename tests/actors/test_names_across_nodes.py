"""What an actor in one node can rely on about names, groups and subscriptions of another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager

import pytest
from name_people import Person, Site, known, node_systems, person, site, world

from palmette.actors import (
    ActorDied,
    DeadlineExceeded,
    Killed,
    Registered,
    System,
    Unregistered,
    deadline,
    simulation,
)
from palmette.actors.simulation import Fault
from palmette.supervisors import DynamicSupervisor, StartRefused, Supervisor, child


@asynccontextmanager
async def two_sites() -> AsyncGenerator[System]:
    """A person ``seer`` in node one, and an empty node two."""
    sites = [child(Site, name=name, isolation="process") for name in ("one", "two")]
    async with System.start(Supervisor.spec(max_restarts=100, children=sites)) as system:
        await site(system, "/one").call(Supervisor.start_child, child(Person, name="seer"))
        yield system
    assert world().nodes == {}


def simulated(test: Callable[[], Coroutine[object, object, None]], *faults: Fault) -> None:
    for seed in range(3):
        simulation.run(test, seed=seed, faults=faults)


async def settle_in(system: System, where: str, name: str, **options: object) -> str:
    spec = child(Person, name=name, **options)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    return await site(system, where).call(Supervisor.start_child, spec)


def test_a_name_taken_in_one_node_is_known_in_all_by_the_time_its_start_is_complete() -> None:
    async def main() -> None:
        async with two_sites() as system:
            seer = system.whereis("seer", Person)
            await settle_in(system, "/two", "bob", register="robert")
            assert system.whereis("robert", Person).path == "/two/bob"
            assert await seer.call(Person.find, "robert") == "/two/bob"
            assert await seer.call(Person.ask_by_name, "robert") == []
            assert await person(system, "/two/bob").call(Person.find, "seer") == "/one/seer"
            with pytest.raises(ActorDied, match=r"'bob' \(registered are: one, registry, robert, seer, two\)"):
                await seer.call(Person.find, "bob")

    simulated(main)


def test_a_new_node_begins_with_all_names() -> None:
    class Told:
        names: dict[str, tuple[str, bool]] = {}  # noqa: RUF012

    async def main() -> None:
        async with two_sites() as system:
            third = child(Site, name="third", isolation="process")
            await site(system, "/").call(Supervisor.start_child, third)
            Told.names = known(node_systems()["/third"])
            assert Told.names == known(system)
            assert Told.names["seer"] == ("/one/seer", True)

    simulated(main)


def test_a_name_that_somebody_living_has_refuses_a_start_in_any_node() -> None:
    async def main() -> None:
        async with two_sites() as system:
            await settle_in(system, "/two", "bob")
            for where in ("/", "/one", "/two"):
                with pytest.raises(
                    StartRefused, match=r"NameTaken: the name 'bob' belongs to /two/bob; choose another"
                ):
                    await settle_in(system, where, "other", register="bob")
            assert system.whereis("bob", Person).path == "/two/bob"
            await site(system, "/two").call(Supervisor.terminate_child, "bob")  # its address is kept, and dead
            await settle_in(system, "/one", "other", register="bob")
            with pytest.raises(StartRefused, match="belongs to /one/other"):
                await site(system, "/two").call(Supervisor.restart_child, "bob")

    simulated(main)


def test_a_process_child_that_is_still_starting_has_its_name_already() -> None:
    async def main() -> None:
        async with two_sites() as system:
            first = asyncio.ensure_future(settle_in(system, "/", "bob", isolation="process"))
            await asyncio.sleep(0.05)  # no process takes less to come up
            for where in ("/one", "/two"):
                with pytest.raises(StartRefused, match="belongs to /bob"):
                    await settle_in(system, where, "other", register="bob")
            assert await first == "/bob"

    simulated(main)


def test_a_lost_node_frees_its_names_in_the_turn_in_which_it_is_known_to_be_lost() -> None:
    async def main() -> None:
        async with two_sites() as system:
            await settle_in(system, "/two", "bob")
            seer = system.whereis("seer", Person)
            await seer.call(Person.subscribe, "bob")
            system.whereis("two", Site).kill()
            await system.slots["/two"].target.ended()  # type: ignore[union-attr] # pyright: ignore
            assert "bob" not in system.registry_table.names
            await settle_in(system, "/one", "bob")
            assert await seer.call(Person.find, "bob") == "/one/bob"
            assert await seer.call(Person.heard) == [
                Unregistered("bob", "/two/bob", Killed()),
                Registered("bob", "/one/bob"),
            ]

    simulated(main)


def test_to_wait_for_a_name_is_to_wait_for_somebody_who_lives_wherever_that_is() -> None:
    async def main() -> None:
        async with two_sites() as system:
            seer = system.whereis("seer", Person)
            waiting = [asyncio.ensure_future(seer.call(Person.wait_for, "bob", 30.0))]
            waiting.append(asyncio.ensure_future(asyncio.wait_for(_path(system, "bob"), 30.0)))
            await asyncio.sleep(3.0)
            assert not any(wait.done() for wait in waiting)
            await settle_in(system, "/two", "bob")
            assert await asyncio.gather(*waiting) == ["/two/bob", "/two/bob"]
            await site(system, "/two").call(Supervisor.terminate_child, "bob")
            with pytest.raises(ActorDied, match="nobody lived registered as 'bob' in time"):
                await seer.call(Person.wait_for, "bob", 3.0)

    simulated(main)


async def _path(system: System, name: str) -> str:
    return (await system.wait_for(name, Person, timeout=60.0)).path


def others(system: System) -> dict[str, tuple[str, bool]]:
    """What a process knows of names, save that of the registry itself."""
    return {name: entry for name, entry in known(system).items() if name != "registry"}


def test_nobody_notices_the_death_of_the_authority() -> None:
    async def main() -> None:
        async with two_sites() as system:
            seer = system.whereis("seer", Person)
            await settle_in(system, "/two", "bob")
            await seer.call(Person.subscribe, None)
            await seer.call(Person.join, "g", 1)
            before = others(system)
            for number in range(20):
                system.registry.kill()
                # While nobody is there: names are found, taken and refused.
                assert others(system) == before
                assert others(node_systems()["/one"]) == before
                start = asyncio.ensure_future(settle_in(system, "/two", f"new-{number}"))
                with pytest.raises(StartRefused, match="belongs to /two/bob"):
                    await settle_in(system, "/two", "other", register="bob")
                before |= {f"new-{number}": (await start, True)}
                await asyncio.sleep(0.01)  # for the news to reach the other node
                assert others(node_systems()["/one"]) == before
            await asyncio.sleep(1.0)
            assert system.registry.incarnation == 21
            heard = [news for news in await seer.call(Person.heard) if news.name != "registry"]
            assert heard == [Registered(f"new-{n}", f"/two/new-{n}") for n in range(20)]
            assert await seer.call(Person.entries, "g") == [("/one/seer", 1)]

    simulated(main)


def test_subscribers_and_members_in_nodes_leave_by_ending() -> None:
    async def main() -> None:
        async with two_sites() as system:
            await settle_in(system, "/two", "bob")
            seer, bob = system.whereis("seer", Person), system.whereis("bob", Person)
            for number, somebody in enumerate((seer, bob)):
                await somebody.call(Person.subscribe, None)
                await somebody.call(Person.join, "g", number)
                await somebody.call(Person.update, "g", number + 10)
            assert await bob.call(Person.entries, "g") == [("/one/seer", 10), ("/two/bob", 11)]
            assert await seer.call(Person.dispatch, "g", "hello") == 2
            assert [await somebody.call(Person.noted) for somebody in (seer, bob)] == [["hello"], ["hello"]]
            bob.kill()
            await asyncio.sleep(1.0)
            assert await seer.call(Person.entries, "g") == [("/one/seer", 10)], "its new incarnation is no member"
            system.whereis("one", Site).kill()
            await asyncio.sleep(3.0)
            assert system.registry_table.groups == {}
            assert system.registry_table.subscribers == []
            assert system.registry_table.elsewhere == {"/two/bob": "up"}

    simulated(main)


def test_a_membership_is_never_that_of_a_later_incarnation() -> None:
    """What a member asked for is under way when it dies and is started anew (at once: it has no name to ask for)."""

    async def main() -> None:
        async with System.start(DynamicSupervisor.spec(name="all", max_restarts=100)) as system:
            root, one = system.ref_at("/", DynamicSupervisor), site(system, "/one")
            await root.call(DynamicSupervisor.start_child, child(Site, name="one", isolation="process"))
            await one.call(Supervisor.start_child, child(Person, name="it"))
            person(system, "/one/it").cast(Person.join_and_crash, "g")
            await asyncio.sleep(30.0)
            assert node_systems()["/one"].slots["/one/it"].incarnation == 2
            assert await system.entries("g", Person) == []
            assert system.registry_table.subscribers == []

    simulated(main)
    simulated(main, Fault(kind="slow_link", path="/one", message=4, seconds=0.4))


def test_callers_go_on_when_a_holder_moves() -> None:
    """From a node into the program, into another node, and down below one: the same reference, the same name."""

    async def main() -> None:
        async with two_sites() as system:
            root, seer = site(system, "/"), system.whereis("seer", Person)
            ref = system.ref_at("/team/bob", Person)
            for isolation in ("process", "inline", "process", "process", "inline"):
                team = Supervisor.spec(name="team", isolation=isolation, children=[child(Person, name="bob")])
                await root.call(Supervisor.start_child, team)
                assert system.whereis("bob", Person) == ref
                assert await ref.call(Person.noted) == []
                assert await seer.call(Person.ask_by_name, "bob") == []
                await root.call(Supervisor.terminate_child, "team")
                await root.call(Supervisor.delete_child, "team")
                with pytest.raises((ActorDied, DeadlineExceeded)), deadline(1.0):
                    await ref.call(Person.noted)

    simulated(main)
