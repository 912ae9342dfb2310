"""Children can be added, ended, started again, forgotten and counted while the tree runs."""

from __future__ import annotations

import asyncio

import pytest
from supervisors_support import Worker, at, crash, diary, finish, incarnations, root_of, states, workers
from support.probes import Probe, actor_of, begun
from support.worlds import everywhere, turns

from palmette.actors import ActorDied, Killed, System
from palmette.supervisors import (
    ChildCounts,
    ChildExists,
    ChildInfo,
    DynamicSupervisor,
    NoSuchChild,
    StartRefused,
    Supervisor,
    child,
)


@everywhere
async def test_a_child_that_is_added_takes_the_last_place_in_the_order() -> None:
    async with System.start(Supervisor.spec(children=workers("ab"), strategy="rest_for_one")) as system:
        assert await root_of(system).call(Supervisor.start_child, workers("c")[0]) == "/c"
        assert system.whereis("c", Worker).is_alive()
        diary()
        await crash(system, "b")
        assert diary() == "-c +b +c"
    assert diary() == "-c -b -a"


@everywhere
async def test_a_name_can_be_used_once() -> None:
    async with System.start(Supervisor.spec(children=workers("a"))) as system:
        root = root_of(system)
        with pytest.raises(ChildExists, match=r"/ has a child 'a' already \(running\)"):
            await root.call(Supervisor.start_child, workers("a")[0])
        await root.call(Supervisor.terminate_child, "a")
        with pytest.raises(ChildExists, match=r"already \(stopped\)"):
            await root.call(Supervisor.start_child, workers("a")[0])


@everywhere
async def test_a_child_that_does_not_start_is_not_kept_and_hurts_nobody() -> None:
    async with System.start(Supervisor.spec(children=workers("a"), max_restarts=0)) as system:
        Worker.fail["b"] = 1
        with pytest.raises(StartRefused, match="/b could not start: Boom: no start of b"):
            await root_of(system).call(Supervisor.start_child, workers("b")[0])
        assert await states(system) == {"a": "running"}
        assert "/b" not in system.slots
        await root_of(system).call(Supervisor.start_child, workers("b")[0])


@everywhere
async def test_a_significant_child_is_not_added_where_it_means_nothing() -> None:
    async with System.start(Supervisor.spec()) as system:
        with pytest.raises(StartRefused, match="'a' is significant, but / has auto_shutdown=never"):
            await root_of(system).call(Supervisor.start_child, workers("a", "transient", significant=True)[0])


@everywhere
async def test_terminating_keeps_the_spec_and_is_idempotent() -> None:
    async with System.start(Supervisor.spec(children=workers("ab"))) as system:
        for _ in range(2):
            await root_of(system).call(Supervisor.terminate_child, "a")
        assert await states(system) == {"a": "stopped", "b": "running"}
        assert at(system, "a").incarnation == 1
        await root_of(system).call(Supervisor.restart_child, "a")
        assert await states(system) == {"a": "running", "b": "running"}


@everywhere
async def test_terminating_a_temporary_child_forgets_it() -> None:
    async with System.start(Supervisor.spec(children=workers("a", "temporary"))) as system:
        await root_of(system).call(Supervisor.terminate_child, "a")
        assert await states(system) == {}
        await root_of(system).call(Supervisor.start_child, workers("a")[0])


@everywhere
async def test_only_a_child_that_is_down_can_be_restarted_or_forgotten() -> None:
    async with System.start(Supervisor.spec(children=[*workers("a"), *workers("b", "transient")])) as system:
        root = root_of(system)
        with pytest.raises(ChildExists, match="/a is running"):
            await root.call(Supervisor.restart_child, "a")
        with pytest.raises(ChildExists, match="/a is running; terminate it first"):
            await root.call(Supervisor.delete_child, "a")
        await finish(system, "b")
        await root.call(Supervisor.restart_child, "b")
        assert incarnations(system, "b") == [2]
        await finish(system, "b")
        await root.call(Supervisor.delete_child, "b")
        assert await states(system) == {"a": "running"}
        assert "/b" not in system.slots
        with pytest.raises(ActorDied, match="'b'"):
            system.whereis("b", Worker)


@everywhere
async def test_a_restart_by_hand_that_fails_keeps_the_spec() -> None:
    async with System.start(Supervisor.spec(children=workers("a"), max_restarts=0)) as system:
        await root_of(system).call(Supervisor.terminate_child, "a")
        Worker.fail["a"] = 1
        with pytest.raises(StartRefused, match="no start of a"):
            await root_of(system).call(Supervisor.restart_child, "a")
        assert await states(system) == {"a": "stopped"}
        await root_of(system).call(Supervisor.restart_child, "a")


