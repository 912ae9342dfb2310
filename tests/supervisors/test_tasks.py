"""Tasks: their results and their ends are data for whoever waits for them."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from support.probes import Boom
from support.worlds import everywhere, now, took, turns
from task_support import double, fail, for_ever, nolink, present, tasks_running, tidy

from palmette.actors import (
    ActorDied,
    Crashed,
    DeadlineExceeded,
    Killed,
    Normal,
    Shutdown,
    deadline,
)
from palmette.supervisors import Exited, Ok, Task

# --- results -----------------------------------------------------------------------------------------------------


@everywhere
async def test_a_task_gives_its_result_and_is_gone() -> None:
    async with tasks_running() as (system, tasks):
        task = await nolink(tasks, double, 21)
        assert task.path == "/tasks/double-1"
        assert task.answer() is None
        assert await task.result() == 42
        assert await task.yield_() == task.answer() == Ok(42)
        assert await present(tasks) == []
        assert system.why(task.path)[-1].reason == Normal()


@everywhere
async def test_a_crash_is_data_for_the_owner_and_hurts_nobody() -> None:
    async with tasks_running(max_restarts=0) as (system, tasks):
        task = await nolink(tasks, fail, "no such tool")
        match await task.yield_():
            case Exited(Crashed(error="support.probes.Boom", text="no such tool")):
                pass
            case other:
                pytest.fail(f"{other!r}")
        with pytest.raises(ActorDied, match="/tasks/fail-1 died: Boom: no such tool"):
            await task.result()
        assert tasks.is_alive()
        assert tasks.incarnation == 1
        assert task.answer() == Exited(system.why("/tasks/fail-1")[-1].reason)


@everywhere
async def test_a_task_that_is_not_done_in_time_runs_on() -> None:
    async with tasks_running() as (_, tasks):
        task = await nolink(tasks, double, 1)
        assert await task.yield_(0) is None
        assert await task.yield_(0.5) is None
        with pytest.raises(DeadlineExceeded, match=r"/tasks/double-1 was not done in 0\.1 s"):
            await task.result(0.1)
        with deadline(0.1), pytest.raises(DeadlineExceeded):
            await task.result()
        assert await task.result(float("inf")) == 2


@everywhere
async def test_several_tasks_have_one_timeout_together() -> None:
    async with tasks_running() as (_, tasks):
        begun = now()
        some = [await nolink(tasks, for_ever), await nolink(tasks, double, 2), await nolink(tasks, fail)]
        answers = await Task.yield_many(some, 3.0)
        assert took(3, since=begun)
        assert [task for task, _ in answers] == some
        assert answers[0][1] is None
        assert answers[1][1] == Ok(4)
        assert isinstance(answers[2][1], Exited)
        nothing: list[Task[None]] = []
        assert await Task.yield_many(nothing) == []


@everywhere
async def test_a_timeout_makes_sense() -> None:
    async with tasks_running() as (_, tasks):
        task = await nolink(tasks, double, 1)
        for wrong in (-1.0, float("nan")):
            with pytest.raises(ValueError, match="a timeout is 0 seconds or more"):
                await task.yield_(wrong)
            with pytest.raises(ValueError, match="a timeout is 0 seconds or more"):
                await task.shutdown(wrong)


@everywhere
async def test_a_function_that_does_not_wait_is_refused_with_the_remedy() -> None:
    async with tasks_running() as (_, tasks):
        task = await nolink(tasks, len, "abc")  # type: ignore[arg-type] # pyright: ignore
        with pytest.raises(ActorDied, match="len returned int; a task runs an `async def` function"):
            await task.result()


@everywhere
async def test_a_task_that_says_exit_ends_itself_and_not_the_program() -> None:
    async def leave() -> None:
        raise SystemExit(3)

    async with tasks_running() as (_, tasks):
        answer = await (await nolink(tasks, leave)).yield_()
        assert isinstance(answer, Exited)
        assert isinstance(answer.reason, Crashed)


# --- shutdown ----------------------------------------------------------------------------------------------------


@everywhere
async def test_shutdown_lets_a_task_clean_up_in_its_time() -> None:
    async with tasks_running() as (system, tasks):
        log: list[str] = []
        task = await nolink(tasks, tidy, log, 3.0)
        await turns()
        assert await task.shutdown() is None
        assert log == ["begun", "tidy"]
        assert task.answer() == Exited(Shutdown("its owner shut it down"))
        assert system.statistics().zombies == 0
        assert await present(tasks) == []


@everywhere
async def test_shutdown_kills_what_takes_too_long() -> None:
    async with tasks_running() as (_, tasks):
        log: list[str] = []
        slow = await nolink(tasks, tidy, log, 2.5)
        brutal = await nolink(tasks, for_ever)
        await turns()
        begun = now()
        assert await slow.shutdown(2.0) is None
        assert took(2, since=begun)
        assert isinstance(slow.answer(), Exited)
        assert await brutal.shutdown("brutal") is None
        assert brutal.answer() == Exited(Killed("its owner shut it down"))


@everywhere
async def test_shutdown_returns_what_arrived_before_or_meanwhile() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.sleep(1e6)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
        return "after all"

    async def broken() -> None:
        try:
            await asyncio.sleep(1e6)
        finally:
            raise Boom("while cleaning up")

    async with tasks_running() as (_, tasks):
        done = await nolink(tasks, double, 1)
        await done.yield_()
        assert await done.shutdown("brutal") == Ok(2)
        killed = await nolink(tasks, for_ever)
        killed.ref.kill("by somebody else")
        await killed.yield_()
        assert await killed.shutdown() == Exited(Killed("by somebody else"))
        task = await nolink(tasks, stubborn)
        await turns()
        assert await task.shutdown() == Ok("after all")
        task = await nolink(tasks, broken)
        await turns()
        answer = await task.shutdown()
        assert isinstance(answer, Exited)
        assert isinstance(answer.reason, Crashed)


@everywhere
async def test_a_task_that_swallows_its_cancellation_is_a_zombie_and_holds_nobody_up() -> None:
    release = asyncio.Event()

    async def undead() -> None:
        while not release.is_set():
            with suppress(asyncio.CancelledError):
                await release.wait()

    async with tasks_running() as (system, tasks):
        task = await nolink(tasks, undead)
        await turns()
        begun = now()
        assert await task.shutdown(2.0) is None
        assert took(6, since=begun)
        assert system.statistics().zombies == 1
        assert task.answer() is None
        release.set()
        await task.yield_()
        assert task.answer() is not None
