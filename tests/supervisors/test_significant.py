"""Significant children end their supervisor when their work is done."""

from __future__ import annotations

import asyncio

import pytest
from supervisors_support import Worker, at, crash, diary, end, finish, root_of, states, workers
from support.probes import Boom, ended
from support.worlds import everywhere, turns

from palmette.actors import Reason, Shutdown, System
from palmette.supervisors import Backoff, BadSpec, ChildSpec, Supervisor
from palmette.supervisors.supervisor import AutoShutdown, Strategy


def tree(
    auto_shutdown: AutoShutdown, *children: ChildSpec[Worker], strategy: Strategy = "one_for_one"
) -> ChildSpec[Supervisor]:
    return Supervisor.spec(auto_shutdown=auto_shutdown, children=children, strategy=strategy, max_restarts=100)


def significant(names: str, **options: object) -> list[ChildSpec[Worker]]:
    return workers(names, "transient", significant=True, **options)


async def end_of(system: System) -> Reason | None:
    """Why the root has ended, if it has."""
    await turns(200)
    return system.slots["/"].last_exit


@everywhere
async def test_any_significant_end_ends_the_supervisor_and_stops_the_others_in_reverse() -> None:
    async with System.start(tree("any_significant", *workers("a"), *significant("bc"), *workers("d"))) as system:
        diary()
        await finish(system, "b")
        assert await end_of(system) == Shutdown("completed")
        assert diary() == "-d -c -a"


@everywhere
async def test_all_significant_waits_for_the_last_one() -> None:
    async with System.start(tree("all_significant", *workers("a"), *significant("bcd"))) as system:
        await finish(system, "b")
        await finish(system, "d", Shutdown("done"))
        assert await end_of(system) is None
        await finish(system, "c")
        assert await end_of(system) == Shutdown("completed")


@everywhere
async def test_an_insignificant_end_ends_nothing() -> None:
    async with System.start(
        tree("any_significant", *significant("a"), *workers("b", "transient"), *workers("c", "temporary"))
    ) as system:
        await finish(system, "b")
        await crash(system, "c")
        assert await end_of(system) is None


@everywhere
async def test_a_significant_crash_that_leads_to_a_restart_ends_nothing() -> None:
    async with System.start(tree("any_significant", *significant("a"))) as system:
        await crash(system, "a")
        assert await end_of(system) is None
        assert await at(system, "a").call(Worker.ping) == 2


@everywhere
async def test_a_significant_temporary_child_counts_however_it_ends() -> None:
    async with System.start(tree("any_significant", *workers("a", "temporary", significant=True))) as system:
        await crash(system, "a")
        assert await end_of(system) == Shutdown("completed")


@everywhere
async def test_a_significant_child_that_a_rule_lets_go_has_ended_by_itself() -> None:
    async with System.start(tree("any_significant", *significant("a", rules={"Boom": "stop"}))) as system:
        await crash(system, "a")
        assert await end_of(system) == Shutdown("completed")


@everywhere
async def test_terminating_a_significant_child_ends_nothing_but_counts_as_ended() -> None:
    async with System.start(tree("all_significant", *significant("ab"))) as system:
        await root_of(system).call(Supervisor.terminate_child, "a")
        assert await end_of(system) is None
        await finish(system, "b")
        assert await end_of(system) == Shutdown("completed")


@everywhere
async def test_a_significant_bystander_of_a_group_restart_ends_nothing() -> None:
    async with System.start(
        tree("any_significant", *significant("a"), *workers("b"), strategy="one_for_all")
    ) as system:
        await crash(system, "b")
        assert await end_of(system) is None
        assert await states(system) == {"a": "running", "b": "running"}


@everywhere
async def test_a_significant_child_that_waits_for_its_restart_counts_as_active() -> None:
    backoff = Backoff(min=10, jitter=0)
    async with System.start(tree("all_significant", *significant("ab", backoff=backoff))) as system:
        await crash(system, "a")
        await finish(system, "b")
        assert await end_of(system) is None
        await system.wait_for("/a", Worker)
        await finish(system, "a")
        assert await end_of(system) == Shutdown("completed")


@everywhere
async def test_a_significant_child_that_waits_with_its_group_counts_as_active() -> None:
    middle = workers("b", backoff=Backoff(min=10, jitter=0))
    async with System.start(
        tree("all_significant", *significant("a"), *middle, *significant("c"), strategy="rest_for_one")
    ) as system:
        await crash(system, "b")  # c is down until b is back
        await finish(system, "a")
        assert await end_of(system) is None
        await system.wait_for("/c", Worker)
        assert (await states(system))["c"] == "running"
        await finish(system, "c")
        assert await end_of(system) == Shutdown("completed")


@everywhere
async def test_a_failed_start_that_a_rule_lets_go_counts_too() -> None:
    async with System.start(
        tree("any_significant", *workers("a"), *significant("b", rules={"Boom": "stop"}), strategy="one_for_all")
    ) as system:
        Worker.fail["b"] = 1
        await crash(system, "a")
        assert await end_of(system) == Shutdown("completed")


@everywhere
async def test_completion_climbs_up_through_significant_supervisors() -> None:
    inner = Supervisor.spec(
        name="inner", restart="transient", significant=True, auto_shutdown="any_significant", children=significant("x")
    )
    async with System.start(Supervisor.spec(auto_shutdown="all_significant", children=[inner])) as system:
        end = asyncio.create_task(ended(root_of(system)))
        system.ref_at("/inner/x", Worker).cast(Worker.end, Shutdown("found it"))
        assert await end == Shutdown("completed")


@everywhere
async def test_significant_children_can_be_added_where_they_mean_something() -> None:
    async with System.start(tree("any_significant")) as system:
        await root_of(system).call(Supervisor.start_child, significant("a")[0])
        await finish(system, "a")
        assert await end_of(system) == Shutdown("completed")


def test_significance_must_mean_something() -> None:
    with pytest.raises(BadSpec, match=r"significant children \(a, b\) need auto_shutdown other than never"):
        Supervisor.spec(children=significant("ab"))
    with pytest.raises(BadSpec, match="a permanent child never ends by itself, so it cannot be significant"):
        workers("a", significant=True)
    with pytest.raises(BadSpec, match="auto_shutdown is never, any_significant or all_significant, not 'some'"):
        Supervisor.spec(auto_shutdown="some")  # pyright: ignore[reportArgumentType]


@everywhere
async def test_a_significant_end_counts_also_when_a_sibling_crashes_at_the_same_time() -> None:
    async with System.start(
        tree("any_significant", *workers("a"), *significant("b"), strategy="one_for_all")
    ) as system:
        await end(system, {"a": Boom("crash"), "b": Shutdown("found it")})
        assert await end_of(system) == Shutdown("completed")
