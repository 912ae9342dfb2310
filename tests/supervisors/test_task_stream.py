"""A stream gives every item's result once, never runs more than it may, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, suppress

import pytest
from support.probes import Boom, Probe, ended
from support.worlds import everywhere, now, took, turns
from task_support import present, tasks_running

from palmette.actors import ActorDied, Crashed, DeadlineExceeded, Killed, Shutdown, deadline
from palmette.supervisors import Exited, Ok, TaskSupervisor, TooManyChildren

stream = TaskSupervisor.async_stream


async def wait_then_return(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


async def for_ever(item: int) -> int:
    await asyncio.sleep(1e6)
    return item


async def picky(item: int) -> int:
    await asyncio.sleep(1)
    if item % 2:
        raise Boom(f"no {item}")
    return item


@everywhere
async def test_results_come_in_the_order_of_the_items_or_as_they_are_done() -> None:
    async with tasks_running() as (_, tasks):
        begun = now()
        for ordered, expected in ((True, [3.0, 1.0, 2.0]), (False, [1.0, 2.0, 3.0])):
            found = [
                answer
                async for answer in stream(tasks, wait_then_return, [3.0, 1.0, 2.0], max_concurrency=3, ordered=ordered)
            ]
            assert found == [Ok(seconds) for seconds in expected]
        assert took(6, since=begun)
        assert await present(tasks) == []


@everywhere
async def test_a_crash_is_one_result_among_the_others_and_names_its_item() -> None:
    async with tasks_running(max_restarts=0) as (_, tasks):
        found = [answer async for answer in stream(tasks, picky, range(4), max_concurrency=2)]
        assert found[::2] == [Ok(0), Ok(2)]
        for answer, item in zip(found[1::2], (1, 3), strict=True):
            assert isinstance(answer, Exited)
            assert answer.item == item
            assert isinstance(answer.reason, Crashed)
            assert answer.reason.text == f"no {item}"


@everywhere
async def test_no_items_are_no_results() -> None:
    async with tasks_running() as (_, tasks):
        assert [answer async for answer in stream(tasks, picky, [], max_concurrency=1)] == []


@everywhere
async def test_items_are_taken_only_when_there_is_room_for_them() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    async def slow_first(item: int) -> int:
        await asyncio.sleep(60 if item == 0 else 1)
        return item

    async with (
        tasks_running() as (_, tasks),
        aclosing(stream(tasks, slow_first, items(), max_concurrency=3, timeout=1e3)) as answers,
    ):
        first = asyncio.create_task(anext(answers))
        await turns(50)
        assert taken == [0, 1, 2]
        await asyncio.sleep(30)
        # The first one holds the results back, and may not make their number grow.
        assert taken == list(range(6))
        assert await present(tasks) == ["slow_first-1"]
        assert await first == Ok(0)
        assert [(await anext(answers)) for _ in range(94)] == [Ok(item) for item in range(1, 95)]


@everywhere
async def test_a_slow_consumer_slows_the_stream_down() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(30):
            taken.append(item)
            yield item

    async with tasks_running() as (_, tasks):
        count = 0
        async for _ in stream(tasks, picky, items(), max_concurrency=2, ordered=False):
            count += 1
            assert len(taken) - count < 4
            await asyncio.sleep(3)
        assert count == 30


@everywhere
async def test_an_overdue_task_ends_the_iteration_or_is_killed() -> None:
    async with tasks_running() as (_, tasks):
        begun = now()
        items = [1.0, 100.0, 2.0]
        with pytest.raises(DeadlineExceeded, match=r"/tasks/wait_then_return-2 took longer than 5 s"):
            async for _ in stream(tasks, wait_then_return, items, max_concurrency=3, timeout=5.0):
                pass
        assert took(5, since=begun)
        assert await present(tasks) == []
        found = [
            answer
            async for answer in stream(
                tasks, wait_then_return, items, max_concurrency=3, timeout=5.0, on_timeout="kill_task"
            )
        ]
        assert found == [Ok(1.0), Exited(Killed("it took longer than 5 s"), 100.0), Ok(2.0)]
        assert took(10, since=begun)


@everywhere
async def test_a_task_that_is_overdue_while_the_consumer_is_away_ends_the_iteration_at_its_return() -> None:
    async with tasks_running() as (_, tasks):
        for late in (7.0, 1000.0):
            found: list[object] = []

            async def consume(late: float, found: list[object]) -> None:
                async for answer in stream(tasks, wait_then_return, [1.0, late], max_concurrency=2, timeout=5.0):
                    found.append(answer)
                    await asyncio.sleep(9)

            with pytest.raises(DeadlineExceeded, match="took longer than 5 s"):
                await consume(late, found)
            assert found == [Ok(1.0)]
            assert await present(tasks) == []


@everywhere
async def test_a_task_that_cannot_be_killed_does_not_hold_the_stream_up() -> None:
    release = asyncio.Event()

    async def undead(item: int) -> int:
        while not release.is_set():
            with suppress(asyncio.CancelledError):
                await release.wait()
        return item

    async with tasks_running() as (system, tasks):
        found = [
            answer
            async for answer in stream(tasks, undead, range(2), max_concurrency=1, timeout=5.0, on_timeout="kill_task")
        ]
        assert found == [Exited(Killed("it took longer than 5 s"), item) for item in range(2)]
        assert system.statistics().zombies == 2
        release.set()
        assert await present(tasks) == []


@everywhere
async def test_the_deadline_in_force_is_the_streams_too() -> None:
    async with tasks_running() as (_, tasks):
        with deadline(3.0), pytest.raises(DeadlineExceeded, match="by the deadline in force"):
            async for _ in stream(tasks, for_ever, range(3), max_concurrency=2):
                pass
        assert await present(tasks) == []


@everywhere
async def test_leaving_the_iteration_stops_the_tasks() -> None:
    async with tasks_running() as (_, tasks):
        async with aclosing(stream(tasks, wait_then_return, [1.0] + 9 * [50.0], max_concurrency=4)) as answers:
            async for answer in answers:
                assert answer == Ok(1.0)
                break
            assert len(await present(tasks)) == 4
        assert await present(tasks) == []


@everywhere
async def test_a_break_is_enough() -> None:
    async with tasks_running() as (_, tasks):
        async for _ in stream(tasks, wait_then_return, [1.0] + 9 * [50.0], max_concurrency=4):
            break
        assert await present(tasks) == []


@everywhere
async def test_a_cancelled_consumer_stops_the_tasks_and_gives_them_their_time() -> None:
    log: list[int] = []

    async def tidy(item: int) -> None:
        try:
            await asyncio.sleep(1e6)
        finally:
            await asyncio.sleep(3)
            log.append(item)

    async with tasks_running() as (_, tasks):

        async def consume() -> None:
            async for _ in stream(tasks, tidy, range(9), max_concurrency=2):
                pass

        consumer = asyncio.create_task(consume())
        await asyncio.sleep(1)
        consumer.cancel()
        await asyncio.sleep(1)
        consumer.cancel()  # an impatient one: it still waits, and is cancelled
        await asyncio.wait([consumer])
        assert consumer.cancelled()
        assert sorted(log) == [0, 1]
        assert await present(tasks) == []


@pytest.mark.parametrize("how", ["crash", "kill"])
@everywhere
async def test_the_end_of_its_owner_stops_the_tasks(how: str) -> None:
    async with tasks_running() as (system, tasks):
        owner = system.whereis("owner", Probe)

        async def consume(_: Probe) -> None:
            async for _answer in stream(tasks, for_ever, range(9), max_concurrency=2, timeout=1e5):
                pass

        owner.cast(Probe.do, lambda actor: actor.start_task(consume(actor)))
        await asyncio.sleep(1)
        assert len(await present(tasks)) == 2
        end = asyncio.create_task(ended(owner))
        await turns()
        if how == "kill":
            owner.kill()
        else:
            owner.cast(Probe.fail)
        await end
        assert await present(tasks) == []


@everywhere
async def test_what_the_items_raise_comes_out_and_stops_the_tasks() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise Boom("no more")

    async with tasks_running() as (_, tasks):
        with pytest.raises(Boom, match="no more"):
            async for _ in stream(tasks, for_ever, items(), max_concurrency=2):
                pass
        assert await present(tasks) == []


@everywhere
async def test_a_full_or_dead_supervisor_ends_the_stream_with_its_word() -> None:
    async with tasks_running(max_children=1) as (system, tasks):
        with pytest.raises(TooManyChildren):
            async for _ in stream(tasks, for_ever, range(3), max_concurrency=2):
                pass
        assert await present(tasks) == []

        async def kill_it(item: int) -> int:
            if item == 1:
                tasks.kill()
                await asyncio.sleep(100)
            return item

        found: list[object] = []
        with suppress(ActorDied):  # unless its successor is there in time
            async for answer in stream(tasks, kill_it, range(2), max_concurrency=1):
                found.append(answer)
        assert found[:1] == [Ok(0)]
        assert found[1:] in ([], [Exited(Shutdown("its parent ended"), 1)])
        await system.wait_for("tasks", TaskSupervisor)
        assert await present(tasks) == []


@everywhere
async def test_options_that_make_no_sense_are_refused_at_once() -> None:
    async with tasks_running() as (_, tasks):
        with pytest.raises(ValueError, match="max_concurrency is at least 1, not 0"):
            stream(tasks, picky, [], max_concurrency=0)
        for wrong in (0.0, float("nan")):
            with pytest.raises(ValueError, match="timeout is more than 0 seconds"):
                stream(tasks, picky, [], max_concurrency=1, timeout=wrong)
        with pytest.raises(ValueError, match="on_timeout is exit or kill_task, not 'ignore'"):
            stream(tasks, picky, [], max_concurrency=1, on_timeout="ignore")  # type: ignore[arg-type] # pyright: ignore
        assert [a async for a in stream(tasks, picky, [2], max_concurrency=1, timeout=float("inf"))] == [Ok(2)]
