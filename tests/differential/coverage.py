"""What the schedules of a run came to, as two tables."""

from __future__ import annotations

from collections import Counter
from typing import Final, get_args

from differential.schedules import End, Kind

from palmette.supervisors.policy import Restart
from palmette.supervisors.supervisor import Strategy

Coverage = Counter[tuple[str, ...]]
"""``("end", strategy, restart, reason)``: a living child ended; ``("order", call, result)``: an administration call;
``("decline", strategy, restart, when)``: a child declined to start."""

STRATEGIES: Final = (*get_args(Strategy), "dynamic")
RESULTS: Final = ("ok", "declined", "listed", "exists", "not found", "refused", "gone")
WHENS: Final = ("at first", "restart", "start_child", "restart_child")
"""Of a decline: in the start of its supervisor, in a restart, or by an order."""


def cells() -> list[tuple[str, ...]]:
    """Every combination of strategy, restart type and reason, and every call: what a long enough run must reach."""
    ends: list[tuple[str, ...]] = [
        ("end", strategy, restart, reason)
        for strategy in STRATEGIES
        for restart in get_args(Restart)
        for reason in get_args(End)
    ]
    return [*ends, *(("order", kind) for kind in get_args(Kind)), *_declines()]


def _declines() -> list[tuple[str, ...]]:
    """A temporary child is never restarted; a dynamic one declines only at its first start (see ``drawing``)."""
    static: list[tuple[str, ...]] = [
        ("decline", strategy, restart, when)
        for strategy in get_args(Strategy)
        for restart in get_args(Restart)
        for when in WHENS
        if restart != "temporary" or when in ("at first", "start_child")
    ]
    return static + [("decline", "dynamic", restart, "start_child") for restart in get_args(Restart)]


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
    lines += ["", _row("children that declined", "", WHENS)]
    for strategy in STRATEGIES:
        for restart in get_args(Restart):
            numbers = [figures[("decline", strategy, restart, when)] for when in WHENS]
            lines.append(_row(strategy, restart, numbers))
    lines += ["", _row("administration", "", RESULTS)]
    for kind in get_args(Kind):
        lines.append(_row(kind, "", [figures[("order", kind, result)] for result in RESULTS]))
    return "\n".join(lines)


def _row(first: str, second: str, cells: tuple[object, ...] | list[int]) -> str:
    return f"{first:20}{second:12}".ljust(32) + "".join(f"{cell!s:>14}" for cell in cells)
