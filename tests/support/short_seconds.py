"""Real event loops on which a second is short.

The time is real: it passes by itself, also while a test works or the machine is busy with others. It is only counted in
a smaller unit, so that a test can wait for "5 s", and the kernel's own limits of seconds are over soon.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import os
import selectors
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final

SECOND: Final = 0.02
"""Real seconds to a second of a test."""


def short_seconds_loop() -> asyncio.AbstractEventLoop:
    """uvloop, where it is; otherwise, or where ``PALMETTE_LOOP`` says ``asyncio``, asyncio's own."""
    if os.environ.get("PALMETTE_LOOP") == "asyncio" or importlib.util.find_spec("uvloop") is None:
        return _AsyncioLoop()
    return _uvloop_class()()


class _ShortSelector(selectors.DefaultSelector):
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(None if timeout is None else timeout * SECOND)


class _AsyncioLoop(asyncio.SelectorEventLoop):
    """asyncio computes with its own clock, and waits in its selector."""

    def __init__(self) -> None:
        super().__init__(_ShortSelector())

    def time(self) -> float:
        return super().time() / SECOND


@functools.cache
def _uvloop_class() -> type[asyncio.AbstractEventLoop]:
    if TYPE_CHECKING:
        from asyncio import SelectorEventLoop as Loop
    else:
        from uvloop import Loop

    class UvLoop(Loop):
        """uvloop has its timers in C, by the delay."""

        def time(self) -> float:
            return super().time() / SECOND

        def call_later(  # pyright: ignore[reportIncompatibleMethodOverride]
            self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
        ) -> asyncio.TimerHandle:
            return super().call_later(max(0.0, delay * SECOND), callback, *args, context=context)

        def call_at(  # pyright: ignore[reportIncompatibleMethodOverride]
            self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
        ) -> asyncio.TimerHandle:
            return self.call_later(when - self.time(), callback, *args, context=context)

    return UvLoop
