"""What can be seen of a running system: its tree, exits, dead letters. The kernel answers, never users' code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

import msgspec

from palmette.actors.exits import Reason, describe

if TYPE_CHECKING:
    from palmette.actors.cell import Cell
    from palmette.actors.slot import Slot


State = Literal["starting", "running", "suspended", "draining", "stopping", "zombie", "dead"]


class CellStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A look at one actor's present incarnation."""

    state: State
    handled: int
    """Messages taken from the mailbox so far."""
    waiting: int
    """Messages in the mailbox."""
    stashed: int
    """Messages that it has put aside."""
    incarnation: int
    uptime: float
    """Seconds since this incarnation started."""


def statistics_of(cell: Cell) -> CellStatistics:
    """A look at an inline actor's present incarnation."""
    return CellStatistics(
        state=cell.state,
        handled=cell.handled,
        waiting=len(cell.mailbox),
        stashed=len(cell.mailbox.stashed or ()),
        incarnation=cell.incarnation,
        uptime=cell.system.loop.time() - cell.born,
    )


class TreeNode(msgspec.Struct, frozen=True, kw_only=True):
    """One actor in the tree of what is alive."""

    path: str
    name: str
    kind: str
    """The actor's class."""
    state: str
    """As :data:`State` has them, or ``down`` between two incarnations."""
    incarnation: int
    waiting: int = 0
    """Messages in its mailbox."""
    pid: int | None = None
    """The process it has of its own, where it has one."""
    place: str | None = None
    """The host that it was placed on, and its GPUs there, where its spec says what it needs."""
    last_exit: str | None = None
    children: tuple[TreeNode, ...] = ()


class ExitRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One end of one incarnation."""

    at: float
    """Seconds since the epoch (the system's clock)."""
    path: str
    kind: str
    incarnation: int
    reason: Reason

    def __str__(self) -> str:
        return f"{self.path}#{self.incarnation} ({self.kind}): {describe(self.reason)}"


class BlockRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One time that an actor's code held up the event loop, and everybody on it."""

    at: float
    """When it was over, in seconds since the epoch (the system's clock)."""
    path: str
    kind: str
    incarnation: int
    doing: str
    """The endpoint's name, ``receive(…)`` with the message's class, or the hook."""
    where: str
    """The line of the handler, and the innermost one if that is another: ``solver.py:31 in solve → …``."""
    seconds: float
    """About how long."""

    def __str__(self) -> str:
        who = f"{self.path}#{self.incarnation} ({self.kind})"
        return f"{who} blocked the event loop for {self.seconds:.2g} s in {self.doing}: {self.where}"


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A message that reached nobody."""

    at: float
    path: str
    message: str


class SystemStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Counters of a system since its start."""

    actors: int
    """Alive now, in this process."""
    started: int
    exits: int
    crashes: int
    """Exits that were neither Normal nor Shutdown."""
    dead_letters: int
    zombies: int
    blocked: int
    """Times that one actor's code held up the event loop for too long; see :mod:`palmette.actors.watchdog`."""


def tree_of(slot: Slot, kind: str = "?") -> TreeNode:
    """The tree below ``slot`` as this process sees it."""
    target = slot.target
    children: tuple[TreeNode, ...] = ()
    waiting, pid, placed = 0, None, None
    if target is not None:
        kind = target.kind
        waiting = len(getattr(target, "mailbox", ()))
        pid = getattr(target, "pid", None)
        placed = getattr(target, "placed", None)
        below = cast("dict[str, Slot] | None", getattr(target, "children", None))
        children = tuple(tree_of(child) for child in (below or {}).values())
        children += tuple(cast("tuple[TreeNode, ...]", getattr(target, "remote_children", ())))
    return TreeNode(
        path=slot.path,
        name=slot.name or "/",
        kind=kind,
        state="down" if target is None else target.state,
        incarnation=slot.incarnation,
        waiting=waiting,
        pid=pid,
        place=None if placed is None else str(placed),
        last_exit=None if slot.last_exit is None else describe(slot.last_exit),
        children=children,
    )
