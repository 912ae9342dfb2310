"""Code that will not end is called a zombie: visible, its end not announced, its name and address not given away."""

from __future__ import annotations

import asyncio

import pytest
from support.probes import Probe, Stubborn, actor_of, begun, insist, last_exit, running, worker
from support.worlds import everywhere, took, turns

from palmette.actors import (
    ActorDied,
    Crashed,
    Down,
    Killed,
    NameTaken,
    Refused,
    Registry,
    System,
)
from palmette.supervisors import StartRefused, Supervisor, child


@everywhere
async def test_an_actor_that_swallows_its_cancellation_is_a_zombie_until_its_code_ends() -> None:
    async with running(worker(Stubborn), worker(Probe, name="watcher")) as system:
        stubborn, watcher = system.whereis("it", Stubborn), system.whereis("watcher", Probe)
        await watcher.call(Probe.do, lambda me: me.monitor(stubborn))
        pending, queued = await begun(stubborn.call(Stubborn.hang), stubborn.call(Probe.seen))
        release = actor_of(stubborn).release
        stubborn.kill("you")
        for call in (pending, queued):
            with pytest.raises(ActorDied, match=r"killed \(you\)"):
                await call
        assert took(system.kill_grace)  # nobody waits for what a zombie will never answer
        assert stubborn.statistics().state == "zombie"
        assert system.statistics().zombies == 1
        assert [node.state for node in system.tree().children if node.name == "it"] == ["zombie"]
        with pytest.raises(ActorDied):
            await stubborn.call(Probe.seen)
        stubborn.send("anybody there?")
        await asyncio.sleep(20)
        assert await watcher.call(Probe.seen) == []  # its end is not announced while its code runs
        release.set()
        await turns(10)
        assert await watcher.call(Probe.seen) == [Down(stubborn, Killed("you"), 1)]
        assert not stubborn.is_alive()


@everywhere
async def test_a_zombies_name_is_not_given_away_while_its_code_runs() -> None:
    tree = Supervisor.spec(children=[child(Stubborn, name="it", shutdown=2)])
    async with System.start(tree) as system:
        root, stubborn = system.whereis("/", Supervisor), system.whereis("it", Stubborn)
        call = asyncio.create_task(stubborn.call(Stubborn.hang))
        await turns()
        release = actor_of(stubborn).release
        await root.call(Supervisor.terminate_child, "it")
        with pytest.raises(Exception, match="its address is still taken by a zombie incarnation"):
            await root.call(Supervisor.restart_child, "it")
        release.set()
        await turns(10)
        await root.call(Supervisor.restart_child, "it")
        assert await system.whereis("it", Stubborn).call(Probe.seen) == []
        with pytest.raises(ActorDied):
            await call


@everywhere
async def test_a_task_that_will_not_be_cancelled_makes_its_actor_a_zombie_however_it_ended() -> None:
    async with running(worker(Stubborn)) as system:
        stubborn = system.whereis("it", Stubborn)
        release = actor_of(stubborn).release
        await stubborn.call(Probe.do, lambda me: me.start_task(insist(release)))
        await turns()
        with pytest.raises(ActorDied, match="boom"):
            await stubborn.call(Probe.fail)
        assert stubborn.statistics().state == "zombie"
        release.set()
        await turns(10)
        assert isinstance(last_exit(system, "/it").reason, Crashed)


@everywhere
async def test_a_given_up_zombie_leaves_no_address_behind_when_it_ends() -> None:
    async with running(worker(Stubborn, shutdown="brutal")) as system:
        root, stubborn = system.whereis("/", Supervisor), system.whereis("it", Stubborn)
        call = asyncio.create_task(stubborn.call(Stubborn.hang))
        await turns()
        release = actor_of(stubborn).release
        await root.call(Supervisor.terminate_child, "it")  # a temporary child: forgotten
        assert "/it" in system.slots
        release.set()
        await turns(10)
        assert "/it" not in system.slots
        with pytest.raises(ActorDied):
            await call


@everywhere
async def test_the_system_ends_in_bounded_time_beside_a_zombie() -> None:
    release = asyncio.Event()

    class Undying(Probe):
        async def continued(self) -> None:
            await insist(release)

    async with running(worker(Undying, shutdown=3)):
        await turns()
    assert took(7)
    release.set()
    await turns(10)


@everywhere
async def test_terminate_says_where_a_zombie_stays_behind() -> None:
    async with running(worker(Stubborn)) as system:
        stubborn = system.whereis("it", Stubborn)
        call = asyncio.create_task(stubborn.call(Stubborn.hang))
        await turns()
        release = actor_of(stubborn).release
        assert not await stubborn.terminate(timeout=3)
        assert took(6)
        release.set()
        assert await stubborn.terminate()
        with pytest.raises(ActorDied, match="did not stop within 3 s"):
            await call


@everywhere
async def test_a_name_that_a_zombie_holds_is_refused_to_others_until_its_code_ends() -> None:
    async with running(worker(Stubborn, register="bob"), worker(Probe, name="other")) as system:
        stubborn, other, registry = system.whereis("bob", Stubborn), system.whereis("other", Probe), system.registry
        root = system.whereis("/", Supervisor)
        [call] = await begun(stubborn.call(Stubborn.hang))
        await registry.call(Registry.join, "group", stubborn)
        release = actor_of(stubborn).release
        stubborn.kill()
        with pytest.raises(ActorDied):
            await call
        assert stubborn.statistics().state == "zombie"
        taken = r"the name 'bob' belongs to /it, a zombie: it was killed, and its code runs on; the name is free when"
        with pytest.raises(Refused, match=taken):
            await registry.call(Registry.register, "bob", other)
        with pytest.raises(StartRefused, match=taken):
            await root.call(Supervisor.start_child, worker(Probe, name="new", register="bob"))
        with pytest.raises(NameTaken, match=taken):
            system.registry_table.register("bob", system.slots["/other"])
        assert await registry.call(Registry.members, "group") == []
        release.set()
        await turns(10)
        await registry.call(Registry.register, "bob", other)
        assert system.whereis("bob", Probe) == other
