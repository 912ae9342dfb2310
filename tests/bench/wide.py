"""One static supervisor of 10,000 children: how each step of its life grows with their number.

The reference for growth is 1, linear; that of the costs is one call round trip to the same supervisor.
"""

from __future__ import annotations

import time

from palmette.actors import System
from palmette.supervisors import Supervisor, child
from tests.bench.measure import Line, Settings, growth, linear, rounds
from tests.bench.workers import Echo, tree, until

STEPS = ("start", "which_children", "one restart", "shutdown")


async def measure(settings: Settings) -> list[Line]:
    """The row."""
    sizes = (20, 40, 80) if settings.small else (1_000, 3_000, 10_000)
    count = 2 if settings.small else 3
    costs: dict[str, dict[int, list[float]]] = {step: {} for step in STEPS}
    for n in sizes:
        lives: list[dict[str, float]] = []

        async def life(n: int = n, lives: list[dict[str, float]] = lives) -> float:
            lives.append(await _life(n))
            return 0.0

        await rounds(count, {"palmette": life})
        for step in STEPS:
            costs[step][n] = [life[step] for life in lives[1:]]
    lines: list[Line] = []
    for step in STEPS:
        exponents = [growth({n: costs[step][n][number] for n in sizes}) for number in range(count)]
        line = linear(f"{sizes[-1]:,} children: {step}", settings.loop, exponents, [1.0], "linear")
        slowest = max(costs[step][sizes[-1]])
        lines.append(
            Line(
                **{name: getattr(line, name) for name in line.__struct_fields__ if name != "note"},
                note=f"{line.note}; at {sizes[-1]:,} at most {1000 * slowest:.2f} ms",
            )
        )
    return lines


async def _life(n: int) -> dict[str, float]:
    """Seconds of each step with ``n`` children."""
    cost: dict[str, float] = {}
    spec = Supervisor.spec(
        name="wide", children=[child(Echo, name=f"c{number}") for number in range(n)], max_restarts=1_000_000
    )
    begun = time.process_time()
    async with System.start(tree(spec)) as system:
        cost["start"] = time.process_time() - begun
        wide = system.whereis("wide", Supervisor)

        begun = time.process_time()
        for _ in range(3):
            assert len(await wide.call(Supervisor.which_children)) == n
        cost["which_children"] = (time.process_time() - begun) / 3

        begun = time.process_time()
        for number in range(10):
            ref = system.ref_at(f"/wide/c{number * n // 10}", Echo)
            ref.cast(Echo.crash)
            await until(lambda: ref.incarnation == 2 and ref.is_alive())  # noqa: B023 - awaited at once
        cost["one restart"] = (time.process_time() - begun) / 10

        begun = time.process_time()
        await wide.stop(timeout=600.0)
        cost["shutdown"] = time.process_time() - begun
    return cost
