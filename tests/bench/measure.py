"""How things are measured here.

What is compared runs turn and turn about (A B A B …), so that a machine that slows down slows both.
Every figure is a ratio of two costs of the same round; shown are the median of the rounds and the range. The first
round warms up and does not count. The garbage collector stays on, as in life, for all sides; it is run by hand before
each measurement, so that nobody pays for what another left behind.

Where both sides only compute, in this process, it is processor time that is compared: on a shared machine the wall
clock mostly tells of the others. Where somebody waits (for another thread or process, or a timer) it is the wall clock.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import math
import statistics
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Literal, TypeVar

import msgspec

T = TypeVar("T")
LoopName = Literal["asyncio", "uvloop"]
Piece = Callable[[], float | Awaitable[float]]
"""Does some work and says what one unit of it cost."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured."""

    small: bool = False
    """For a test of the bench itself: every size tiny, every row there."""
    loop: LoopName = "asyncio"

    def size(self, full: int, small: int = 20) -> int:
        return small if self.small else full

    @property
    def rounds(self) -> int:
        return 1 if self.small else 7


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table."""

    work: str
    loop: str
    reference: str
    ours: float
    """Median cost, in ``unit``."""
    theirs: float
    unit: Literal["s", "B", ""]
    """Seconds, bytes, or a plain number."""
    ratio: float
    low: float
    high: float
    at_most: float | None = None
    """The bar for a ratio of costs (ours to theirs)."""
    at_least: float | None = None
    """The bar for a ratio of speeds (theirs to ours)."""
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; ``None`` where there is none."""
        if self.at_most is not None:
            return self.ratio <= self.at_most
        return None if self.at_least is None else self.ratio >= self.at_least


class Costs(dict[str, list[float]]):
    """What each piece cost by the wall clock, round by round."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__({name: [] for name in names})
        self.cpu: dict[str, list[float]] = {name: [] for name in self}
        """The same in processor time of this process."""


async def rounds(count: int, pieces: Mapping[str, Piece]) -> Costs:
    """Measure ``pieces`` turn and turn about; what each cost, without the first round."""
    costs = Costs(pieces)
    for number in range(count + 1):
        for name, piece in pieces.items():
            gc.collect()
            wall, cpu = time.perf_counter(), time.process_time()
            cost = piece()
            if inspect.isawaitable(cost):
                cost = await cost
            share = (time.process_time() - cpu) / (time.perf_counter() - wall)
            if number:
                costs[name].append(cost)
                costs.cpu[name].append(cost * share)
    return costs


def fastest(costs: Mapping[str, Sequence[float]], names: Sequence[str]) -> str:
    """Which of ``names`` has the lowest median."""
    return min(names, key=lambda name: statistics.median(costs[name]))


def compare(
    work: str,
    loop: str,
    costs: Mapping[str, Sequence[float]],
    ours: str,
    theirs: str,
    *,
    unit: Literal["s", "B", ""] = "s",
    at_most: float | None = None,
    at_least: float | None = None,
    speed: bool = False,
    note: str = "",
) -> Line:
    """The line for two of the measured pieces. With ``at_least`` or ``speed`` the ratio is of speeds."""
    pairs = list(zip(costs[ours], costs[theirs], strict=True))
    speed = speed or at_least is not None
    ratios = [(b / a if speed else a / b) for a, b in pairs]
    return Line(
        work=work,
        loop=loop,
        reference=theirs,
        ours=statistics.median(costs[ours]),
        theirs=statistics.median(costs[theirs]),
        unit=unit,
        ratio=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
        at_most=at_most,
        at_least=at_least,
        note=note,
    )


def growth(costs: Mapping[int, float]) -> float:
    """The exponent *k* of ``cost ~ n**k``, by least squares on logarithms: 1 is linear, 0 does not grow."""
    xs = [math.log(n) for n in costs]
    ys = [math.log(cost) for cost in costs.values()]
    return statistics.linear_regression(xs, ys).slope


LINEAR = 1.2
"""An exponent up to this counts as linear. A quadratic step shows as 1.5 and more over these sizes; bare asyncio tasks,
which nobody calls quadratic, come out between 1.1 and 1.3, for caches and the collector's old generation."""


def linear(work: str, loop: str, ours: Sequence[float], theirs: Sequence[float], reference: str) -> Line:
    """The line for exponents of growth; its "ratio" is our exponent itself."""
    return Line(
        work=work,
        loop=loop,
        reference=reference,
        ours=statistics.median(ours),
        theirs=statistics.median(theirs),
        unit="",
        ratio=statistics.median(ours),
        low=min(ours),
        high=max(ours),
        at_most=LINEAR,
        note="exponent k of n^k",
    )


async def timed(work: Awaitable[object], units: int = 1) -> float:
    """Seconds that ``work`` takes, per unit."""
    begun = time.perf_counter()
    await work
    return (time.perf_counter() - begun) / units


def run(work: Coroutine[object, object, T], loop: LoopName) -> T:
    """Run ``work`` on the named kind of event loop."""
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)
