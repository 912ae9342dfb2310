"""Names and groups are kept true by deaths, and a stale entry never stands in anybody's way."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from support.probes import Probe, actor_of, ended, running, worker
from support.worlds import everywhere, turns

from palmette.actors import (
    Actor,
    ActorDied,
    Killed,
    NameTaken,
    Refused,
    Registered,
    Registry,
    Shutdown,
    System,
    Unregistered,
)
from palmette.actors.registry_table import RegistryTable
from palmette.actors.slot import Slot
from palmette.supervisors import DynamicSupervisor, StartRefused, Supervisor, child


@everywhere
async def test_a_child_is_found_by_its_name_and_by_its_address() -> None:
    tree = Supervisor.spec(
        children=[Supervisor.spec(name="inner", children=[child(Probe, name="leaf", register="bob")])]
    )
    async with System.start(tree) as system:
        assert system.whereis("bob", Probe).path == "/inner/leaf"
        assert system.whereis("/inner/leaf", Probe) == system.whereis("bob", Probe)
        assert await system.lookup("bob", Probe) == system.whereis("bob", Probe)
        registry = system.whereis("registry", Registry)
        assert await registry.call(Registry.whereis, "bob") == "/inner/leaf"
        assert await registry.call(Registry.whereis, "nobody") is None
        assert await registry.call(Registry.names) == {
            "bob": "/inner/leaf",
            "inner": "/inner",
            "registry": "/system/registry",
        }


@everywhere
async def test_an_unknown_name_is_an_error_that_lists_the_known_ones() -> None:
    async with running(worker(Probe)) as system:
        with pytest.raises(ActorDied, match=r"'bob' \(registered are: it, registry\)"):
            system.whereis("bob", Probe)


@everywhere
async def test_a_name_outlives_restarts_and_is_free_when_its_address_is_given_up() -> None:
    async with running(child(Probe, name="it"), worker(Probe, name="brief")) as system:
        it, brief = system.whereis("it", Probe), system.whereis("brief", Probe)
        for ref in (it, brief):
            with pytest.raises(ActorDied):
                await ref.call(Probe.fail)
        await system.wait_for("it", Probe)
        await turns()
        assert system.whereis("it", Probe) == it
        with pytest.raises(ActorDied):
            system.whereis("brief", Probe)


@everywhere
async def test_a_name_that_somebody_living_has_refuses_a_start_and_hurts_nobody() -> None:
    async with running(worker(Probe, register="bob")) as system:
        root = system.whereis("/", Supervisor)
        with pytest.raises(StartRefused, match=r"NameTaken: the name 'bob' belongs to /it; choose another, or stop"):
            await root.call(Supervisor.start_child, child(Probe, name="other", register="bob"))
        assert system.whereis("bob", Probe).path == "/it"
        assert root.incarnation == 1


@everywhere
async def test_a_name_whose_holder_is_dead_can_be_taken_over() -> None:
    async with running(child(Probe, name="old", register="bob")) as system:
        root = system.whereis("/", Supervisor)
        await root.call(Supervisor.terminate_child, "old")
        await root.call(Supervisor.start_child, child(Probe, name="new", register="bob"))
        assert system.whereis("bob", Probe).path == "/new"
        with pytest.raises(StartRefused, match="the name 'bob' belongs to /new"):
            await root.call(Supervisor.restart_child, "old")
        await root.call(Supervisor.delete_child, "old")
        assert system.whereis("bob", Probe).path == "/new"


@everywhere
async def test_names_below_a_dynamic_supervisor_are_not_registered_by_themselves() -> None:
    def episode(name: str) -> object:
        pool = DynamicSupervisor.spec(name="pool")
        return Supervisor.spec(name=name, restart="temporary", children=[child(Probe, name="agent"), pool])

    async with System.start(DynamicSupervisor.spec(name="episodes")) as system:
        root = system.whereis("/", DynamicSupervisor)
        for name in ("e1", "e2"):
            await root.call(DynamicSupervisor.start_child, episode(name))  # pyright: ignore[reportArgumentType]
        assert system.whereis("/e2/agent", Probe).is_alive()
        assert system.whereis("/e2/pool", DynamicSupervisor).is_alive()
        assert list(system.registry_table.names) == ["registry"]


@everywhere
async def test_subscribers_are_told_of_arrivals_deaths_and_restarts_once_each() -> None:
    async with running(worker(Probe, name="watcher")) as system:
        watcher, root = system.whereis("watcher", Probe), system.whereis("/", Supervisor)
        registry = system.whereis("registry", Registry)
        for _ in range(2):  # to subscribe twice is to subscribe once
            await registry.call(Registry.subscribe, watcher, "it")
        await root.call(Supervisor.start_child, child(Probe, name="it"))
        await root.call(Supervisor.start_child, child(Probe, name="unwatched"))
        it = system.whereis("it", Probe)
        it.kill("x")
        await ended(it)
        await system.wait_for("it", Probe)
        await root.call(Supervisor.terminate_child, "it")
        assert await watcher.call(Probe.seen) == [
            Registered("it", "/it"),
            Unregistered("it", "/it", Killed("x")),
            Registered("it", "/it"),
            Unregistered("it", "/it", Shutdown()),
        ]


@everywhere
async def test_a_subscriber_to_everything_hears_of_all_names() -> None:
    async with running(worker(Probe, name="watcher")) as system:
        watcher, root = system.whereis("watcher", Probe), system.whereis("/", Supervisor)
        await system.whereis("registry", Registry).call(Registry.subscribe, watcher)
        for name in "ab":
            await root.call(Supervisor.start_child, child(Probe, name=name))
        assert await watcher.call(Probe.seen) == [Registered("a", "/a"), Registered("b", "/b")]


@everywhere
async def test_a_subscription_ends_with_its_subscriber() -> None:
    async with running(worker(Probe, name="watcher"), child(Probe, name="it")) as system:
        watcher, registry = system.whereis("watcher", Probe), system.whereis("registry", Registry)
        await registry.call(Registry.subscribe, watcher)
        await watcher.stop()
        await turns()
        assert system.registry_table.subscribers == []
        it = system.whereis("it", Probe)
        it.kill()
        await ended(it)
        assert system.statistics().dead_letters == 0


@everywhere
async def test_the_registry_comes_back_with_all_it_knew() -> None:
    async with running(worker(Probe, name="watcher"), child(Probe, name="it")) as system:
        watcher, registry = system.whereis("watcher", Probe), system.whereis("registry", Registry)
        await registry.call(Registry.subscribe, watcher)
        registry.send("a stray message")
        registry.kill("for a test")
        await ended(registry)
        registry = await system.wait_for("registry", Registry)
        assert await registry.call(Registry.whereis, "it") == "/it"
        it = system.whereis("it", Probe)
        it.kill()
        await ended(it)
        await system.wait_for("it", Probe)
        await turns()
        told = [news for news in await watcher.call(Probe.seen) if getattr(news, "name", "") == "it"]
        assert [type(news) for news in told] == [Unregistered, Registered]
        await watcher.stop()
        await turns()
        assert system.registry_table.subscribers == []


@everywhere
async def test_an_actor_can_be_given_further_names() -> None:
    async with running(child(Probe, name="a"), child(Probe, name="b")) as system:
        a, b = system.whereis("a", Probe), system.whereis("b", Probe)
        registry = system.whereis("registry", Registry)
        await registry.call(Registry.register, "leader", a)
        await registry.call(Registry.register, "leader", a)
        with pytest.raises(Refused, match="the name 'leader' belongs to /a"):
            await registry.call(Registry.register, "leader", b)
        a.kill()
        await ended(a)
        await system.wait_for("leader", Actor)
        assert system.whereis("leader", Probe) == a
        await registry.call(Registry.unregister, "leader")
        await registry.call(Registry.unregister, "leader")
        await registry.call(Registry.register, "leader", b)
        assert system.whereis("leader", Probe) == b


def test_a_living_holder_keeps_its_name() -> None:
    table = RegistryTable()
    slot, other = Slot("/a"), Slot("/b")
    table.register("x", slot)
    table.register("x", other)  # nobody lives at /a
    other.target = SimpleNamespace(state="running")  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(NameTaken, match="belongs to /b"):
        table.register("x", slot)
    table.owner_released(slot)
    assert table.names == {"x": other}
    table.owner_released(other)
    assert table.names == {}


@everywhere
async def test_waiting_for_a_name_sees_the_next_incarnation_and_not_a_dying_one() -> None:
    async with running(child(Probe, name="it")) as system:
        it = system.whereis("it", Probe)
        call = asyncio.create_task(it.call(Probe.pass_gate))
        await turns()
        old = actor_of(it)
        it.kill()
        assert await system.wait_for("it", Probe) == it
        assert actor_of(it) is not old
        with pytest.raises(ActorDied):
            await call


@everywhere
async def test_the_name_of_a_dead_owner_is_free_at_once() -> None:
    async with running(worker(Probe, name="a"), worker(Probe, name="b")) as system:
        a, b = system.whereis("a", Probe), system.whereis("b", Probe)
        await system.registry.call(Registry.register, "leader", a)
        a.kill()
        await ended(a)
        system.registry_table.register("leader", system.slots["/b"])
        assert system.whereis("leader", Probe) == b
        assert await system.registry.call(Registry.whereis, "leader") == "/b"
