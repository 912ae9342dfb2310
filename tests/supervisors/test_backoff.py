"""Restarts may wait: how long, from which end on, and who may end the wait."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from supervisors_support import Worker, at, crash, incarnations, root_of, states, workers
from support.probes import Boom
from support.worlds import ROUNDING, everywhere, is_real, now, simulated, took, turns

from palmette.actors import ActorDied, MaxRestarts, System
from palmette.supervisors import Backoff, BadSpec, DynamicSupervisor, Supervisor, child
from palmette.supervisors.supervisor import Strategy

EXACT = Backoff(min=1, max=60, factor=2, jitter=0, reset_after=100)
LONG = Backoff(min=20, jitter=0)
"""Long enough to look at a child that waits, also in real time."""


class RateLimited(Exception):
    retryable = True

    def __init__(self, retry_after: float | None = None) -> None:
        super().__init__("slow down")
        self.retry_after = retry_after


async def waits(system: System, name: str, times: int, error: BaseException | None = None) -> list[float]:
    """Crash a child as soon as it is up, ``times`` times; how long each restart waited."""
    found: list[float] = []
    for _ in range(times):
        before = now()
        at(system, name).cast(Worker.end, error or Boom("crash"))
        await turns(200)
        await system.wait_for(f"/{name}", Worker, timeout=10_000)
        found.append(now() - before)
    return found


def lasted(found: list[float], *expected: float) -> bool:
    """Whether the waits were these; in real time, whether none was shorter."""
    if is_real():
        return all(wait >= least - ROUNDING for wait, least in zip(found, expected, strict=True))
    return found == pytest.approx(expected, abs=1e-3)


@everywhere
async def test_each_restart_in_a_row_waits_longer_up_to_the_maximum() -> None:
    spec = child(Worker, name="a", backoff=Backoff(min=0.5, max=4, factor=2, jitter=0))
    async with System.start(Supervisor.spec(children=[spec], max_restarts=100)) as system:
        assert lasted(await waits(system, "a", 5), 0.5, 1, 2, 4, 4)


@simulated(why="one second decides")
async def test_a_child_that_lived_long_enough_begins_again_at_the_minimum() -> None:
    async with System.start(Supervisor.spec(children=workers("a", backoff=EXACT), max_restarts=100)) as system:
        assert lasted(await waits(system, "a", 3), 1, 2, 4)
        await asyncio.sleep(99)
        assert lasted(await waits(system, "a", 1), 8)
        await asyncio.sleep(100)
        assert lasted(await waits(system, "a", 2), 1, 2)


@simulated(why="counts attempts within a span of time")
async def test_failed_starts_lengthen_the_wait_and_never_count_as_a_life() -> None:
    backoff = Backoff(min=30, max=30, jitter=0, reset_after=10, give_up_after=100)
    spec = child(Worker, name="a", restart="permanent", backoff=backoff, rules={"Boom": "backoff"})
    inner = Supervisor.spec(name="inner", children=[spec], max_restarts=0, restart="temporary")
    async with System.start(Supervisor.spec(children=[inner])) as system:
        Worker.fail["a"] = 1000
        system.ref_at("/inner/a", Worker).cast(Worker.end, Boom("crash"))
        await asyncio.sleep(1000)
        # At 0, 30, 60 and 90 s; the failure at 120 s is past the patience of 100.
        assert 1000 - Worker.fail["a"] == 4
        reason = system.why("/inner")[-1].reason
        assert isinstance(reason, MaxRestarts)
        assert (reason.restarts, reason.seconds) == (4, 100)


@everywhere
async def test_a_servers_retry_after_is_a_floor() -> None:
    async with System.start(Supervisor.spec(children=workers("a", backoff=EXACT), max_restarts=100)) as system:
        assert lasted(await waits(system, "a", 2, RateLimited(10)), 10, 10)
        assert lasted(await waits(system, "a", 1, RateLimited(2)), 4)


@everywhere
async def test_restarts_of_the_backoff_kind_do_not_spend_the_budget() -> None:
    spec = child(Worker, name="a", backoff=EXACT, rules={"retryable": "backoff"})
    async with System.start(Supervisor.spec(children=[spec], max_restarts=1)) as system:
        assert lasted(await waits(system, "a", 3, RateLimited()), 1, 2, 4)
        await crash(system, "a")
        await system.wait_for("/a", Worker)
        assert await states(system) == {"a": "running"}


@everywhere
async def test_restarts_of_the_backoff_kind_wait_also_where_the_spec_has_no_backoff() -> None:
    spec = child(Worker, name="a", rules={"retryable": "backoff"})
    async with System.start(Supervisor.spec(children=[spec], max_restarts=0)) as system:
        assert all(wait > 0 for wait in await waits(system, "a", 3, RateLimited()))


@simulated(why="counts attempts within a span of time")
async def test_restarts_of_the_backoff_kind_end_when_the_patience_is_at_its_end() -> None:
    backoff = Backoff(min=10, max=10, jitter=0, reset_after=1000, give_up_after=35)
    spec = child(Worker, name="a", backoff=backoff, rules={"retryable": "backoff"})

    async def main() -> None:
        async with System.start(Supervisor.spec(children=[spec], max_restarts=0)) as system:
            assert await waits(system, "a", 4, RateLimited()) == [10] * 4
            at(system, "a").cast(Worker.end, RateLimited())
            await asyncio.Event().wait()

    with pytest.raises(ActorDied, match="'a' was restarted 4 times within 35 s; last: RateLimited: slow down"):
        await main()


@everywhere
async def test_a_child_whose_first_wait_is_longer_than_its_patience_gets_no_second_one() -> None:
    backoff = Backoff(min=10, max=10, jitter=0, reset_after=1000, give_up_after=5)
    inner = Supervisor.spec(
        name="inner", restart="temporary", children=workers("a", backoff=backoff, rules={"retryable": "backoff"})
    )
    async with System.start(Supervisor.spec(children=[inner])) as system:
        a = system.ref_at("/inner/a", Worker)
        a.cast(Worker.end, RateLimited())
        await turns()
        await system.wait_for("/inner/a", Worker)
        a.cast(Worker.end, RateLimited())
        await turns(200)
        reason = system.why("/inner")[-1].reason
        assert isinstance(reason, MaxRestarts)
        assert (reason.restarts, reason.seconds) == (1, 5)


@simulated(why="lives for minutes")
async def test_a_long_life_renews_the_patience() -> None:
    backoff = Backoff(min=10, max=10, jitter=0, reset_after=50, give_up_after=15)
    spec = child(Worker, name="a", backoff=backoff, rules={"retryable": "backoff"})
    async with System.start(Supervisor.spec(children=[spec], max_restarts=0)) as system:
        for _ in range(5):
            assert lasted(await waits(system, "a", 2, RateLimited()), 10, 10)
            await asyncio.sleep(60)


@everywhere
async def test_a_child_that_waits_counts_as_restarting_and_can_be_terminated() -> None:
    async with System.start(Supervisor.spec(children=workers("ab", backoff=LONG), max_restarts=100)) as system:
        await crash(system, "a")
        assert await states(system) == {"a": "restarting", "b": "running"}
        await root_of(system).call(Supervisor.terminate_child, "a")
        await asyncio.sleep(25)
        assert await states(system) == {"a": "stopped", "b": "running"}
        await root_of(system).call(Supervisor.restart_child, "a")
        assert incarnations(system, "a") == [2]


@simulated(why="a longer wait would look the same")
async def test_a_restart_by_hand_begins_the_row_anew() -> None:
    async with System.start(Supervisor.spec(children=workers("a", backoff=EXACT), max_restarts=100)) as system:
        assert lasted(await waits(system, "a", 3), 1, 2, 4)
        await root_of(system).call(Supervisor.terminate_child, "a")
        await root_of(system).call(Supervisor.restart_child, "a")
        assert lasted(await waits(system, "a", 1), 1)


@everywhere
async def test_a_system_stops_at_once_beside_a_child_that_waits() -> None:
    async with System.start(Supervisor.spec(children=workers("a", backoff=LONG))) as system:
        await crash(system, "a")
    assert took(0)


@everywhere
async def test_a_group_waits_with_the_member_that_waits() -> None:
    children = [*workers("a"), *workers("b", backoff=LONG), *workers("c")]
    async with System.start(Supervisor.spec(strategy="rest_for_one", children=children)) as system:
        await crash(system, "b")
        assert await states(system) == {"a": "running", "b": "restarting", "c": "undefined"}
        await system.wait_for("/c", Worker)
        assert await states(system) == {"a": "running", "b": "running", "c": "running"}


@everywhere
async def test_a_wait_is_called_off_by_the_restart_of_a_wider_group() -> None:
    children = [*workers("a"), *workers("b", backoff=LONG)]
    async with System.start(Supervisor.spec(strategy="rest_for_one", children=children)) as system:
        await crash(system, "b")
        await crash(system, "a")  # which starts b, too
        assert incarnations(system, "ab") == [2, 2]
        await asyncio.sleep(25)
        assert incarnations(system, "ab") == [2, 2]


@everywhere
async def test_children_of_a_dynamic_supervisor_wait_too_and_keep_their_place() -> None:
    async with System.start(DynamicSupervisor.spec(name="pool", max_children=1)) as system:
        pool = system.whereis("/", DynamicSupervisor)
        await pool.call(DynamicSupervisor.start_child, workers("a", backoff=LONG)[0])
        await crash(system, "a")
        with pytest.raises(Exception, match="has its 1 children"):
            await pool.call(DynamicSupervisor.start_child, workers("b")[0])
        await system.wait_for("/a", Worker)
        assert await at(system, "a").call(Worker.ping) == 2
        await crash(system, "a")
        await pool.call(DynamicSupervisor.terminate_child, "a")
        await asyncio.sleep(25)
        assert not at(system, "a").is_alive()
        await pool.call(DynamicSupervisor.start_child, workers("b")[0])


@given(
    lowest=st.floats(0, 100),
    more=st.floats(0, 1000),
    factor=st.floats(1, 10),
    jitter=st.floats(0, 2),
    restarts=st.integers(0, 10**6),
    floor=st.floats(0, 5000),
    seed=st.integers(),
)
def test_a_delay_lies_between_the_formula_and_its_jitter_on_top(
    lowest: float, more: float, factor: float, jitter: float, restarts: int, floor: float, seed: int
) -> None:
    backoff = Backoff(min=lowest, max=lowest + more, factor=factor, jitter=jitter)
    delay = backoff.delay(restarts, random.Random(seed), floor)
    exact = max(floor, min(backoff.max, lowest * min(factor ** min(restarts, 64), 1e300)))
    assert exact <= delay <= exact * (1 + jitter) * (1 + 1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"min": -1},
        {"min": 2, "max": 1},
        {"factor": 0.5},
        {"jitter": -0.1},
        {"reset_after": -1},
        {"give_up_after": float("nan")},
    ],
    ids=str,
)
def test_a_backoff_that_makes_no_sense_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(BadSpec, match="a backoff needs"):
        Backoff(**options)


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
@everywhere
async def test_a_group_goes_on_without_the_member_it_waited_for_when_that_one_is_terminated(strategy: Strategy) -> None:
    children = [*workers("a"), *workers("b", backoff=LONG), *workers("cd")]
    async with System.start(Supervisor.spec(strategy=strategy, children=children)) as system:
        await crash(system, "b")
        await root_of(system).call(Supervisor.terminate_child, "b")
        await turns(200)
        assert await states(system) == {"a": "running", "b": "stopped", "c": "running", "d": "running"}
        assert took(0)
        await root_of(system).call(Supervisor.restart_child, "b")
        assert (await states(system))["b"] == "running"
