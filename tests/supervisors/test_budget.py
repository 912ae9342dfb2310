"""How often a supervisor restarts before it gives up: a sliding window on an exact clock."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from supervisors_support import Worker, crash, finish, incarnations, root_of, states, workers
from support.probes import Boom, actor_of, ended
from support.worlds import everywhere, is_real, now, simulated, turns

from palmette.actors import Crashed, MaxRestarts, Shutdown, System, describe, is_graceful, root_cause
from palmette.supervisors import Budget, Supervisor, why


def root_budget(system: System) -> list[float]:
    """The restarts that the root has on its account."""
    return list(actor_of(root_of(system))._budget._stamps or ())  # pyright: ignore[reportPrivateUsage]


async def crash_at(max_restarts: int, max_seconds: float, *times: float) -> int:
    """How many of the crashes at these times were followed by a restart."""
    tree = Supervisor.spec(
        name="inner", children=workers("a"), max_restarts=max_restarts, max_seconds=max_seconds, restart="temporary"
    )
    async with System.start(Supervisor.spec(children=[tree])) as system:
        a, before = system.ref_at("/inner/a", Worker), 0.0
        for number, time in enumerate(times):
            # In real time it is the gaps that count: crashes that come late must not come nearer to each other.
            await asyncio.sleep(time - (before if is_real() else now()))
            before = time
            a.cast(Worker.end, Boom("crash"))
            await turns(200)
            if not a.is_alive():
                return number
        return len(times)


@everywhere
async def test_one_restart_more_than_allowed_ends_the_supervisor() -> None:
    assert await crash_at(3, 100, 0, 0, 0, 0) == 3


@everywhere
async def test_with_a_budget_of_none_the_first_restart_is_one_too_many() -> None:
    assert await crash_at(0, 5, 0) == 0


@simulated(why="one instant decides")
async def test_a_restart_exactly_the_window_ago_still_counts() -> None:
    assert await crash_at(1, 5, 0, 5) == 1
    assert await crash_at(1, 5, 100, 105.001) == 2


@everywhere
async def test_restarts_that_lie_further_back_than_the_window_are_forgotten() -> None:
    assert await crash_at(1, 5, 0, 20, 40) == 3


@simulated(why="a late crash would find another window")
async def test_the_window_slides() -> None:
    assert await crash_at(2, 10, 0, 6, 12, 18, 24, 30) == 6
    assert await crash_at(2, 10, 40, 44, 48) == 2


@everywhere
async def test_the_budget_is_shared_by_all_children() -> None:
    tree = Supervisor.spec(name="inner", children=workers("abc"), max_restarts=2, max_seconds=100, restart="temporary")
    async with System.start(Supervisor.spec(children=[tree])) as system:
        inner = system.whereis("inner", Supervisor)
        end = asyncio.create_task(ended(inner))
        for name in "abc":
            system.ref_at(f"/inner/{name}", Worker).cast(Worker.end, Boom(f"crash of {name}"))
            await turns(200)
        reason = await end
        assert isinstance(reason, MaxRestarts)
        assert not is_graceful(reason)
        assert (reason.child, reason.restarts, reason.seconds) == ("c", 2, 100.0)
        assert describe(reason) == "'c' was restarted 2 times within 100 s; last: Boom: crash of c"
        cause = root_cause(reason)
        assert isinstance(cause, Crashed)
        assert why(MaxRestarts("inner", reason, 0, 1)) == "inner/c: Boom: crash of c"
        assert why(Shutdown("x")) == "shutdown (x)"


@everywhere
async def test_a_normal_end_of_a_permanent_child_counts_and_one_of_a_transient_child_does_not() -> None:
    async with System.start(
        Supervisor.spec(children=[*workers("a"), *workers("bcd", "transient")], max_restarts=1)
    ) as system:
        for name in "bcd":
            await finish(system, name)
        await finish(system, "a")
        assert await states(system) == {"a": "running", "b": "completed", "c": "completed", "d": "completed"}
        assert len(root_budget(system)) == 1


@everywhere
async def test_failed_attempts_to_start_count() -> None:
    async with System.start(
        Supervisor.spec(
            children=[Supervisor.spec(name="inner", children=workers("a"), max_seconds=100, restart="temporary")]
        )
    ) as system:
        Worker.fail["a"] = 100
        system.ref_at("/inner/a", Worker).cast(Worker.end, Boom("crash"))
        await turns(200)
        assert 100 - Worker.fail["a"] == 3  # attempts within the budget of three
        assert not system.ref_at("/inner", Supervisor).is_alive()


@everywhere
async def test_manual_restarts_do_not_count() -> None:
    async with System.start(Supervisor.spec(children=workers("a"), max_restarts=1)) as system:
        root = root_of(system)
        for _ in range(10):
            await root.call(Supervisor.terminate_child, "a")
            await root.call(Supervisor.restart_child, "a")
        await crash(system, "a")
        assert incarnations(system, "a") == [12]


@everywhere
async def test_a_group_restart_counts_once() -> None:
    async with System.start(
        Supervisor.spec(strategy="one_for_all", children=workers("abcdef"), max_restarts=1)
    ) as system:
        await crash(system, "c")
        assert incarnations(system, "abcdef") == [2] * 6


@given(
    max_restarts=st.integers(0, 4),
    max_seconds=st.integers(1, 5),
    gaps=st.lists(st.integers(0, 6), max_size=30),
)
def test_a_budget_allows_exactly_what_the_definition_allows(
    max_restarts: int, max_seconds: int, gaps: list[int]
) -> None:
    budget = Budget(max_restarts, max_seconds)
    times: list[int] = []
    now = 0
    for gap in gaps:
        now += gap
        times.append(now)
        within = sum(1 for time in times if now - max_seconds <= time <= now)
        assert budget.spend(now) == (within <= max_restarts)
