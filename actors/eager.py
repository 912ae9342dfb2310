"""Run a coroutine up to its first wait without a task of its own.

Most starts and ends of supervisors wait for nothing, and a task costs more than all that they do. What does wait is
handed to a task from there on. Only for the kernel's own actors: in the first step ``asyncio.current_task()`` is
another's, so that ``asyncio.timeout`` and the like do not work in it.
"""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
from functools import partial
from typing import Generic, TypeVar

T = TypeVar("T")


class Done(Generic[T]):
    """It never had to wait."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value


def first_step(work: Coroutine[object, object, T]) -> Done[T] | Coroutine[object, object, T]:
    """Run ``work`` up to its first wait: its result, or what is left of it. Raises what ``work`` raises."""
    try:
        awaited = work.send(None)
    except StopIteration as stop:
        return Done(stop.value)
    return _rest(work, awaited)


async def _rest(work: Coroutine[object, object, T], awaited: object) -> T:
    return await _go_on(work, awaited)


@types.coroutine
def _go_on(work: Coroutine[object, object, T], awaited: object) -> Generator[object, object, T]:
    while True:
        try:
            # The future that ``work`` waits for, or nothing for one turn: as if it had been awaited here.
            sent = yield awaited
        except GeneratorExit:
            work.close()
            raise
        except BaseException as error:  # noqa: BLE001 - a cancellation, for the one whose wait it is
            step = partial(work.throw, error)
        else:
            step = partial(work.send, sent)
        try:
            awaited = step()
        except StopIteration as stop:
            return stop.value
