"""The bench's result, for people: a table on the terminal, a page and a plot in files."""

from __future__ import annotations

import importlib.util
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.measure import Line

# pyright: reportUnknownMemberType=false

COLUMNS = ("work", "loop", "against", "ours", "theirs", "ratio", "range", "bar", "", "note")


def cells(line: Line) -> tuple[str, ...]:
    """A line as text."""
    bar = "" if line.at_least is None else f"≥ {line.at_least:g}"
    if line.at_most is not None:
        bar = f"≤ {line.at_most:g}"
    return (
        line.work,
        line.loop,
        line.reference,
        quantity(line.ours, line.unit),
        quantity(line.theirs, line.unit),
        number(line.ratio),
        f"{number(line.low)}..{number(line.high)}",
        bar,
        {True: "met", False: "MISSED", None: ""}[line.met],
        line.note,
    )


def number(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 100 else f"{value:,.0f}"


def quantity(value: float, unit: str) -> str:
    """Seconds and bytes in readable sizes."""
    if unit == "B":
        return f"{value:,.0f} B"
    if unit == "s":
        for factor, name in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
            if value * factor >= 1.0:
                return f"{value * factor:.3g} {name}"
        return f"{value * 1e9:.0f} ns"
    return number(value)


def machine() -> str:
    """What it was measured on, in words."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{cores} cores ({platform.machine()}), {platform.system()} {platform.release().split('-')[0]}, "
        f"{platform.python_implementation()} {platform.python_version()}"
    )


def show(lines: Sequence[Line]) -> None:
    """On the terminal."""
    table = Table(title=f"palmette on {machine()}")
    for name in COLUMNS:
        table.add_column(name, justify="right" if name in ("ours", "theirs", "ratio", "range") else "left")
    for line in lines:
        style = {True: "green", False: "bold red", None: "dim"}[line.met]
        table.add_row(*cells(line), style=style)
    Console(width=None if Console().is_terminal else 200).print(table)


def page(lines: Sequence[Line], *, date: str) -> str:
    """As Markdown."""
    rows = [
        f"Measured on {date}: {machine()}. Median and range of interleaved rounds; the collector is on for all.",
        "A ratio with a bar `≤` is of costs (ours to theirs), one with `≥` of speeds (theirs to ours).",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *("| " + " | ".join(cells(line)) + " |" for line in lines),
    ]
    return "\n".join(rows) + "\n"


def plot(lines: Sequence[Line], path: Path) -> bool:
    """How far each bar is met, as a picture at ``path``. False where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return False
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    barred = [line for line in reversed(lines) if line.met is not None]
    # On one scale: the share of the bar that is used up. Right of 1 it is missed.
    used: list[tuple[float, float, float]] = []
    for line in barred:
        if line.at_most is not None:
            used.append((line.low / line.at_most, line.ratio / line.at_most, line.high / line.at_most))
        else:
            assert line.at_least is not None
            used.append((line.at_least / line.high, line.at_least / line.ratio, line.at_least / line.low))
    figure, axes = pyplot.subplots(figsize=(9.0, 0.36 * len(barred) + 1.2), layout="constrained")
    for place, (line, (low, middle, high)) in enumerate(zip(barred, used, strict=True)):
        colour = "tab:green" if line.met else "tab:red"
        axes.barh(place, middle, color=colour, alpha=0.6)
        axes.plot([low, high], [place, place], color="black", linewidth=1.0)
    axes.set_yticks(range(len(barred)), [f"{line.work} ({line.loop})" for line in barred], fontsize=7)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xlabel("share of the bar that is used: left of 1 is met (line: range of the rounds)")
    figure.savefig(path)
    pyplot.close(figure)
    return True
