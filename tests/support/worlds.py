"""The worlds that a test of the kernel or of the supervisors runs in: real time, and the simulation.

    @everywhere
    async def test_a_reference_survives_restarts() -> None: ...

``real`` is what a user's program has: uvloop where it runs, a clock that never stands still, and each task in its turn.
``seed1`` and ``seed2`` are :mod:`palmette.actors.simulation`: a clock that moves only when nothing else can, and the
order of runnable tasks drawn from a seed; under the second, idle actors keep their tasks, which is otherwise the
privilege of busy ones. What holds in all three depends neither on luck nor on a loop.

Seconds of a test are short in real time, by the loop's own clock (``support.short_seconds``): the same test sleeps for
"20 s" in both. Claims about time are made with :func:`took`, exact in the simulation, and a lower bound in real time.

A test that makes sense in one world only says why: ``@simulated(why="compares instants")``. Tests drawn by hypothesis
wrap an inner function in :func:`here`, and have their worlds from ``@pytest.mark.worlds("real", "simulated")``; with
``drawn=True`` they draw the seed, too, and need one simulated world only. What starts processes is no function of a
world but of this machine: a plain ``async def`` on pytest's own loop, ``@pytest.mark.worlds("real", why=...)``.

``PALMETTE_SEEDS=50`` runs all that is simulated under 50 seeds, ``--palmette-seed 17`` under the one seed 17;
``PALMETTE_LOOP=asyncio`` takes asyncio's own loop for the real one.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Final, Literal, ParamSpec, TypeVar

import pytest
from support.short_seconds import SECOND, short_seconds_loop

from palmette.actors import simulation
from palmette.actors.cell import BUSY
from palmette.actors.simulation.decorator import Options

P = ParamSpec("P")
T = TypeVar("T")
Kind = Literal["real", "simulated"]
Test = Callable[P, Coroutine[object, object, None]]

ROUNDING: Final = 0.0021 / SECOND
"""A real loop's clock and its timers are rounded to milliseconds, each."""
PATIENCE: Final = 2000.0
"""Seconds of a test in real time after which it has hung itself. (The simulation notices by itself.)"""


@dataclass(frozen=True)
class World:
    """One of them."""

    kind: Kind
    seed: int = 0
    busy: int = BUSY
    """Messages that make an actor worth a task of its own."""

    def __str__(self) -> str:
        return "real" if self.kind == "real" else f"seed{self.seed}"

    def run(self, main: Callable[[], Coroutine[object, object, T]]) -> T:
        """Run ``main``; a task that it leaves behind is an error."""

        async def alone() -> T:
            Now.begun = asyncio.get_running_loop().time()
            async with asyncio.timeout(PATIENCE if self.kind == "real" else None):
                result = await main()
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, f"left behind: {left}"
            return result

        if self.kind == "simulated":
            return simulation.run(alone, seed=self.seed, max_seconds=1e12).value
        with asyncio.Runner(loop_factory=short_seconds_loop) as runner:
            return runner.run(alone())


class Now:
    """Where and when the running test is."""

    world: World | None = None
    begun: float = 0.0


def worlds(*wanted: Kind, drawn: bool = False) -> list[World]:
    """The worlds of these kinds; one simulated one where the seeds are ``drawn``, by hypothesis."""
    if Options.seed is not None or drawn:
        seeds = [Options.seed or 0]
    else:
        seeds = list(range(1, int(os.environ.get("PALMETTE_SEEDS", "2")) + 1))
    simulated = [World("simulated", seed, busy=0 if seed % 2 == 0 else BUSY) for seed in seeds]
    return [*([World("real")] if "real" in wanted else []), *(simulated if "simulated" in wanted else [])]


def everywhere(test: Test[P]) -> Callable[P, None]:
    """Run an asynchronous test in every world."""
    return pytest.mark.worlds("real", "simulated")(here()(test))


def simulated(*, why: str) -> Callable[[Test[P]], Callable[P, None]]:
    """Run an asynchronous test in the simulation only."""
    return lambda test: pytest.mark.worlds("simulated", why=why)(here()(test))


def in_real_time(*, why: str) -> Callable[[Test[P]], Callable[P, None]]:
    """Run an asynchronous test in real time only."""
    return lambda test: pytest.mark.worlds("real", why=why)(here()(test))


def here(*, seed: int | None = None) -> Callable[[Test[P]], Callable[P, None]]:
    """Make an asynchronous function one that runs in the world of the present test; ``seed``: under this seed."""

    def decorate(test: Test[P]) -> Callable[P, None]:
        @functools.wraps(test)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            world = Now.world
            assert world is not None, f"{test.__name__} has no worlds: see tests/support/worlds.py"
            if seed is not None and world.kind == "simulated":
                world = World("simulated", seed, world.busy)
            world.run(lambda: test(*args, **kwargs))

        return run

    return decorate


def now() -> float:
    """Seconds since the test began."""
    return asyncio.get_running_loop().time() - Now.begun


def took(seconds: float, *, give: float = 0.001, since: float = 0.0) -> bool:
    """Whether ``seconds`` have passed, since the test began or since it was ``since``: to ``give``, which is for
    :func:`turns`, and for tests that look now and then. In real time, whether they have at least."""
    passed = now() - since
    if is_real():
        return passed >= seconds - ROUNDING
    return abs(passed - seconds) <= give


def is_real() -> bool:
    """Whether time passes by itself."""
    return Now.world is not None and Now.world.kind == "real"


async def turns(count: int = 50) -> None:
    """Let everybody else run who can.

    Simulated, until nobody can without the clock moving on, which it does by next to nothing; in real time, for
    ``count`` turns of the loop.
    """
    if is_real():
        for _ in range(count):
            await asyncio.sleep(0)
    else:
        await asyncio.sleep(1e-6)


async def steps(count: int) -> None:
    """Give way ``count`` times, whoever comes next."""
    for _ in range(count):
        await asyncio.sleep(0)
