"""Line and bar charts as inline SVG. Colours and fonts come from the page's style sheet, by class name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from palmette.console.plain import printable
from palmette.console.report_data import Mark, RewardPoint

WIDTH, HEIGHT = 720, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 84, 18, 34
_MOST_POINTS = 400


class _Frame:
    """Maps values to the plot area and draws its axes."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.x0, self.x1 = x if x[0] < x[1] else (x[0] - 0.5, x[0] + 0.5)
        self.y0, self.y1 = y

    def x(self, value: float) -> float:
        return _LEFT + (value - self.x0) / (self.x1 - self.x0) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - _BOTTOM - (value - self.y0) / (self.y1 - self.y0) * (HEIGHT - _TOP - _BOTTOM)

    def axes(self, x_label: str, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> list[str]:
        right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
        parts: list[str] = []
        for tick in y_ticks:
            y = self.y(tick)
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
        for tick in x_ticks:
            place = f'x="{self.x(tick):.1f}" y="{bottom + 16}" text-anchor="middle"'
            parts.append(f'<text class="tick" {place}>{tick:,g}</text>')
        parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{right}" y="{HEIGHT - 3}" text-anchor="end">{escape(x_label)}</text>')
        return parts


def line_chart(
    points: Sequence[RewardPoint],
    *,
    title: str,
    x_label: str,
    levels: Sequence[tuple[str, float]] = (),
    marks: Sequence[Mark] = (),
) -> str:
    """Mean reward by step, with dashed ``levels`` (name, value) and a tick above each of ``marks``."""
    known = [point for point in points if point.mean is not None and math.isfinite(point.mean)]
    values = [point.mean for point in known if point.mean is not None] + [value for _, value in levels]
    steps = [point.step for point in points] + [mark.step for mark in marks]
    frame = _Frame((min(steps, default=0), max(steps, default=1)), _span(values))
    parts = frame.axes(x_label, _ticks(frame.x0, frame.x1, whole=True), _ticks(frame.y0, frame.y1))
    for name, value in levels:
        y, right = frame.y(value), WIDTH - _RIGHT
        parts.append(f'<line class="level" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="note" x="{right + 6}" y="{y + 4:.1f}">{escape(name)}</text>')
    for mark in marks:
        x = frame.x(mark.step)
        parts.append(
            f'<g class="mark"><line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>'
            f'<path d="M{x - 5:.1f},{_TOP - 9} h10 l-5,9 z"><title>step {mark.step:,}: '
            f"{escape(printable(mark.label))}</title></path></g>"
        )
    for stretch in _stretches(points):
        path = " ".join(f"{frame.x(step):.1f},{frame.y(mean):.1f}" for step, mean in stretch)
        parts.append(f'<polyline class="line" points="{path}"/>')
    if len(known) <= _MOST_POINTS:
        for point in known:
            mean = point.mean or 0.0
            note = f"step {point.step:,}: {mean:.3f}" + (f" over {point.scored:,} scored" if point.scored else "")
            parts.append(
                f'<circle class="dot" cx="{frame.x(point.step):.1f}" cy="{frame.y(mean):.1f}" r="3">'
                f"<title>{escape(note)}</title></circle>"
            )
    return _svg(title, parts)


def cumulative_mean(rewards: Sequence[float], *, title: str) -> str:
    """The mean of the first n rewards, by n: how soon the result settled."""
    means: list[RewardPoint] = []
    total = 0.0
    every = max(1, len(rewards) // _MOST_POINTS)
    for n, reward in enumerate(rewards, 1):
        total += reward
        if n % every == 0 or n in (1, len(rewards)):
            means.append(RewardPoint(step=n, mean=total / n))
    # Drawn as a line alone: the points are no observations of their own.
    frame = _Frame((1, max(len(rewards), 1)), _span([point.mean or 0.0 for point in means]))
    parts = frame.axes("scored episodes", _ticks(frame.x0, frame.x1, whole=True), _ticks(frame.y0, frame.y1))
    path = " ".join(f"{frame.x(p.step):.1f},{frame.y(p.mean or 0.0):.1f}" for p in means)
    parts.append(f'<polyline class="line" points="{path}"/>')
    if means and means[-1].mean is not None:
        last = means[-1].mean
        parts.append(f'<circle class="dot" cx="{frame.x(means[-1].step):.1f}" cy="{frame.y(last):.1f}" r="3.5"/>')
        parts.append(f'<text class="note" x="{WIDTH - _RIGHT + 8}" y="{frame.y(last) + 4:.1f}">{last:.3f}</text>')
    return _svg(title, parts)


def histogram(rewards: Sequence[float], *, title: str, bins: int = 20) -> str:
    """How many scored episodes got which reward; the last bin includes its upper end."""
    low, high = _span(rewards)
    counts = [0] * bins
    for reward in rewards:
        counts[min(int((reward - low) / (high - low) * bins), bins - 1)] += 1
    frame = _Frame((low, high), (0, max([*counts, 1]) * 1.05))
    parts = frame.axes("reward", _ticks(low, high), _ticks(0, frame.y1, whole=True))
    for index, number in enumerate(counts):
        start, end = low + (high - low) * index / bins, low + (high - low) * (index + 1) / bins
        x, top = frame.x(start), frame.y(number)
        note = f"{start:.3g} to {end:.3g}: {number:,}"
        parts.append(
            f'<rect class="bar" x="{x + 1:.1f}" y="{top:.1f}" width="{frame.x(end) - x - 2:.1f}" '
            f'height="{HEIGHT - _BOTTOM - top:.1f}" rx="2"><title>{note}</title></rect>'
        )
    return _svg(title, parts)


def _svg(title: str, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">\n{body}\n</svg>'


def _span(values: Sequence[float]) -> tuple[float, float]:
    """0 to 1 where that holds all values, as it does for most rewards; else round numbers around them."""
    low, high = min([0.0, *values]), max([1.0, *values])
    if (low, high) == (0.0, 1.0):
        return low, high
    step = _step(high - low)
    return math.floor(low / step) * step, math.ceil(high / step) * step


def _step(span: float, *, whole: bool = False) -> float:
    """A round distance (1, 2 or 5 times a power of ten) that divides ``span`` into four to seven."""
    raw = span / 6.5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
    return max(step, 1.0) if whole else step


def _ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    step = _step(high - low, whole=whole)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 10) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _stretches(points: Sequence[RewardPoint]) -> list[list[tuple[int, float]]]:
    """Runs of known points: a step without a reward is a gap in the line."""
    stretches: list[list[tuple[int, float]]] = [[]]
    for point in points:
        if point.mean is None or not math.isfinite(point.mean):
            stretches.append([])
        else:
            stretches[-1].append((point.step, point.mean))
    return [stretch for stretch in stretches if len(stretch) > 1]
