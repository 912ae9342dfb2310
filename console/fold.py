"""Folds a big supervision tree to a number of lines that people can read.

What needs attention stays: of many children, those that are crashed, restarting or otherwise not simply
running are kept first, and the rest is counted (``… and 248 more``). Nothing goes without being counted.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from palmette.console.snapshot import TreeNode

_FEW = (64, 48, 32, 24, 16, 12, 8, 6, 5, 4, 3, 2, 1)
# Lists up to this length are shown whole.
_SHORT = 6

_URGENCY = {"zombie": 0, "crashed": 1, "down": 2, "restarting": 2, "stopping": 3, "starting": 4, "suspended": 5}
_RUNNING = 9


def lines(node: TreeNode) -> int:
    """How many lines ``node`` takes when shown whole. Hidden children share one where siblings show."""
    rest = 1 if node.children and node.hidden_children else 0
    return 1 + sum(lines(child) for child in node.children) + rest


def fold(node: TreeNode, most: int) -> TreeNode:
    """``node`` cut down to at most ``most`` lines, one at the least.

    Depth goes before breadth: all of a supervisor's few children tell more than one child's insides.
    """
    for depth in range(_depth(node), 0, -1):
        for few in _FEW:
            folded = _cut(node, few, depth, _SHORT)
            if lines(folded) <= most:
                return folded
    for few in _FEW:
        folded = _cut(node, few, 1, 0)
        if lines(folded) <= most:
            return folded
    return _cut(node, 0, 0, 0)


def urgency(node: TreeNode) -> int:
    """The smaller, the sooner somebody should look; the worst of the node's descendants counts as its own."""
    own = _URGENCY.get(node.state, _RUNNING)
    return min([own, *(urgency(child) for child in node.children)])


def _depth(node: TreeNode) -> int:
    return max((1 + _depth(child) for child in node.children), default=0)


def _cut(node: TreeNode, few: int, depth: int, short: int) -> TreeNode:
    if depth == 0:
        return _with(node, (), len(node.children) + node.hidden_children)
    kept = tuple(_kept(node.children, few, short))
    hidden = node.hidden_children + len(node.children) - len(kept)
    return _with(node, tuple(_cut(child, few, depth - 1, short) for child in kept), hidden)


def _kept(children: tuple[TreeNode, ...], few: int, short: int) -> Iterator[TreeNode]:
    # "… and 1 more" would take the line that the one child needs.
    if len(children) <= max(few + 1, short):
        return iter(children)
    chosen = sorted(range(len(children)), key=lambda index: (urgency(children[index]), index))[:few]
    return (children[index] for index in sorted(chosen))


def _with(node: TreeNode, children: tuple[TreeNode, ...], hidden: int) -> TreeNode:
    return msgspec.structs.replace(node, children=children, hidden_children=hidden)
