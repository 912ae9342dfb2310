"""The live view of a run: one screen, drawn anew from a :class:`Snapshot` whenever somebody looks.

:func:`render` is pure. It fits any terminal, one without colour or Unicode included, never draws more lines
than it was given, and gives up its parts in this order when lines are scarce: the log, the curve and the
restarts, the tree. Progress and outcomes always stay.

>>> import io
>>> from rich.console import Console
>>> snapshot = Snapshot(run_id="k3", title="trail", phase="warm start", done=3, total=12, elapsed=4)
>>> screen = Console(width=52, color_system=None, file=io.StringIO(), record=True)
>>> screen.print(render(snapshot, 52, 8))
>>> print(screen.export_text(), end="")
trail  run k3                             warm start
━━━━━━━──────────────────────── 3 of 12   25%  4.0 s
0 ended = 0 scored
"""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from palmette.console.curve import MIN_WIDTH, curve
from palmette.console.fold import lines
from palmette.console.palette import counts
from palmette.console.plain import duration, legible, one_line, path_tail
from palmette.console.snapshot import RestartCount, Snapshot
from palmette.console.tree import SupervisionTree

_HEAD = 3
_MIDDLE = 7
# What is left to a big tree before the curve and the log get their lines.
_TREE = 7
_TALL = 36


@dataclass(frozen=True)
class _Rooms:
    """How many lines each part gets."""

    middle: int
    tree: int
    log: int


def render(snapshot: Snapshot, width: int, height: int) -> RenderableType:
    """``snapshot`` as a renderable of at most ``height`` lines of ``width`` cells."""
    rooms = _divide(snapshot, height)
    parts: list[RenderableType] = [
        _header(snapshot, width),
        _Progress(snapshot),
        _outcomes(snapshot, width),
    ]
    if rooms.middle:
        parts += [Text(""), _Middle(snapshot, width, rooms.middle)]
    if rooms.tree and snapshot.tree is not None:
        parts += [Text(""), SupervisionTree(snapshot.tree, most_lines=rooms.tree)]
    if rooms.log:
        parts.append(Text(""))
        for line in snapshot.log[-rooms.log :]:
            parts.append(Text(one_line(line, width), style="dim", no_wrap=True))
    return _Screen(Group(*parts), width, height)


class _Screen:
    """Holds what is drawn to the size that was asked for, and to the characters that the terminal has."""

    def __init__(self, content: RenderableType, width: int, height: int) -> None:
        self.content, self.width, self.height = content, width, height

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        drawn = console.render_lines(self.content, options.update(width=self.width, height=None), pad=False)
        for line in drawn[: self.height]:
            yield from legible(line, options)
            yield Segment.line()


def _divide(snapshot: Snapshot, height: int) -> _Rooms:
    """Share out the lines under the head. Every part below it takes one more, for the blank line above."""
    left = height - _HEAD
    tree = lines(snapshot.tree) + 1 if snapshot.tree is not None else 0
    kept = min(tree, _TREE + 1)
    middle = log = 0
    if (snapshot.curve or snapshot.restarts) and left - kept > _MIDDLE:
        middle = min(_MIDDLE if height < _TALL else _MIDDLE + 4, left - kept - 1)
        left -= middle + 1
    if snapshot.log and left - kept > 1:
        log = min(len(snapshot.log), 3 if height < _TALL else 6, left - kept - 1)
        left -= log + 1
    return _Rooms(middle=middle, tree=max(min(tree, left) - 1, 0), log=log)


