"""The system lane of one incarnation: what the kernel does with it between two of its messages, ahead of its mailbox.

*Jobs* run when no handler does: at once in an idle actor, else after the present handler, also while the actor is
suspended or its mailbox is full.

A *drain* lets an actor finish: nothing new is taken, what is in the mailbox is handled, and then the actor ends with
``Shutdown("drained")``. What counts as unfinished, besides the mailbox, are calls whose replies it owes and tasks
with a tag, whose results it waits for. Messages that come from itself, its tasks and its timers, and the kernel's own,
are part of what it does and get in. When the time is up it is stopped as by anybody else: the present handler ends,
and the rest is refused. What is still stashed at the end fares as at any end.

Most actors see neither, so a cell makes this object on first use.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from palmette.actors.bonds import Bonded
from palmette.actors.errors import ActorDied, Draining, Refused
from palmette.actors.exits import NoProcess, Reason, Shutdown
from palmette.actors.messages import ChildExit, Down, Exit, Request, TaskDone
from palmette.actors.slot import CURRENT

if TYPE_CHECKING:
    from palmette.actors.cell import Cell
    from palmette.actors.introspection import State

TAKING: Final = ("running", "draining")
"""The states in which messages are taken from the mailbox."""
DRAINED: Final = Shutdown("drained")
"""What an actor that has been drained ends with."""

_OF_THE_KERNEL: Final = (TaskDone, Down, Exit, ChildExit)


class Job:
    """Work between two messages, which may raise Refused, and who waits for it."""

    __slots__ = ("_work", "done")

    def __init__(self, work: Callable[[], None], done: asyncio.Future[object]) -> None:
        self._work = work
        self.done = done

    def run(self) -> None:
        if self.done.done():
            return  # nobody waits any more: it must not happen behind the caller's back
        try:
            self._work()
        except Refused as refused:
            self.fail(refused)
        else:
            self.done.set_result(None)

    def fail(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Lane:
    """See the module's text."""

    __slots__ = ("_cell", "_timer", "jobs", "until")

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._timer: asyncio.TimerHandle | None = None
        self.jobs: deque[Job] = deque()
        self.until: float | None = None
        """When a drain gives way to a stop, on the loop's clock; ``None`` where nobody asked for one."""

    # --- jobs ------------------------------------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Run ``job`` when no handler does."""
        cell = self._cell
        if cell.state in ("zombie", "dead"):
            job.fail(ActorDied(cell.slot.path, cell.kill_reason or NoProcess(cell.slot.path)))
        elif cell.is_idle():
            cell.context.copy().run(job.run)
        else:
            self.jobs.append(job)
            cell.hold()

    # --- draining --------------------------------------------------------------------------------------------------

    def drain(self, seconds: float) -> None:
        """Begin to drain. A second one may only shorten the time."""
        loop = self._cell.system.loop
        until = loop.time() + seconds
        if self.until is not None and self.until <= until:
            return
        self.until = until
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(until, self._cell.stop, Shutdown("not drained in time"))
        if self._cell.begin_draining():
            self._look()

    def started(self) -> None:
        """The actor is up: a drain that was asked for meanwhile begins."""
        if self.until is not None and self._cell.begin_draining():
            self._cell.system.loop.call_soon(self._look)

    def _look(self) -> None:
        """End an idle actor that has nothing left to do; have its engine work off what it has."""
        cell = self._cell
        if cell.is_idle() and cell.ending is None:
            if self.is_drained():
                cell.stop(DRAINED)
            else:
                cell.wake()

    def is_drained(self) -> bool:
        """Whether there is nothing left to do. Where replies are owed, the question is asked again after the next."""
        cell = self._cell
        if cell.mailbox.queue or cell.owes_results():
            return False
        if cell.owed:
            next(iter(cell.owed)).when_settled(self._look)
            return False
        return True

    # --- what the engine and the senders ask -----------------------------------------------------------------------

    def step(self) -> bool:
        """Called by the engine when it has nothing to do; whether it is to look again."""
        if self.jobs:
            jobs, self.jobs = self.jobs, deque()
            self._cell.release_hold()
            for job in jobs:
                job.run()
            return True
        if self.until is not None and self.is_drained():
            self._cell.stop(DRAINED)
            return True
        return False

    def turns_away(self, message: object) -> bool:
        """Whether a message that comes during a drain is refused; the sender has been told then."""
        cell = self._cell
        if isinstance(message, _OF_THE_KERNEL) or CURRENT.get() is cell:
            return False
        path = cell.slot.path
        refusal = Draining(f"{path} finishes what it has and takes nothing new; ask another, or its successor")
        if not (isinstance(message, Request) and message.fail(refusal)):
            cell.system.dead_letter(path, message)
        return True

    # --- the end ---------------------------------------------------------------------------------------------------

    def close(self, path: str, reason: Reason) -> None:
        """The incarnation ends: whoever waits for a job is told."""
        if self._timer is not None:
            self._timer.cancel()
        while self.jobs:
            self.jobs.popleft().fail(ActorDied(path, reason))


class Steered(Bonded):
    """What can be steered: the part of a cell that is suspended, resumed, drained and worked on."""

    __slots__ = ("_halted", "_state", "lane", "suspended")

    _halted: bool
    """Whether the engine is to take no further message: it ends, is suspended, or has a job to do first."""
    _state: State
    lane: Lane | None
    suspended: bool

    def suspend(self) -> None:
        """Take no further message until :meth:`resume`; the present handler runs on. Idempotent."""
        self.suspended = True
        self._halted = True

    def resume(self) -> None:
        """Go on after :meth:`suspend`."""
        self.suspended = False
        self.release_hold()
        self._cell().wake()

    def drain(self, seconds: float) -> None:
        cell = self._cell()
        if cell.ending is None and cell.kill_reason is None:
            self.system_lane.drain(seconds)

    @property
    def system_lane(self) -> Lane:
        """What the kernel does with it between two messages."""
        if self.lane is None:
            self.lane = Lane(self._cell())
        return self.lane

    def drain_left(self) -> float | None:
        """Seconds until a drain gives way to a stop; ``None`` where nobody asked for one."""
        if self.lane is None or self.lane.until is None:
            return None
        return max(0.0, self.lane.until - self._cell().system.loop.time())

    def begin_draining(self) -> bool:
        """Take nothing new; false where it is not up."""
        if self._state != "running":
            return False
        self._state = "draining"
        self._cell().system.parking.leave(self._cell())
        return True

    def is_idle(self) -> bool:
        """Whether it is up, and its engine waits for a message."""
        cell = self._cell()
        return self._state in TAKING and (cell.task is None or cell.parked is not None)

    def hold(self) -> None:
        """Have the engine look at the system lane before it takes another message."""
        self._halted = True

    def release_hold(self) -> None:
        """Take messages again, unless something else forbids it."""
        cell = self._cell()
        held = self.lane is not None and bool(self.lane.jobs)
        self._halted = held or self.suspended or cell.ending is not None or cell.kill_reason is not None

    def _cell(self) -> Cell:
        return cast("Cell", self)
