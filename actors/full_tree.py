"""The tree of what is alive, in all processes: each node is asked for what lives below its actor."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from palmette.actors.introspection import TreeNode, tree_of
from palmette.actors.proxy import Proxy

if TYPE_CHECKING:
    from palmette.actors.slot import Slot


async def full_tree(slot: Slot, timeout: float) -> TreeNode:
    """The tree at ``slot``. A node that does not answer within ``timeout`` seconds is shown as this process sees it."""
    grafts: dict[str, TreeNode] = {}

    async def ask(proxy: Proxy) -> None:
        way = proxy.way()
        found = None if way is None else await way.tree(proxy.path, timeout)
        if found is not None:
            grafts[proxy.path] = found

    await asyncio.gather(*(ask(proxy) for proxy in _proxies(slot)))
    return _grafted(tree_of(slot), grafts)


def _proxies(slot: Slot) -> list[Proxy]:
    target = slot.target
    if isinstance(target, Proxy):
        return [target]
    below: dict[str, Slot] = getattr(target, "children", None) or {}
    return [proxy for child in below.values() for proxy in _proxies(child)]


def _grafted(tree: TreeNode, grafts: dict[str, TreeNode]) -> TreeNode:
    found = grafts.get(tree.path)
    if found is not None:
        return msgspec.structs.replace(tree, state=found.state, waiting=found.waiting, children=found.children)
    return msgspec.structs.replace(tree, children=tuple(_grafted(child, grafts) for child in tree.children))