def _header(snapshot: Snapshot, width: int) -> Text:
    line = Text(no_wrap=True)
    line.append(one_line(snapshot.title, width // 2), style="bold")
    line.append(f"  run {one_line(snapshot.run_id, 40)}", style="bright_black")
    phase = one_line(snapshot.phase, width // 3)
    gap = width - line.cell_len - Text(phase).cell_len
    if phase and gap < 2:
        line.truncate(max(width - Text(phase).cell_len - 2, 0))
        gap = width - line.cell_len - Text(phase).cell_len
    line.append(" " * max(gap, 0))
    line.append(phase, style="bold cyan")
    line.truncate(width)
    return line


class _Progress:
    """Bar, counts and times in one line."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        s, width = self.snapshot, options.max_width
        done = f"{s.done:,}" if s.total is None else f"{s.done:,} of {s.total:,}"
        share = min(s.done / s.total, 1.0) if s.total else 0.0
        percent = f"  {int(share * 100):3}%" if s.total else ""
        left = f"  {duration(s.eta)} left" if s.eta is not None else ""
        if s.total is None and not s.done:
            done = ""  # nothing to count yet
        tail = f" {done}{percent}  {duration(s.elapsed)}{left}"
        line = Text(no_wrap=True)
        cells = width - len(tail)
        if s.total and cells >= 8:
            filled = int(share * cells)
            full, rest = ("#", ".") if options.ascii_only else ("━", "─")
            line.append(full * filled, style="green")
            line.append(rest * (cells - filled), style="bright_black")
            line.append(tail)
        else:
            line.append(tail.strip())
        line.truncate(width)
        yield line


def _outcomes(snapshot: Snapshot, width: int) -> Text:
    """``1,088 ended = 1,071 scored + 9 agent failed + …``: the kinds that occurred, and always ``scored``."""
    tally = snapshot.tally
    line = Text(no_wrap=True)
    line.append(f"{tally.requested:,}", style="bold")
    line.append(" ended =")
    for index, (look, number) in enumerate(
        (look, number) for look, number in counts(tally) if number or look.kind == "scored"
    ):
        line.append(" + " if index else " ")
        line.append(f"{number:,} {look.label}", style=look.style)
    if tally.mean_reward is not None:
        mean = f"mean reward {tally.mean_reward:.3f}"
        gap = width - line.cell_len - len(mean)
        if gap >= 2:
            line.append(" " * gap)
            line.append(mean, style="bold green")
    line.truncate(width, overflow="ellipsis")
    return line


class _Middle:
    """The curve and, where there is room for both, the restarts beside it."""

    def __init__(self, snapshot: Snapshot, width: int, height: int) -> None:
        self.snapshot, self.width, self.height = snapshot, width, height

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        s, plain = self.snapshot, options.ascii_only
        right = min(max(self.width * 2 // 5, 30), 60) if s.restarts else 0
        left = self.width - right - (2 if right else 0)
        grid = Table.grid(padding=0)
        cells: list[RenderableType] = []
        if s.curve and left >= MIN_WIDTH + 6:
            grid.add_column(width=left + (2 if right else 0), no_wrap=True)
            known = [value for value in s.curve if value is not None]
            title = Text.assemble(("reward", "bold"))
            title.append(f"  {known[-1]:.3f}" if known else "", style="bright_black")
            cells.append(Group(title, curve(s.curve, left, self.height - 1, ascii_only=plain)))
        else:
            right = self.width
        if s.restarts:
            grid.add_column(width=right, no_wrap=True)
            cells.append(_restarts(s.restarts, right, self.height))
        grid.add_row(*cells)
        yield grid


def _restarts(restarts: tuple[RestartCount, ...], width: int, height: int) -> Text:
    """The most restarted children first; those without a line of their own are summed up."""
    ranked = sorted(restarts, key=lambda r: -r.count)
    total = sum(r.count for r in ranked)
    block = Text.assemble(("restarts", "bold"), no_wrap=True)
    block.append(f"  {total:,} in all", style="bright_black")
    room = height - 1
    shown = ranked if len(ranked) <= room else ranked[: room - 1]
    digits = max((len(f"{r.count:,}") for r in shown), default=1)
    for r in shown:
        line = Text(no_wrap=True)
        line.append(f"{r.count:>{digits},} ", style="yellow")
        line.append(path_tail(f"{r.supervisor.rstrip('/')}/{r.child}", max(width // 2, 12)))
        if r.last_reason:
            line.append(f"  {one_line(r.last_reason, width)}", style="bright_black")
        line.truncate(width, overflow="ellipsis")
        block.append("\n").append_text(line)
    if len(shown) < len(ranked):
        rest = sum(r.count for r in ranked[len(shown) :])
        block.append(f"\n{rest:>{digits},} in {len(ranked) - len(shown):,} others", style="bright_black")
    return block
