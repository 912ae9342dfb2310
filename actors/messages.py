"""Messages that the kernel itself delivers to :meth:`Actor.receive`, and the envelope of a call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec

from palmette.actors.exits import Reason

if TYPE_CHECKING:
    from palmette.actors.endpoints import Callee
    from palmette.actors.ref import Ref


class Down(msgspec.Struct, frozen=True):
    """An actor that this one monitors has ended. Sent once per monitor."""

    ref: Ref[object]
    reason: Reason
    monitor: int
    """What :meth:`Actor.monitor` returned."""


class Exit(msgspec.Struct, frozen=True):
    """A linked actor has ended, and this one traps exits."""

    ref: Ref[object]
    reason: Reason


class ChildExit(msgspec.Struct, frozen=True):
    """A child of this supervisor has ended (and was not ended by the supervisor itself)."""

    ref: Ref[object]
    incarnation: int
    reason: Reason


class TaskDone(msgspec.Struct, frozen=True):
    """A task started with :meth:`Actor.start_task` has finished."""

    tag: str
    value: object


NO_KEYWORDS: Final[dict[str, object]] = {}
"""For a request without keyword arguments, which is the rule: one dict less per message. Never written to."""


class Request(msgspec.Struct, eq=False, gc=False):
    """A call or a cast on its way. Not a value: it owns the caller's future.

    The collector does not look at it (a fifth of a cast's cost): only mailboxes and cells hold requests, and both let
    go of them at their end, so that one is never part of a cycle for long.
    """

    endpoint: Callee
    args: tuple[object, ...]
    kwargs: dict[str, object]
    reply: asyncio.Future[object] | None
    """``None`` for a cast."""
    deadline: float | None
    """On the loop's clock; ``None`` for a cast."""

    def is_overdue(self, now: float) -> bool:
        """Whether its caller has given up, or has to by now."""
        return self.reply is not None and (self.reply.done() or (self.deadline is not None and now >= self.deadline))

    def fail(self, error: BaseException) -> bool:
        """Make a caller that still waits get ``error``; false where this is a cast, which has nobody to tell."""
        if self.reply is None:
            return False
        if not self.reply.done():
            self.reply.set_exception(error)
        return True

    def __repr__(self) -> str:
        return f"<{'cast' if self.reply is None else 'call'} {self.endpoint.name}>"
