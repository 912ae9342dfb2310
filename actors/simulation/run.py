"""Run an asyncio program on virtual time under a seeded schedule and injected faults.

    result = simulation.run(main, seed=17, faults=RandomFaults(rate=0.2, match="/episodes/*"))

``main`` is what one would give to ``asyncio.run``; every ``System.start`` inside is simulated. The same seed gives the
same event log, byte for byte. What ``main`` raises is raised, as :class:`SimulationFailed` with the seed and the faults
that it took.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Final, Generic, TypeVar

from palmette.actors import collector
from palmette.actors.cluster.capabilities import Capabilities, Gpu
from palmette.actors.cluster.placer import Hosts
from palmette.actors.errors import PalmetteError
from palmette.actors.simulation.clock import virtual_time
from palmette.actors.simulation.faults import Fault, Injector, RandomFaults
from palmette.actors.simulation.loop import SimulatedLoop
from palmette.actors.simulation.world import EventLog, SimulatedSystem

T = TypeVar("T")

Main = Callable[[], Coroutine[object, object, T]]

HOSTS: Final[Hosts] = {
    "host": Capabilities(cpus=64, memory=512 << 30, gpus=tuple(Gpu(index, memory=80 << 30) for index in range(8)))
}
"""What a simulation plays on where nothing else is said: one large host."""


class SimulationFailed(PalmetteError):
    """A simulated program raised. ``__cause__`` is what it raised; ``seed`` and ``faults`` bring it back."""

    def __init__(self, seed: int, faults: Sequence[Fault], log: str, error: BaseException) -> None:
        self.seed = seed
        self.faults = tuple(faults)
        self.log = log
        told = "".join(f"\n    {fault}" for fault in faults) or " none"
        super().__init__(f"seed {seed}: {type(error).__name__}: {error}\n  faults:{told}")


class SimulationResult(Generic[T]):
    """How a simulation went."""

    def __init__(self, value: T, log: str, faults: Sequence[Fault], steps: int, seconds: float) -> None:
        self.value = value
        """What ``main`` returned."""
        self.log = log
        """The event log: one line each, virtual seconds first."""
        self.faults = tuple(faults)
        """The faults that were injected, given or drawn."""
        self.steps = steps
        """Steps of the loop."""
        self.seconds = seconds
        """Virtual seconds."""


def run(
    main: Main[T],
    *,
    seed: int = 0,
    faults: Sequence[Fault] | RandomFaults = (),
    max_seconds: float = 7 * 86400.0,
    hosts: Hosts = HOSTS,
) -> SimulationResult[T]:
    """Run ``main`` once, on ``hosts`` by name. Not from inside a running loop.

    Raises:
        SimulationFailed: ``main`` raised; or it got ``Stuck``, or ``RanAway``.
    """
    loop = SimulatedLoop(seed, max_seconds=max_seconds)
    loop.system_class, loop.hosts = SimulatedSystem, hosts
    loop.log = EventLog(loop)
    loop.injector = Injector(faults, seed)
    try:
        with virtual_time(loop, seed), _no_collections():
            value = loop.run_until_complete(main())
        return SimulationResult(value, loop.log.text(), loop.injector.injected, loop.steps, loop.time())
    except Exception as error:
        # What else goes wrong in a program that has failed is no news; and told whenever the garbage collector comes by
        # it, in the middle of a test runner's own work on the traceback, it can break that (Python 3.11).
        loop.set_exception_handler(_untold)
        raise SimulationFailed(seed, loop.injector.injected, loop.log.text(), error) from error
    finally:
        _close(loop)


@contextlib.contextmanager
def _no_collections() -> Generator[None]:
    """Keep the garbage collector from choosing its own time: what is held weakly would end when it pleases.

    The loop collects instead, every so many steps; only among what the simulation has made, as a test runner's own heap
    is large (with torch in it, one look takes half a second).
    """
    was_enabled, was_frozen = gc.isenabled(), collector.is_tuned()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_frozen:  # by a program that has tuned the collector; what we have left is let go by the next simulation
            gc.freeze()
        if was_enabled:
            gc.enable()


def _untold(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """Say nothing."""


def _close(loop: SimulatedLoop) -> None:
    """End what a failed program left behind, so that one seed's tasks do not haunt the next."""
    for node in list(loop.nodes.values()):
        node.die()
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        with contextlib.suppress(PalmetteError):  # what is stuck stays stuck, and goes with its loop
            loop.run_until_complete(asyncio.wait(left, timeout=60.0))
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined] # pyright: ignore
    for node in loop.dead:
        node.bury()
    loop.close()


def shrink(
    main: Main[object],
    failure: SimulationFailed,
    *,
    max_runs: int = 200,
    max_seconds: float = 7 * 86400.0,
    hosts: Hosts = HOSTS,
) -> SimulationFailed:
    """The same failure with as few faults as can be found: delta debugging over the plan (Zeller 2002, *ddmin*).

    A smaller plan counts if it fails with an error of the same type under the same seed.
    """
    best, runs = failure, 0
    parts = 2
    while len(best.faults) > 0 and runs < max_runs:
        size = -(-len(best.faults) // parts)
        pieces = [best.faults[at : at + size] for at in range(0, len(best.faults), size)]
        for index in range(len(pieces)):
            rest = [fault for at, piece in enumerate(pieces) if at != index for fault in piece]
            runs += 1
            smaller = _fails(main, best.seed, rest, max_seconds, hosts)
            if smaller is not None and type(smaller.__cause__) is type(failure.__cause__):
                best, parts = smaller, max(parts - 1, 2)
                break
        else:
            if size <= 1:
                break
            parts = min(parts * 2, len(best.faults))
    return best


def _fails(
    main: Main[object], seed: int, faults: Sequence[Fault], max_seconds: float, hosts: Hosts
) -> SimulationFailed | None:
    try:
        run(main, seed=seed, faults=faults, max_seconds=max_seconds, hosts=hosts)
    except SimulationFailed as failure:
        return failure
    return None
