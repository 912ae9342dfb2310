"""Compare two traces, and find the smallest schedule that tells two sides apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec
from differential.schedules import (
    During,
    Dynamic,
    Exit,
    Node,
    Operation,
    Order,
    Schedule,
    Static,
    Worker,
    supervisors_in,
)

T = TypeVar("T")

_STOP = re.compile(r"stop (\w+)#(\d+) \w+")
_START = re.compile(r"(?:start|fail|decline) (\w+)#(\d+)")


def normalised(schedule: Schedule, trace: Sequence[str]) -> list[str]:
    """``trace`` without what the two sides need not agree on.

    Dynamic children stop in parallel: their ends are sorted. The children of a *killed* supervisor end somehow: their
    ends are left out. OTP counts a dynamic child that was terminated while it restarted as minus one active: after
    that, ``count_children`` is compared without this figure.
    """
    parents = _parents(schedule)
    dynamic = {one.name for one in supervisors_in(schedule.root) if isinstance(one, Dynamic)}
    starts: dict[str, int] = {}
    killed: str | None = None
    before: dict[str, int] = {}
    miscounted: set[str] = set()
    order: Order | None = None
    kept: list[str] = []
    for event in trace:
        if event.startswith("op "):
            operation = schedule.operations[int(event[3:])]
            killed = operation.name if isinstance(operation, Exit) and operation.reason == "kill" else None
            before = dict(starts)
            order = _order(operation)
            if isinstance(operation, During) and order is not None and order.kind == "terminate_dynamic":
                miscounted.add(order.supervisor)
        elif begun := _START.fullmatch(event):
            starts[begun[1]] = int(begun[2])
        elif ended := _STOP.fullmatch(event):
            name, number = ended[1], int(ended[2])
            if killed is not None and killed in _above(name, parents) and before.get(name) == number:
                continue
        elif order is not None and order.kind == "count_dynamic" and order.supervisor in miscounted:
            event = re.sub(r"=> -?\d+", "=> _", event)
        kept.append(event)
    return list(_sorted_runs(kept, parents, dynamic))


def _sorted_runs(events: Sequence[str], parents: dict[str, str], dynamic: set[str]) -> Iterator[str]:
    run: list[str] = []
    whose: str | None = None
    for event in events:
        ended = _STOP.fullmatch(event)
        parent = parents.get(ended[1]) if ended else None
        if parent not in dynamic or parent != whose:
            yield from sorted(run)
            run = []
        whose = parent if parent in dynamic else None
        if whose is None:
            yield event
        else:
            run.append(event)
    yield from sorted(run)


def _parents(schedule: Schedule) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in supervisors_in(schedule.root):
        if isinstance(one, Static):
            found.update({below.name: one.name for below in one.children})
    for operation in schedule.operations:
        order = _order(operation)
        if order is not None and order.kind in ("start_child", "start_dynamic"):
            found[order.spec.name if order.spec is not None else order.name] = order.supervisor
    return found


def _order(operation: Operation) -> Order | None:
    about = operation.also if isinstance(operation, During) else operation
    return about if isinstance(about, Order) else None


def _above(name: str, parents: dict[str, str]) -> Iterator[str]:
    while name in parents:
        name = parents[name]
        yield name


def difference(schedule: Schedule, ours: Sequence[str], theirs: Sequence[str]) -> str | None:
    """The first difference of two traces, with both around it; ``None`` if there is none."""
    mine, other = normalised(schedule, ours), normalised(schedule, theirs)
    if mine == other:
        return None
    at = next((n for n, (a, b) in enumerate(zip(mine, other, strict=False)) if a != b), min(len(mine), len(other)))
    rows = max(len(mine), len(other))
    lines = [f"  {'palmette':40} OTP"]
    for n in range(rows):
        left, right = (side[n] if n < len(side) else "" for side in (mine, other))
        lines.append(f"{'->' if n == at else '  '}{left:40} {right}")
    return "\n".join(lines)


def shrunk(schedule: Schedule, differs: Callable[[Schedule], bool], *, most: int = 150) -> Schedule:
    """A smaller schedule that still ``differs``; at most ``most`` are tried.

    Operations are taken out in ever smaller pieces (Zeller and Hildebrandt 2002, *ddmin*), then children.
    """
    left = most

    def still(candidate: Schedule) -> bool:
        nonlocal left
        left -= 1
        return left >= 0 and differs(candidate)

    def with_operations(operations: Sequence[Operation]) -> Schedule:
        return msgspec.structs.replace(schedule, operations=tuple(operations))

    schedule = with_operations(_ddmin(schedule.operations, lambda some: still(with_operations(some))))
    if schedule.refusals and still(without := msgspec.structs.replace(schedule, refusals=())):
        schedule = without
    progress = True
    while progress and left > 0:
        progress = False
        for root in _smaller(schedule.root):
            assert not isinstance(root, Worker)
            if still(candidate := msgspec.structs.replace(schedule, root=root)):
                schedule, progress = candidate, True
                break
    return with_operations(_ddmin(schedule.operations, lambda some: still(with_operations(some))))


def _ddmin(items: Sequence[T], still: Callable[[Sequence[T]], bool]) -> Sequence[T]:
    parts = 2
    while items:
        size = -(-len(items) // parts)
        for at in range(0, len(items), size):
            rest = [*items[:at], *items[at + size :]]
            if still(rest):
                items, parts = rest, max(parts - 1, 2)
                break
        else:
            if size <= 1:
                break
            parts = min(parts * 2, len(items))
    return items


def _smaller(node: Node) -> Iterator[Node]:
    """``node`` without one of its children, or with one of them smaller."""
    if not isinstance(node, Static):
        return
    children = node.children
    for n in range(len(children)):
        if len(children) > 1:
            yield msgspec.structs.replace(node, children=children[:n] + children[n + 1 :])
        for less in _smaller(children[n]):
            yield msgspec.structs.replace(node, children=(*children[:n], less, *children[n + 1 :]))
