"""What the schedules of a run came to, as two tables."""

from __future__ import annotations

from collections import Counter
from typing import Final, get_args

from differential.schedules import End, Kind

from palmette.supervisors.policy import Restart
from palmette.supervisors.supervisor import Strategy

Coverage = Counter[tuple[str, ...]]
"""``("end", strategy, restart, reason)``: a living child ended; ``("order", call, result)``: an administration call."""

STRATEGIES: Final = (*get_args(Strategy), "dynamic")
RESULTS: Final = ("ok", "listed", "exists", "not found", "refused", "gone")


def cells() -> list[tuple[str, ...]]:
    """Every combination of strategy, restart type and reason, and every call: what a long enough run must reach."""
    ends: list[tuple[str, ...]] = [
        ("end", strategy, restart, reason)
        for strategy in STRATEGIES
        for restart in get_args(Restart)
        for reason in get_args(End)
    ]
    return [*ends, *(("order", kind) for kind in get_args(Kind))]


def count(figures: Coverage, cell: tuple[str, ...]) -> int:
    """How often ``cell``, whatever its further fields."""
    return sum(times for key, times in figures.items() if key[: len(cell)] == cell)


def table(figures: Coverage) -> str:
    """For people."""
    lines = [_row("children that ended", "", get_args(End))]
    for strategy in STRATEGIES:
        for restart in get_args(Restart):
            numbers = [count(figures, ("end", strategy, restart, reason)) for reason in get_args(End)]
            lines.append(_row(strategy, restart, numbers))
    lines += ["", _row("administration", "", RESULTS)]
    for kind in get_args(Kind):
        lines.append(_row(kind, "", [figures[("order", kind, result)] for result in RESULTS]))
    return "\n".join(lines)


def _row(first: str, second: str, cells: tuple[object, ...] | list[int]) -> str:
    return f"{first:20}{second:12}" + "".join(f"{cell!s:>11}" for cell in cells)
