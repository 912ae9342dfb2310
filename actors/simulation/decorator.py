"""``@simulate``: a test that runs once for each of many seeds, and brings back the one that failed.

    @simulate(seeds=1000, faults=RandomFaults(rate=0.2, match="/episodes/*"))
    async def test_every_episode_ends_exactly_once() -> None:
        async with System.start(tree()) as system:
            ...

A failing seed is reported together with the smallest set of faults that still fails under it. ``pytest
--palmette-seed 17`` runs the one seed 17; the failing faults are drawn from it again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Sequence
from typing import ParamSpec

from palmette.actors.cluster.placer import Hosts
from palmette.actors.simulation.faults import Fault, RandomFaults
from palmette.actors.simulation.run import HOSTS, SimulationFailed, run, shrink

P = ParamSpec("P")


class Options:
    """What the command line of the test runner says; set by :mod:`palmette.actors.simulation.plugin`."""

    seed: int | None = None


def simulate(
    *,
    seeds: int = 100,
    faults: Sequence[Fault] | RandomFaults = (),
    max_seconds: float = 7 * 86400.0,
    hosts: Hosts = HOSTS,
) -> Callable[[Callable[P, Coroutine[object, object, None]]], Callable[P, None]]:
    """Make an ``async def`` test a test on virtual time, run under ``seeds`` schedules from 0 on.

    Args:
        seeds: How many.
        faults: Given ones, the same under every seed; or random ones, drawn from each.
        max_seconds: Virtual seconds after which a run counts as run away.
        hosts: What the hosts offer, by name, to children that say what they need (``on=needs(gpu=1)``).
    """
    if seeds < 1:
        raise ValueError(f"at least one seed is needed, got {seeds}")

    def decorate(test: Callable[P, Coroutine[object, object, None]]) -> Callable[P, None]:
        @functools.wraps(test)
        def runner(*args: P.args, **kwargs: P.kwargs) -> None:
            def main() -> Coroutine[object, object, None]:
                return test(*args, **kwargs)

            for seed in range(seeds) if Options.seed is None else (Options.seed,):
                try:
                    run(main, seed=seed, faults=faults, max_seconds=max_seconds, hosts=hosts)
                except SimulationFailed as failure:
                    smallest = shrink(main, failure, max_seconds=max_seconds, hosts=hosts)
                    smallest.add_note(f"run it again with: pytest -k {test.__name__} --palmette-seed {seed}")
                    raise smallest from smallest.__cause__

        # pytest would otherwise look through the wrapper, see a coroutine function, and run it on a real loop.
        del runner.__wrapped__
        return runner

    return decorate
