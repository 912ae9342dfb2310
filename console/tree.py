"""The supervision tree as text: what ``palmette tree`` prints, and the live view's tree panel."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from palmette.console.fold import fold
from palmette.console.plain import count, legible, one_line
from palmette.console.snapshot import TreeNode

# Mark, mark on a terminal without Unicode, style. A terminal without colour still has the state in words.
_STATES = {
    "running": ("●", "*", "green"),
    "starting": ("◌", "o", "cyan"),
    "down": ("↻", "@", "yellow"),
    "restarting": ("↻", "@", "yellow"),
    "stopping": ("◍", "-", "yellow"),
    "draining": ("◐", "-", "yellow"),
    "suspended": ("∥", "=", "blue"),
    "done": ("✓", "+", "green"),
    "stopped": ("○", ".", "bright_black"),
    "crashed": ("✗", "x", "red"),
    "zombie": ("!", "!", "bold white on red"),
}
_UNKNOWN = ("?", "?", "yellow")

_GUIDES = ("│  ", "├─ ", "└─ ")
_GUIDES_ASCII = ("|  ", "+- ", "`- ")


class SupervisionTree:
    """A rich renderable. Give it to ``Console.print``, or nest it in a panel."""

    def __init__(self, root: TreeNode, *, most_lines: int | None = None) -> None:
        """Show ``root`` whole, or folded to ``most_lines``."""
        self.root = root if most_lines is None else fold(root, most_lines)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from legible(self._segments(console, options), options)

    def _segments(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        plain = options.ascii_only
        for guide, node in _walk(self.root, "", "", _GUIDES_ASCII if plain else _GUIDES):
            if isinstance(node, int):
                line = Text.assemble((guide, "bright_black"), (f"… and {node:,} more", "dim"))
            else:
                line = _line(guide, node, plain)
            line.truncate(options.max_width, overflow="ellipsis")
            yield from line.render(console)
            yield Segment.line()


def render_tree(node: TreeNode) -> SupervisionTree:
    """The whole tree, one line for each actor."""
    return SupervisionTree(node)


def _walk(node: TreeNode, lead: str, below: str, guides: tuple[str, str, str]) -> list[tuple[str, TreeNode | int]]:
    trunk, fork, corner = guides
    rows: list[tuple[str, TreeNode | int]] = [(lead, node)]
    for index, child in enumerate(node.children):
        last = index == len(node.children) - 1 and not node.hidden_children
        rows += _walk(child, below + (corner if last else fork), below + ("   " if last else trunk), guides)
    if node.children and node.hidden_children:
        rows.append((below + corner, node.hidden_children))
    return rows


def _line(guide: str, node: TreeNode, plain: bool) -> Text:
    mark, plain_mark, style = _STATES.get(node.state, _UNKNOWN)
    quiet = node.state == "running"
    line = Text(no_wrap=True)
    line.append(guide, style="bright_black")
    line.append(plain_mark if plain else mark, style=style)
    line.append(" ")
    line.append(one_line(node.name, 60), style=Style(bold=bool(node.children or node.hidden_children)))
    if not quiet:
        line.append(" ")
        line.append(one_line(node.state, 20), style=style)
    if node.restarts:
        line.append(f"  {count(node.restarts, 'restart')}", style="yellow")
    if node.pid is not None:
        line.append(f"  pid {node.pid}", style="cyan")
    if node.place:
        line.append(f"  on {one_line(node.place, 60)}", style="cyan")
    if node.detail:
        line.append(f"  {one_line(node.detail, 200)}")
    if node.hidden_children and not node.children:
        line.append(f"  {node.hidden_children:,} inside", style="dim")
    if node.kind:
        line.append(f"  {one_line(node.kind, 40)}", style="bright_black")
    return line
