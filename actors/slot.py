"""A slot is an address: it outlives the incarnations of the actor that lives there.

Supervisors own slots and put a new :class:`~palmette.actors.cell.Cell` (or a cell's stand-in for another process)
into them at every restart. References point at slots, which is why they survive restarts.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

from palmette.actors.exits import Reason
from palmette.actors.messages import Request

if TYPE_CHECKING:
    from palmette.actors.cell import Cell
    from palmette.actors.ref import Ref

CURRENT: ContextVar[Cell | None] = ContextVar("palmette_cell", default=None)
"""The actor whose code is running, its tasks included."""


class Watcher(Protocol):
    """Somebody who monitors: a cell, or its stand-in."""

    def down(self, ref: Ref[object], reason: Reason, monitor: int) -> None: ...


class Linked(Protocol):
    """One end of a link."""

    @property
    def path(self) -> str: ...

    def add_link(self, other: Linked) -> None: ...

    def remove_link(self, other: Linked) -> None: ...

    def exit_signal(self, ref: Ref[object], reason: Reason) -> None:
        """The other end has ended."""
        ...

    def link_ended(self, ref: Ref[object], reason: Reason) -> None:
        """Every link with ``ref`` ends, and is told of once; if there is none, nothing happens."""
        ...


class Target(Linked, Protocol):
    """What lives in a slot: a cell of this process, or the stand-in for one elsewhere."""

    kind: str
    """The actor class's name, for people."""

    @property
    def state(self) -> str: ...

    def request(self, request: Request) -> None:
        """Take a call or a cast. A call that cannot be taken fails through its future; a cast raises MailboxFull."""
        ...

    def post(self, message: object) -> None:
        """Take a message for ``receive``."""
        ...

    def add_monitor(self, watcher: Watcher, monitor: int) -> None: ...

    def remove_monitor(self, watcher: Watcher, monitor: int) -> None: ...

    def stop(self, reason: Reason) -> None:
        """Ask it to end after what it does now."""
        ...

    def drain(self, seconds: float) -> None:
        """Ask it to take nothing new, and to end when all is done; after ``seconds``, as :meth:`stop` does."""
        ...

    def kill(self, reason: Reason) -> None:
        """End it without asking."""
        ...

    def ended(self) -> asyncio.Future[Reason]:
        """Resolves when no code of it runs any more. Shield it: it is shared."""
        ...


class Slot:
    """An address in a system. ``target`` is ``None`` while nothing lives there."""

    __slots__ = ("__weakref__", "dynamic", "exits", "given_up", "incarnation", "last_exit", "path", "target")

    def __init__(self, path: str, *, dynamic: bool = False) -> None:
        self.path = path
        self.dynamic = dynamic
        """Below a dynamic supervisor: such names are not registered by themselves."""
        self.given_up = False
        """Its supervisor has no more use for it, but somebody (a zombie) still lives there."""
        self.target: Target | None = None
        self.incarnation = 0
        self.exits = 0
        self.last_exit: Reason | None = None

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    def __repr__(self) -> str:
        return f"<slot {self.path}#{self.incarnation}>"
