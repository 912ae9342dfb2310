"""How a cell ends: its hook, its own tasks, its children, then the announcements, in this order.

Nothing that a cell owns outlives it: when its end is announced, its tasks are done, its children have ended, and its
timers are gone. The one exception cannot be helped: a child that swallows its cancellation stays behind as a *zombie*,
visible and counted, and its address stays taken until its code has ended.

A cancellation during all this does not break it: the hook runs in a task of its own, and every wait goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

import msgspec

from palmette.actors.actor import Actor
from palmette.actors.deadlines import set_deadline
from palmette.actors.eager import Done, first_step
from palmette.actors.errors import ActorDied
from palmette.actors.exits import Crashed, Killed, Reason, Shutdown, describe, is_graceful, reason_of
from palmette.actors.messages import ChildExit, Request

if TYPE_CHECKING:
    from palmette.actors.cell import Cell

T = TypeVar("T")


async def terminate(cell: Cell, reason: Reason, *, announce: bool) -> None:
    """End ``cell`` with ``reason``. ``announce=False`` keeps it from its parent (a failed start has a starter)."""
    cell.begin_ending(reason)
    if cell.kill_reason is None and cell.actor is not None and type(cell.actor).stopping is not Actor.stopping:
        reason = await _run_hook(cell, cell.actor, reason)
    while tasks := cell.stop_background():  # again: what cleans up may start another
        # Whatever ends an actor, a task that will not be cancelled makes it a zombie after the usual grace.
        cell.expect_end()
        await settle(tasks)
    failure = cell.failed_beside()
    if failure is not None and is_graceful(reason):
        reason = failure  # not beside a crash: what failed together with it has nothing to add
    cell.code_has_ended()
    await end_children(cell)
    finalize(cell, cell.kill_reason or reason, announce=announce)


def finish(cell: Cell) -> None:
    """End an idle cell that was stopped; without a task where nothing of it has to be waited for."""
    if cell.task is not None or cell.state == "dead" or cell.ending is None:
        return  # it was killed meanwhile
    has_hook = cell.actor is not None and type(cell.actor).stopping is not Actor.stopping
    if not has_hook and not cell.children and not cell.stop_background():
        cell.begin_ending(cell.ending)
        finalize(cell, cell.ending, announce=True)
    else:
        cell.wake()


async def _run_hook(cell: Cell, actor: Actor, reason: Reason) -> Reason:
    """Run ``stopping``; the reason that the cell then ends with."""
    context = cell.context.copy()
    context.run(set_deadline, None)  # the last request's deadline is not the hook's
    work = _outcome(actor, reason)
    if actor.waits_in_place:
        step = context.run(first_step, work)
        if isinstance(step, Done):
            return reason if step.value is None else _added(reason, step.value)
        work = step
    hook = cell.system.loop.create_task(work, context=context)
    cell.hook = hook
    await settle([hook], timeout=cell.stop_timeout)
    late = not hook.done()
    if late:
        if not hook.cancelling():  # a kill has been there
            hook.cancel()
        cell.expect_end()
        await settle([hook])
    cell.hook = None
    if late:
        failure: Reason | None = Killed(f"its stopping() took longer than {cell.stop_timeout:g} s")
    else:
        failure = Killed("its stopping() was cancelled") if hook.cancelled() else hook.result()
    return reason if failure is None else _added(reason, failure)


def _added(reason: Reason, failure: Reason) -> Reason:
    """The reason of an end whose hook failed, too."""
    if isinstance(reason, Crashed):
        return msgspec.structs.replace(reason, text=f"{reason.text} (then stopping() failed: {describe(failure)})")
    return failure if is_graceful(reason) else reason


async def _outcome(actor: Actor, reason: Reason) -> Reason | None:
    # SystemExit must not leave a task: the loop would let it through and end the program.
    try:
        await actor.stopping(reason)
    except BaseException as error:
        if is_being_closed(actor._cell, error):  # pyright: ignore[reportPrivateUsage]
            raise
        return reason_of(error)  # whatever leaves the hook is an exit reason
    return None


def is_being_closed(cell: Cell, error: BaseException) -> bool:
    """Whether the coroutine that sees ``error`` is closed from outside, as when the loop was closed under it.

    Nothing can be awaited any more then. A ``GeneratorExit`` that an actor's own code raises is a crash like any other.
    """
    if not isinstance(error, GeneratorExit):
        return False
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return True
    return task is None or not cell.owns(task)


async def end_children(cell: Cell) -> None:
    """End what still lives below ``cell``; a supervisor's hook has normally stopped it in order before.

    Where the hook did not run (a kill), the children get a moment to end properly before they are killed too.
    """
    if not cell.children:
        return
    grace = cell.system.kill_grace
    there = [slot.target for slot in cell.children.values()]
    living = [target for target in there if target is not None and target.state != "zombie"]
    for target in living:
        target.stop(Shutdown("its parent ended"))
    ends = [target.ended() for target in living]
    if ends:
        await settle(ends, timeout=grace)
    late = [(target, end) for target, end in zip(living, ends, strict=True) if not end.done()]
    for target, _ in late:
        target.kill(Killed("its parent ended"))
    if late:
        await settle([end for _, end in late], timeout=2 * grace)
    for slot in list(cell.children.values()):
        cell.system.release(slot)


async def settle(things: Iterable[asyncio.Future[T]], *, timeout: float | None = None) -> bool:
    """Wait for all of ``things``, whatever becomes of them and however often the waiter is cancelled.

    Returns whether it was: for those who have to pass the cancellation on afterwards.
    """
    pending = {thing for thing in things if not thing.done()}
    loop = asyncio.get_running_loop()
    until = None if timeout is None else loop.time() + timeout
    cancelled = False
    while pending:
        left = None if until is None else until - loop.time()
        if left is not None and left <= 0:
            break
        try:
            _, pending = await asyncio.wait(pending, timeout=left)
        except asyncio.CancelledError:
            cancelled = True
    return cancelled


def finalize(cell: Cell, reason: Reason, *, announce: bool) -> None:
    """The end itself, in one step of the loop: nobody can see a half-dead cell."""
    slot, system = cell.slot, cell.system
    cell.close(reason)
    if slot.target is cell:
        slot.target = None
    slot.last_exit = reason
    slot.exits += 1
    system.record_exit(slot, cell.kind, reason)
    disappoint(cell, reason)
    system.registry_table.owner_died(slot, reason)
    ref = system.ref(slot)
    cell.announce(ref, reason)
    if announce and cell.parent is not None:
        cell.parent.post(ChildExit(ref, cell.incarnation, reason))
    if slot.given_up:
        system.release(slot)


def disappoint(cell: Cell, reason: Reason) -> None:
    """Tell everybody who waits for an answer that there will be none."""
    died = ActorDied(cell.slot.path, reason)
    for token in list(cell.owed or ()):
        token.fail(died)
    if cell.current is not None:
        cell.current.fail(died)
        cell.current = None
    if cell.lane is not None:
        cell.lane.close(cell.slot.path, reason)
    for message in cell.mailbox.drain():
        if isinstance(message, Request):
            cell.system.undeliverable(cell.slot.path, message, reason)
        elif not isinstance(message, ChildExit):  # a supervisor that ends its children expects these
            cell.system.dead_letter(cell.slot.path, message)
