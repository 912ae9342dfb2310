"""The wall clock of a simulation: while one runs, ``time`` tells virtual time, and nothing may really sleep.

Application code needs no change to be simulated: ``time.time``, ``time.monotonic`` and ``time.perf_counter`` are those
of the loop, and ``uuid4`` and ``secrets`` draw from the seed.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import NoReturn
from unittest import mock

from palmette.actors.errors import PalmetteError
from palmette.actors.simulation.loop import SimulatedLoop


class RealTime(PalmetteError):
    """Code under simulation tried to sleep for real."""


def _no_sleep(seconds: float) -> NoReturn:
    raise RealTime(f"time.sleep({seconds}) would stop the world; use asyncio.sleep, or send_after in an actor")


@contextmanager
def virtual_time(loop: SimulatedLoop, seed: int) -> Generator[None]:
    """Make the standard clocks and the operating system's randomness those of ``loop`` and ``seed``."""
    draw = random.Random(f"entropy/{seed}")
    clocks: dict[str, Callable[[], float]] = {
        "time": loop.wall_time,
        "monotonic": loop.time,
        "perf_counter": loop.time,
    }
    with ExitStack() as stack:
        for name, clock in clocks.items():
            stack.enter_context(mock.patch.object(time, name, clock))
        stack.enter_context(mock.patch.object(time, "sleep", _no_sleep))
        stack.enter_context(mock.patch.object(os, "urandom", draw.randbytes))
        stack.enter_context(mock.patch.object(random, "_urandom", draw.randbytes))  # what `secrets` stands on
        state = random.getstate()
        random.seed(f"random/{seed}")
        try:
            yield
        finally:
            random.setstate(state)
