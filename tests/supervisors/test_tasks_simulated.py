"""Tasks and streams in a simulation: under any schedule and injected crashes, and the same for the same seed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing

import pytest
from task_support import present, tasks_running

from palmette.actors import simulation
from palmette.actors.simulation import RandomFaults
from palmette.supervisors import Exited, Ok, TaskSupervisor

ITEMS = range(20)
FAULTS = RandomFaults(rate=0.3, match="/tasks/*", kinds=("crash", "kill", "slow_start"))


async def work(item: int) -> int:
    await asyncio.sleep(item % 5)
    return item


async def program() -> list[Ok[int] | Exited]:
    async with tasks_running() as (_, tasks):
        return [
            answer
            async for answer in TaskSupervisor.async_stream(
                tasks, work, ITEMS, max_concurrency=4, timeout=3.5, on_timeout="kill_task"
            )
        ]


async def leaving() -> list[Ok[int] | Exited]:
    """As :func:`program`, but the consumer has seen enough after a few results."""
    found: list[Ok[int] | Exited] = []
    async with tasks_running() as (_, tasks):
        async with aclosing(TaskSupervisor.async_stream(tasks, work, ITEMS, max_concurrency=8)) as answers:
            async for answer in answers:
                found.append(answer)
                if len(found) == 3:
                    break
        assert await present(tasks) == []
    return found


def test_a_stream_is_whole_and_in_order_under_any_schedule_and_any_crashes() -> None:
    struck = 0
    for seed in range(25):
        result = simulation.run(program, seed=seed, faults=FAULTS)
        struck += len(result.faults)
        assert len(result.value) == len(ITEMS)
        for item, answer in zip(ITEMS, result.value, strict=True):
            assert answer == Ok(item) or (isinstance(answer, Exited) and answer.item == item)
    assert struck > 25


@pytest.mark.parametrize("main", [program, leaving])
def test_the_same_seed_does_the_same(main: Callable[[], Coroutine[object, object, list[Ok[int] | Exited]]]) -> None:
    first, second = (simulation.run(main, seed=7, faults=FAULTS) for _ in "ab")
    assert first.log == second.log
    assert first.value == second.value
