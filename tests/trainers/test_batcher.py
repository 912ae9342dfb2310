"""Batching: nobody waits without need, nobody is forgotten, one thread and none after."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import pytest

from palmette.trainers.batching import Batcher, BatcherClosed, EngineCrashed, QueueFull

LONG = 30.0


class Gate:
    """An engine that doubles numbers; every batch waits to be let through."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[str] = set()
        self._entered = threading.Semaphore(0)
        self._leave = threading.Semaphore(0)

    def generate(self, requests: Sequence[int]) -> list[int]:
        self.batches.append(list(requests))
        self.threads.add(threading.current_thread().name)
        self._entered.release()
        if not self._leave.acquire(timeout=LONG):
            raise TimeoutError("nobody opened the gate")
        if 13 in requests:
            raise RuntimeError("thirteen")
        return [2 * request for request in requests]

    async def wait_entered(self) -> None:
        assert await asyncio.to_thread(self._entered.acquire, timeout=LONG)

    def open(self, batches: int = 1) -> None:
        self._leave.release(batches)


@asynccontextmanager
async def gated(max_batch_size: int = 64, max_queue: int = 4096) -> AsyncGenerator[tuple[Batcher[int, int], Gate]]:
    gate = Gate()
    batcher = Batcher(gate.generate, max_batch_size=max_batch_size, max_queue=max_queue)
    try:
        yield batcher, gate
    finally:
        gate.open(100)
        await batcher.aclose()
        assert not [thread for thread in threading.enumerate() if thread.name in gate.threads]
        counted = batcher.statistics()
        assert (counted.waiting, counted.running) == (0, 0)


