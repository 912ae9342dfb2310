"""Run a program of actors: on uvloop where there is one, with the collector set up for many small objects."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Coroutine
from typing import TypeVar

from palmette.actors.collector import tune_collector

T = TypeVar("T")


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A loop of the fastest kind that is installed. Nothing but speed depends on which one it is."""
    if importlib.util.find_spec("uvloop") is None:
        return asyncio.new_event_loop()
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory()


def run(main: Coroutine[object, object, T]) -> T:
    """Run ``main`` to its end, as ``asyncio.run`` does; for a program's one call, at its top.

    >>> async def main() -> str:
    ...     return "done"
    >>> run(main())
    'done'
    """
    tune_collector()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)