@pytest.mark.parametrize("what", ["terminate_child", "restart_child", "delete_child"])
@everywhere
async def test_an_unknown_child_is_refused_with_the_known_ones(what: str) -> None:
    async with System.start(Supervisor.spec(children=workers("ab"))) as system:
        with pytest.raises(NoSuchChild, match="/ has no child 'c'; it has: a, b"):
            await root_of(system).call(getattr(Supervisor, what), "c")


@everywhere
async def test_children_are_listed_in_start_order_and_counted() -> None:
    children = [*workers("b"), Supervisor.spec(name="s"), DynamicSupervisor.spec(name="d"), *workers("a", "transient")]
    async with System.start(Supervisor.spec(children=children)) as system:
        await crash(system, "b")
        await finish(system, "a")
        assert await root_of(system).call(Supervisor.which_children) == [
            ChildInfo(name="b", path="/b", state="running", kind="Worker", supervisor=False, restarts=1),
            ChildInfo(name="s", path="/s", state="running", kind="Supervisor", supervisor=True, restarts=0),
            ChildInfo(name="d", path="/d", state="running", kind="DynamicSupervisor", supervisor=True, restarts=0),
            ChildInfo(name="a", path="/a", state="completed", kind="Worker", supervisor=False, restarts=0),
        ]
        assert await root_of(system).call(Supervisor.count_children) == ChildCounts(
            specs=4, active=3, supervisors=2, workers=2
        )


@everywhere
async def test_a_child_that_died_at_the_same_time_is_terminated_and_not_restarted() -> None:
    async with System.start(Supervisor.spec(children=workers("ab"), max_restarts=0)) as system:
        a = at(system, "a")
        a.kill()
        await root_of(system).call(Supervisor.terminate_child, "a")
        await turns(200)
        assert await states(system) == {"a": "stopped", "b": "running"}
        assert a.incarnation == 1


@everywhere
async def test_the_late_news_of_a_death_is_not_taken_for_its_successors() -> None:
    async with System.start(DynamicSupervisor.spec(name="pool", max_restarts=0)) as system:
        pool = system.whereis("/", DynamicSupervisor)
        spec = workers("a")[0]
        await pool.call(DynamicSupervisor.start_child, spec)
        pool.suspend()
        ending = await begun(pool.call(DynamicSupervisor.terminate_child, "a"))
        starting = await begun(pool.call(DynamicSupervisor.start_child, spec))
        at(system, "a").kill()  # the news of it comes behind the two
        await turns(200)
        pool.resume()
        await asyncio.gather(*ending, *starting)
        await turns(200)
        assert await at(system, "a").call(Worker.ping) == at(system, "a").incarnation
        assert pool.incarnation == 1
        assert pool.is_alive()


@everywhere
async def test_brutal_kills_and_infinity_waits() -> None:
    brutal, patient = (
        child(Probe, name=name, shutdown=shutdown, restart="temporary")  # pyright: ignore[reportArgumentType]
        for name, shutdown in (("brutal", "brutal"), ("patient", "infinity"))
    )
    async with System.start(Supervisor.spec(children=[brutal, patient])) as system:
        calls = [
            asyncio.create_task(system.whereis(name, Probe).call(Probe.pass_gate)) for name in ("brutal", "patient")
        ]
        await turns()
        gate = actor_of(system.whereis("patient", Probe)).gate
        await root_of(system).call(Supervisor.terminate_child, "brutal")
        assert system.why("/brutal")[-1].reason == Killed("by its supervisor")
        waiting = asyncio.create_task(root_of(system).call(Supervisor.terminate_child, "patient"))
        await asyncio.sleep(10)
        assert not waiting.done()
        gate.set()
        await waiting
        assert await calls[1] == "passed"
        with pytest.raises(ActorDied):
            await calls[0]


@everywhere
async def test_a_child_that_ends_its_own_supervisors_patience_gets_no_answer_but_its_end() -> None:
    class Suicidal(Probe):
        async def continued(self) -> None:
            await root_of(self.system).call(Supervisor.terminate_child, "it")

    async with System.start(Supervisor.spec(children=[child(Suicidal, name="it", shutdown=3)])) as system:
        await asyncio.sleep(10)
        assert await states(system) == {"it": "stopped"}
        assert system.why("/it")[-1].reason == Killed("did not stop within 3 s")
