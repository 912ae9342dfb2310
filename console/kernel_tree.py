"""The kernel's tree as the console draws it: the one place that knows both.

A supervisor with thousands of children is cut here, where a snapshot is taken, to those that somebody should look at
first; the others are counted.
"""

from __future__ import annotations

from palmette.actors import TreeNode as KernelNode
from palmette.console import fold
from palmette.console.snapshot import TreeNode

MOST_CHILDREN = 64


def shown(node: KernelNode, *, root: str, most_children: int | None = None) -> TreeNode:
    """``node`` and what is below it. ``root`` is how the tree's nameless root is called."""
    children = [shown(child, root=root, most_children=most_children) for child in node.children]
    hidden = 0
    if most_children is not None and len(children) > most_children:
        hidden = len(children) - most_children
        # A stable sort: among equals the oldest stay.
        kept = {id(child) for child in sorted(children, key=fold.urgency)[:most_children]}
        children = [child for child in children if id(child) in kept]
    state, detail = node.state, ""
    if state == "down":
        # Between two incarnations, or for good: a child that has done its work stays in the tree.
        state = {"normal": "done", "shutdown": "stopped"}.get(node.last_exit or "", state)
        detail = node.last_exit or "" if state == "down" else ""
    waiting = f"{node.waiting:,} messages waiting" if node.waiting > 1 else ""
    return TreeNode(
        name=root if node.path == "/" else node.name,
        kind="" if node.kind == "?" else node.kind,
        state=state,
        pid=node.pid,
        place=node.place,
        restarts=max(node.incarnation - 1, 0),
        detail=detail or waiting,
        children=tuple(children),
        hidden_children=hidden,
    )
