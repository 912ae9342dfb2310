"""How an actor starts: what can be started, with which options, and the first run of a cell.

A start is synchronous: the starter waits until ``__init__`` and ``started`` have returned. A start that fails, takes
too long or is called off has left nothing running when the starter learns of it, with the one exception of code that
swallows its cancellation (a zombie). An actor that declines to start (:class:`Decline`) is, to its starter, a start
that failed with the reason ``Declined``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from palmette.actors import ending
from palmette.actors.actor import Actor
from palmette.actors.cluster.books import Placed
from palmette.actors.cluster.needs import Needs
from palmette.actors.eager import Done, first_step
from palmette.actors.errors import Decline, StartFailed
from palmette.actors.exits import Declined, Killed, Shutdown, reason_of
from palmette.actors.mailbox import Overflow

if TYPE_CHECKING:
    from palmette.actors.cell import Cell
    from palmette.actors.slot import Slot, Target
    from palmette.actors.system import System


class StartOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the kernel starts an incarnation."""

    mailbox: int | None = None
    """The mailbox's bound; ``None`` is unbounded."""
    overflow: Overflow = "block"
    start_timeout: float = 60.0
    """Seconds that ``__init__`` and ``started`` may take."""
    stop_timeout: float | None = None
    """Seconds that ``stopping`` may take, whoever ended the actor; ``None`` waits as long as it takes."""
    kind: str = ""
    on: Needs | None = None
    """What its host must offer; only for an actor with a process of its own."""
    placed: Placed | None = None
    """Where that was found, as the actor's own process is told."""


class Startable(Protocol):
    """A description of an actor (a child spec)."""

    @property
    def shutdown(self) -> float | Literal["brutal", "infinity"]:
        """Seconds from the request to end until the kill."""
        ...

    async def start(self, system: System, slot: Slot, parent: Cell | None) -> Target:
        """Start it in ``slot`` and return once it may be talked to. Raises StartFailed."""
        ...


async def start(
    cell: Cell, cls: type[Actor], args: tuple[object, ...], kwargs: dict[str, object], timeout: float
) -> None:
    """Bring ``cell`` up and return once it may be talked to.

    Raises:
        StartFailed: ``__init__`` or ``started`` raised, or took longer than ``timeout`` seconds. Where what they raised
            is ``Decline``, the reason is ``Declined``.
    """
    loop = cell.system.loop
    begun = cell.context.run(_begin, cell, cls, args, kwargs)
    if begun is None and cell.kill_reason is None and cell.ending is None:
        # Nothing had to be waited for: no task is needed, unless there is more to do already.
        cell.set_running()
        assert cell.actor is not None
        if cls.continued is not Actor.continued:
            cell.entered = False
            cell.task = loop.create_task(cell.run(cell.actor.continued()), context=cell.context)
        elif cell.mailbox.queue:
            cell.wake()
        return
    cell.starting = starting = loop.create_future()
    cell.task = loop.create_task(_first_run(cell, cls, begun), context=cell.context)
    timer = loop.call_later(timeout, cell.kill, Killed(f"its start took longer than {timeout:g} s"))
    try:
        await starting
    except asyncio.CancelledError:
        # Nobody waits for it any more. It ends in order, with its hook: whoever cancelled the starter ends that, too.
        cell.crash(Shutdown("its start was called off"))
        if not starting.cancelled():
            starting.exception()  # it came in the same turn; nobody else will look at it
        raise
    finally:
        timer.cancel()
        cell.starting = None


def _begin(
    cell: Cell, cls: type[Actor], args: tuple[object, ...], kwargs: dict[str, object]
) -> BaseException | Coroutine[object, object, None] | None:
    """Make the actor; returns what its start has yet to do, or what it raised."""
    try:
        # The cell comes before __init__, so that an actor knows its system and address from its first line on.
        actor = cls.__new__(cls)
        actor._cell = cell  # pyright: ignore[reportPrivateUsage]
        actor.__init__(*args, **kwargs)
        cell.actor = actor
        if cls.started is Actor.started:
            return None
        if not cls.waits_in_place:
            return actor.started()
        step = first_step(actor.started())
        return None if isinstance(step, Done) else step
    except BaseException as error:  # noqa: BLE001 - whatever ends a start is the reason of its failure
        return error


async def _first_run(
    cell: Cell, cls: type[Actor], begun: BaseException | Coroutine[object, object, None] | None
) -> None:
    cell.entered = True
    inner: StartFailed | None = None
    reason = cell.kill_reason
    if reason is not None or (isinstance(begun, Coroutine) and cell.ending is not None):
        reason = reason or cell.ending
        if isinstance(begun, Coroutine):
            begun.close()
    else:
        try:
            if isinstance(begun, BaseException):
                raise begun
            if begun is not None:
                await begun
            reason = cell.kill_reason
        except BaseException as error:
            if ending.is_being_closed(cell, error):
                raise
            reason = cell.kill_reason or cell.ending  # whatever ends a start is the reason of its failure
            if reason is None:
                # A supervisor's start fails with its child's failure: the innermost one is the one to show.
                inner = error if isinstance(error, StartFailed) else None
                if isinstance(error, Decline):
                    reason = Declined(str(error))
                else:
                    reason = reason_of(error) if inner is None else inner.reason
    if reason is not None:
        await ending.terminate(cell, reason, announce=False)
        # The reason that it ended with: undoing what was begun may have failed, and then this is no mere declining.
        fail(cell, inner or StartFailed(cell.slot.path, cell.ending or reason))
        return
    cell.set_running()
    if cell.starting is not None and not cell.starting.done():
        cell.starting.set_result(None)
    assert cell.actor is not None
    await cell.run(None if cls.continued is Actor.continued else cell.actor.continued())


def fail(cell: Cell, failure: StartFailed) -> None:
    """Tell the starter, if it still waits."""
    if cell.starting is not None and not cell.starting.done():
        cell.starting.set_exception(failure)
