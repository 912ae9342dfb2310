"""A curve of rewards for the terminal, in braille dots: two by four of them in each character cell.

Values that are missing (``None``) or not finite are gaps, not zeros: the line stops before them and goes on
after them.

>>> print(curve([0.0, 0.5, 1.0], 16, 2).plain)
1.0 ┤⠀⠀⠀⠀⢀⣀⠤⠤⠒⠒⠉
0.0 ┤⣀⠤⠒⠊⠁
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.text import Text

# Bits of a braille cell (U+2800 + mask) by row and column, Unicode 15 chart 2800.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))

MIN_WIDTH = 10


def curve(
    values: Sequence[float | None],
    width: int,
    height: int,
    *,
    bounds: tuple[float, float] | None = None,
    ascii_only: bool = False,
    style: str = "green",
) -> Text:
    """Draw ``values``, oldest first, into ``height`` lines of at most ``width`` cells, axis labels included.

    Without ``bounds`` the vertical axis spans 0 to 1 where that holds all values, as it does for rewards, and
    the range of the values otherwise. More values than dots are averaged; fewer are joined by straight lines.

    Raises:
        ValueError: ``width`` is below 10, ``height`` below 1, or ``bounds`` are not finite and ascending.
    """
    if width < MIN_WIDTH or height < 1:
        raise ValueError(f"a curve needs at least {MIN_WIDTH} columns and 1 line, got {width} and {height}")
    known = [value if value is not None and math.isfinite(value) else None for value in values]
    low, high = _bounds(known) if bounds is None else bounds
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"bounds must be finite and ascending, got {low} and {high}")
    labels = _labels(low, high, height)
    gutter = max(len(label) for label in labels)
    # Labels of very large numbers would leave no room: the curve goes without.
    labelled = gutter + 2 <= width // 2
    columns = width - gutter - 2 if labelled else width
    cells = _rasterise(known, columns, height, low, high)
    drawn = Text(no_wrap=True)
    for row, masks in enumerate(cells):
        if row:
            drawn.append("\n")
        if labelled:
            drawn.append(f"{labels[row]:>{gutter}} {'|' if ascii_only else '┤'}", style="dim")
        line = "".join((" *"[mask != 0] if ascii_only else chr(0x2800 + mask)) for mask in masks)
        drawn.append(line.rstrip(" \u2800"), style=style)
    return drawn


def _bounds(known: Sequence[float | None]) -> tuple[float, float]:
    finite = [value for value in known if value is not None]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    if low >= 0.0 and high <= 1.0:
        return 0.0, 1.0
    if low == high:
        low, high = low - max(1.0, abs(low) / 2), high + max(1.0, abs(high) / 2)
    # Near the largest float the widened range may overflow.
    limit = 1e308
    return max(low, -limit), min(high, limit)


def _labels(low: float, high: float, height: int) -> list[str]:
    if height == 1:
        return [_number(high)]
    labels = [""] * height
    labels[0], labels[-1] = _number(high), _number(low)
    if height >= 5 and height % 2:
        labels[height // 2] = _number(low / 2 + high / 2)
    return labels


def _number(value: float) -> str:
    return f"{value:.1f}" if abs(value) < 1000 and abs(value * 10 - round(value * 10)) < 1e-9 else f"{value:.3g}"


def _rasterise(known: Sequence[float | None], columns: int, rows: int, low: float, high: float) -> list[list[int]]:
    cells = [[0] * columns for _ in range(rows)]
    for x, y in _dots(known, columns * 2, rows * 4, low, high):
        cells[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
    return cells


def _dots(known: Sequence[float | None], across: int, down: int, low: float, high: float) -> Iterator[tuple[int, int]]:
    """The dots that are set: for every value a dot, and between neighbours a straight line without holes."""

    def level(value: float) -> int:
        share = (value / 2 - low / 2) / (high / 2 - low / 2)  # halves: the difference may exceed the largest float
        return down - 1 - round(min(max(share, 0.0), 1.0) * (down - 1))

    points = _resample(known, across)
    step = (across - 1) / (len(points) - 1) if len(points) > 1 else 0.0
    before: tuple[int, int] | None = None
    for index, value in enumerate(points):
        if value is None:
            before = None
            continue
        here = (round(index * step), level(value))
        yield from _line(before or here, here)
        before = here


def _line(start: tuple[int, int], end: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Dots on a straight line, both ends included, by the digital differential analyser."""
    (x0, y0), (x1, y1) = start, end
    steps = max(abs(x1 - x0), abs(y1 - y0), 1)
    for i in range(steps + 1):
        yield x0 + round((x1 - x0) * i / steps), y0 + round((y1 - y0) * i / steps)


def _resample(known: Sequence[float | None], most: int) -> list[float | None]:
    """At most ``most`` values, each the mean of its share of ``known``, ``None`` where that is empty."""
    if len(known) <= most:
        return list(known)
    means: list[float | None] = []
    for i in range(most):
        share = [v for v in known[i * len(known) // most : (i + 1) * len(known) // most] if v is not None]
        means.append(math.fsum(v / len(share) for v in share) if share else None)
    return means
