"""What one incarnation has going on beside its mailbox: timers and tasks. Nothing of it outlives the incarnation.

A task's result comes back as a :class:`TaskDone` message; a task that raises takes its actor down, so that work handed
to a task fails as loudly as work done in a handler. Most actors have neither, so a cell makes this object on first use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

from palmette.actors import ending
from palmette.actors.deadlines import set_deadline
from palmette.actors.exits import Killed, Reason, reason_of
from palmette.actors.messages import TaskDone

if TYPE_CHECKING:
    from palmette.actors.cell import Cell


class Background:
    """See the module's text."""

    __slots__ = ("_cell", "_tasks", "_timers", "_told", "failure", "promised")

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._timers: set[asyncio.TimerHandle] | None = None
        self._tasks: dict[asyncio.Task[None], Coroutine[object, object, object]] = {}
        """With the work of each, which a task that is cancelled before its first step never awaits."""
        self._told: set[asyncio.Task[None]] = set()
        """Those of them that were cancelled here."""
        self.failure: Reason | None = None
        """Of a task, while its actor was ending already."""
        self.promised = 0
        """Tasks whose results are yet to come as messages."""

    def send_after(self, seconds: float, message: object) -> Callable[[], None]:
        """Deliver ``message`` later; the returned function calls it off."""
        if self._timers is None:
            self._timers = set()
        timers = self._timers

        def fire() -> None:
            timers.discard(handle)
            self._cell.post(message)

        def cancel() -> None:
            timers.discard(handle)
            handle.cancel()

        handle = self._cell.system.loop.call_later(seconds, fire)
        timers.add(handle)
        return cancel

    def start_task(self, work: Coroutine[object, object, object], tag: str | None) -> None:
        """Run ``work`` as a task of this incarnation."""
        context = self._cell.context.copy()
        if self._cell.current is not None:
            # The handler answers its caller when it returns; the work goes on, and is nobody's request any more.
            context.run(set_deadline, None)
        task = self._cell.system.loop.create_task(
            self._run(work, tag), name=f"{self._cell.slot.path}:{tag or ''}", context=context
        )
        self._tasks[task] = work
        task.add_done_callback(self._forget, context=context)
        self.promised += tag is not None

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._told.discard(task)
        self._tasks.pop(task).close()

    async def _run(self, work: Coroutine[object, object, object], tag: str | None) -> None:
        cell = self._cell
        try:
            value = await work
        except asyncio.CancelledError:
            cell.crash(Killed(f"its task {tag or ''!r} was cancelled"))  # counts only if the cell is not ending already
            raise
        except BaseException as error:
            if ending.is_being_closed(cell, error):
                raise
            if cell.ending is None and cell.kill_reason is None:
                cell.crash(reason_of(error))  # an owned task's crash is its actor's
            else:
                self.failure = self.failure or reason_of(error)  # its clean-up failed
        else:
            if tag is not None:
                self.promised -= 1
                cell.post(TaskDone(tag, value))

    def owns(self, task: asyncio.Task[object]) -> bool:
        """Whether it is one of these."""
        return task in self._tasks

    def close(self) -> set[asyncio.Task[None]]:
        """Cancel everything; the tasks that have yet to end."""
        if self._timers is not None:
            for timer in self._timers:
                timer.cancel()
            self._timers.clear()
        for task in self._tasks:
            # Once: whoever ends the actor after somebody else did must not break what the task does to clean up. A
            # task's own count does not tell: until Python 3.13 a TaskGroup that fails leaves a cancellation counted.
            if task not in self._told:
                self._told.add(task)
                task.cancel()
        return {task for task in self._tasks if not task.done()}
