"""Time that passes only when nothing else is left to do.

A test that waits for minutes takes none: as soon as all tasks are waiting, the clock jumps to the next timer.

>>> run_virtually(asyncio.sleep(3600))

Threads do not fit in: the clock would not wait for them.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock starts at 0 and jumps."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self._now

    def jump(self, seconds: float) -> None:
        self._now += seconds


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everything waits and no timer is set: the test has hung itself")
        if not ready and timeout:
            self._loop.jump(timeout)
        return ready


def run_virtually(work: Coroutine[object, object, T]) -> T:
    """Run ``work`` on a fresh :class:`VirtualTimeLoop`; a task that it leaves behind is an error."""

    async def alone() -> T:
        result = await work
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"left behind: {left}"
        return result

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(alone())
