"""Blocking calls beside the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from machines_support import until
from ssh_support import threads

from palmette.machines.ssh.threads import Lane, in_thread


@pytest.fixture(autouse=True)
def every_thread_ends() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    assert threads() == []


async def test_a_result_and_an_exception_come_back() -> None:
    assert await in_thread(lambda: 3, seconds=10) == 3
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 // 0, seconds=10)


async def test_what_comes_after_the_deadline_is_handed_on_and_the_caller_has_gone() -> None:
    release, late = threading.Event(), list[str]()

    def work() -> str:
        release.wait(10)
        return "late"

    with pytest.raises(TimeoutError):
        await in_thread(work, seconds=0.01, late=late.append)
    release.set()
    await until(lambda: late == ["late"], "the result")


async def test_what_comes_after_a_cancellation_is_handed_on() -> None:
    release, late = threading.Event(), list[int]()
    call = asyncio.create_task(in_thread(lambda: int(release.wait(10)), seconds=10, late=late.append))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait([call])
    release.set()
    await until(lambda: late == [1], "the result")


def test_what_comes_after_the_loop_is_closed_is_handed_on() -> None:
    release, late, handed = threading.Event(), list[int](), threading.Event()

    def take(value: int) -> None:
        late.append(value)
        handed.set()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await in_thread(lambda: int(release.wait(10)), seconds=0.01, late=take)

    asyncio.run(give_up())
    release.set()
    assert handed.wait(10)
    assert late == [1]


async def test_a_lane_does_one_thing_after_another_and_nothing_once_it_is_closed() -> None:
    lane, done = Lane("test"), list[int]()
    first = lane.submit(lambda: done.append(1))
    cancelled = lane.submit(lambda: done.append(2))
    cancelled.cancel()
    failed = lane.submit(lambda: 1 // 0)
    await lane.submit(lambda: done.append(3))
    assert done == [1, 2, 3]
    await first
    with pytest.raises(ZeroDivisionError):
        await failed
    lane.close()
    with pytest.raises(ConnectionError):
        await lane.submit(lambda: done.append(4))
    assert done == [1, 2, 3]