async def ticks(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_arrives_while_a_batch_runs_forms_the_next() -> None:
    async with gated(max_batch_size=3) as (batcher, gate):
        first = asyncio.create_task(batcher.submit(1, timeout=LONG))
        await gate.wait_entered()
        rest = [asyncio.create_task(batcher.submit(number, timeout=LONG)) for number in (2, 3, 4, 5)]
        await ticks()
        assert batcher.statistics().waiting == 4
        gate.open(3)
        assert await asyncio.gather(first, *rest) == [2, 4, 6, 8, 10]
        assert gate.batches == [[1], [2, 3, 4], [5]]
        counted = batcher.statistics()
        assert (counted.answered, counted.batches, counted.largest_batch) == (5, 3, 3)
        assert len(gate.threads) == 1


async def test_requests_of_one_tick_share_a_batch() -> None:
    async with gated() as (batcher, gate):
        gate.open()
        assert await asyncio.gather(*(batcher.submit(number, timeout=LONG) for number in range(5))) == [0, 2, 4, 6, 8]
        assert gate.batches == [[0, 1, 2, 3, 4]]


async def test_a_cancelled_waiter_leaves_the_queue_and_one_in_the_engine_is_dropped() -> None:
    async with gated() as (batcher, gate):
        running = asyncio.create_task(batcher.submit(1, timeout=LONG))
        await gate.wait_entered()
        waiting = [asyncio.create_task(batcher.submit(number, timeout=LONG)) for number in (2, 3)]
        await ticks()
        running.cancel()
        waiting[0].cancel()
        await ticks()
        assert batcher.statistics().waiting == 1
        gate.open(2)
        assert await waiting[1] == 6
        assert gate.batches == [[1], [3]]
        counted = batcher.statistics()
        assert (counted.abandoned, counted.answered) == (2, 1)


async def test_a_deadline_frees_its_waiter_while_the_engine_works_on() -> None:
    async with gated() as (batcher, gate):
        with pytest.raises(TimeoutError, match=r"no answer within 0\.001 s"):
            await batcher.submit(1, timeout=0.001)
        await gate.wait_entered()
        with pytest.raises(TimeoutError):
            await batcher.submit(2, timeout=0.001)
        gate.open(2)
        assert await batcher.submit(3, timeout=LONG) == 6
        assert [2] not in gate.batches
        assert batcher.statistics().abandoned == 2


async def test_a_full_queue_refuses_and_says_so() -> None:
    async with gated(max_queue=2) as (batcher, gate):
        taken = [asyncio.create_task(batcher.submit(1, timeout=LONG))]
        await gate.wait_entered()
        taken += [asyncio.create_task(batcher.submit(number, timeout=LONG)) for number in (2, 3)]
        await ticks()
        with pytest.raises(QueueFull, match="max_queue=2"):
            await batcher.submit(4, timeout=LONG)
        gate.open(2)
        assert await asyncio.gather(*taken) == [2, 4, 6]


async def test_a_crash_reaches_everyone_who_waits_and_the_batcher_stays_broken() -> None:
    async with gated() as (batcher, gate):
        first = [asyncio.create_task(batcher.submit(number, timeout=LONG)) for number in (12, 13)]
        await gate.wait_entered()
        second = asyncio.create_task(batcher.submit(14, timeout=LONG))
        await ticks()
        gate.open()
        errors = await asyncio.gather(*first, second, return_exceptions=True)
        assert [type(error) for error in errors] == [EngineCrashed] * 3
        assert len(set(map(id, errors))) == 3
        assert isinstance(errors[2], EngineCrashed)
        assert str(errors[2].__cause__) == "thirteen"
        with pytest.raises(EngineCrashed, match="RuntimeError: thirteen"):
            await batcher.submit(1, timeout=LONG)
        with pytest.raises(EngineCrashed):
            await batcher.run(lambda: 1, timeout=LONG)
        counted = batcher.statistics()
        assert (counted.failed, counted.crashed) == (3, True)
        assert gate.batches == [[12, 13]]


async def test_an_engine_that_loses_an_answer_has_crashed() -> None:
    def forgetful(requests: Sequence[int]) -> Sequence[int]:
        return requests[1:]

    async with Batcher(forgetful) as batcher:
        with pytest.raises(EngineCrashed, match="1 answers to 2 requests"):
            await asyncio.gather(batcher.submit(1, timeout=LONG), batcher.submit(2, timeout=LONG))


async def test_a_bad_request_is_refused_before_it_can_spoil_a_batch() -> None:
    def check(number: int) -> None:
        if number < 0:
            raise ValueError(f"{number} is negative")

    def echo(numbers: Sequence[int]) -> Sequence[int]:
        return numbers

    async with Batcher(echo, check=check) as batcher:
        good = asyncio.create_task(batcher.submit(1, timeout=LONG))
        with pytest.raises(ValueError, match="-1 is negative"):
            await batcher.submit(-1, timeout=LONG)
        assert await good == 1


async def test_functions_run_between_batches_in_the_engines_thread() -> None:
    async with gated() as (batcher, gate):
        first = asyncio.create_task(batcher.submit(1, timeout=LONG))
        await gate.wait_entered()
        seen: list[tuple[str, int]] = []
        loading = asyncio.create_task(
            batcher.run(lambda: seen.append((threading.current_thread().name, len(gate.batches))), timeout=LONG)
        )
        await ticks()
        assert seen == []
        gate.open()
        await asyncio.gather(first, loading)
        assert seen == [(next(iter(gate.threads)), 1)]
        with pytest.raises(ZeroDivisionError):
            await batcher.run(lambda: 1 // 0, timeout=LONG)
        gate.open()
        assert await batcher.submit(2, timeout=LONG) == 4  # what a function raises is its caller's, not the engine's


async def test_closing_refuses_what_waits_and_lets_the_running_batch_end() -> None:
    async with gated() as (batcher, gate):
        running = asyncio.create_task(batcher.submit(1, timeout=LONG))
        await gate.wait_entered()
        waiting = asyncio.create_task(batcher.submit(2, timeout=LONG))
        await ticks()
        closing = asyncio.create_task(batcher.aclose())
        with pytest.raises(BatcherClosed):
            await waiting
        gate.open()
        assert await running == 2
        await closing
        await batcher.aclose()
        with pytest.raises(BatcherClosed):
            await batcher.submit(3, timeout=LONG)
        assert gate.batches == [[1]]


async def test_closing_does_not_wait_for_ever_on_an_engine_that_hangs() -> None:
    gate = Gate()
    batcher = Batcher(gate.generate)
    stuck = asyncio.create_task(batcher.submit(1, timeout=LONG))
    await gate.wait_entered()
    with pytest.raises(TimeoutError, match="end its process"):
        await batcher.aclose(timeout=0.01)
    gate.open()  # so that this process can end
    assert await stuck == 2


def test_senseless_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="0 and 4096"):
        Batcher[int, int](list, max_batch_size=0)
