"""A task: one function at work in an actor of its own, and the handle that its owner holds.

The function's result, or the reason why it ended without one, is data for the owner and never an exception out of
nowhere: :meth:`Task.yield_` answers ``Ok(value)``, ``Exited(reason)`` or, where it is not done, ``None``.
:meth:`Task.result` is for those who cannot go on without the value.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, Generic, Literal, TypeVar, cast

import msgspec

from palmette.actors.actor import Actor
from palmette.actors.deadlines import DEFAULT_CALL_SECONDS, time_left
from palmette.actors.ending import settle
from palmette.actors.errors import ActorDied, DeadlineExceeded
from palmette.actors.exits import Crashed, Killed, Reason, Shutdown

if TYPE_CHECKING:
    from palmette.actors.cell import Cell
    from palmette.actors.ref import Ref

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

TASK_SHUTDOWN: Final = 5.0
"""Seconds that a task has to clean up when it is told to end, as in Elixir."""


class Ok(msgspec.Struct, Generic[R_co], frozen=True):
    """What the function returned."""

    value: R_co


class Exited(msgspec.Struct, frozen=True):
    """The task ended without a result."""

    reason: Reason
    item: object = None
    """In a stream: the item that it was about."""


class Task(Generic[R_co]):
    """The handle of a task; see :meth:`TaskSupervisor.async_nolink`, which makes them.

    It belongs to whoever asked for it, and the task ends with its owner. Others may look at it, too.
    """

    __slots__ = ("_answer", "_cell", "_ref", "_returned", "_unwanted", "finished")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.finished: asyncio.Future[None] = loop.create_future()
        """Done once no code of the task runs any more. Wait with :meth:`yield_`; this one is for callbacks."""
        self._answer: Ok[R_co] | Exited | None = None
        self._returned: Ok[R_co] | None = None
        self._cell: Cell | None = None
        self._ref: Ref[Actor] | None = None
        self._unwanted: Reason | None = None

    @property
    def ref(self) -> Ref[Actor]:
        """The actor that runs it: to monitor, to kill, to find in the tree."""
        assert self._ref is not None, "nobody has a task before it was started"
        return self._ref

    @property
    def path(self) -> str:
        return self.ref.path

    def answer(self) -> Ok[R_co] | Exited | None:
        """How it ended, if it has. Does not wait."""
        return self._answer

    async def yield_(self, timeout: float = 5.0) -> Ok[R_co] | Exited | None:
        """Wait at most ``timeout`` seconds for the end; ``None`` if that was not enough: the task runs on."""
        await _wait([self.finished], timeout)
        return self._answer

    async def result(self, timeout: float | None = None) -> R_co:
        """Wait for the function's result, at most ``timeout`` seconds (default: the deadline in force, or 60 s).

        Raises:
            ActorDied: the task ended without one; ``reason`` says why.
            DeadlineExceeded: it is not there in time. The task runs on.
        """
        if timeout is None:
            left = time_left()
            timeout = DEFAULT_CALL_SECONDS if left is None else left
        match await self.yield_(timeout):
            case Ok(value):
                return value
            case Exited(reason):
                raise ActorDied(self.path, reason)
            case None:
                raise DeadlineExceeded(f"{self.path} was not done in {timeout:g} s")

    async def shutdown(self, timeout: float | Literal["brutal"] = TASK_SHUTDOWN) -> Ok[R_co] | Exited | None:
        """End the task: ask it, and kill it after ``timeout`` seconds; or kill it at once.

        Returns how it had ended, if it was over or was done meanwhile; ``None`` if it was this that ended it. Code that
        swallows its cancellation stays behind as a zombie.
        """
        return (await shut_down([self], timeout, "its owner shut it down"))[0]

    @staticmethod
    async def yield_many(tasks: Sequence[Task[R]], timeout: float = 5.0) -> list[tuple[Task[R], Ok[R] | Exited | None]]:
        """:meth:`yield_` for several, which have ``timeout`` seconds all together."""
        await _wait([task.finished for task in tasks], timeout)
        return [(task, task.answer()) for task in tasks]

    # --- for the supervisor, the actor and the stream ----------------------------------------------------------------

    def begun(self, ref: Ref[Actor], cell: Cell) -> None:
        """The actor is there."""
        self._ref = ref
        self._cell = cell
        cell.ended().add_done_callback(self._ended)
        if self._unwanted is not None:
            cell.stop(self._unwanted)

    def returned(self, value: object) -> None:
        """The function is done; the task is, when nothing of it runs any more."""
        self._returned = Ok(cast("R_co", value))

    def ask_to_end(self, reason: Reason) -> None:
        """Ask it to end; also where it has yet to start."""
        self._unwanted = reason
        if self._cell is not None:
            self._cell.stop(reason)

    def kill(self, reason: Reason) -> None:
        """End it without asking."""
        if self._cell is not None:
            self._cell.kill(reason)

    def kill_seconds(self) -> float:
        """How long a kill may take; after that it is a zombie."""
        return 0.0 if self._cell is None else 4 * self._cell.system.kill_grace

    def _ended(self, end: asyncio.Future[Reason]) -> None:
        self._answer = self._returned or Exited(end.result())
        self._cell = None
        if not self.finished.done():
            self.finished.set_result(None)


async def shut_down(
    tasks: Sequence[Task[R]], timeout: float | Literal["brutal"], why: str
) -> list[Ok[R] | Exited | None]:
    """End all of ``tasks`` at the same time; what :meth:`Task.shutdown` returns, for each.

    A cancellation does not keep it from its work, and comes out afterwards.
    """
    if timeout != "brutal":
        _check(timeout)
    over = [task.answer() for task in tasks]
    living = [task for task in tasks if task.answer() is None]
    cancelled = False
    if timeout != "brutal":
        for task in living:
            task.ask_to_end(Shutdown(why))
        cancelled = await settle([task.finished for task in living], timeout=_seconds(timeout))
    for task in living:
        if task.answer() is None:
            task.kill(Killed(why if timeout == "brutal" else f"{why}, and it did not stop within {timeout:g} s"))
    grace = max((task.kill_seconds() for task in living), default=0.0)
    cancelled = await settle([task.finished for task in living], timeout=grace) or cancelled
    if cancelled:
        raise asyncio.CancelledError
    return [before or _unasked(task.answer()) for before, task in zip(over, tasks, strict=True)]


def _unasked(answer: Ok[R] | Exited | None) -> Ok[R] | Exited | None:
    """``answer``, unless it is what we asked for."""
    return None if isinstance(answer, Exited) and isinstance(answer.reason, Shutdown | Killed) else answer


async def _wait(futures: Sequence[asyncio.Future[None]], timeout: float) -> None:
    _check(timeout)
    waiting = [future for future in futures if not future.done()]
    if waiting and timeout > 0:
        await asyncio.wait(waiting, timeout=_seconds(timeout))


def _check(timeout: float) -> None:
    if not timeout >= 0:
        raise ValueError(f"a timeout is 0 seconds or more, not {timeout!r}; math.inf waits as long as it takes")


def _seconds(timeout: float) -> float | None:
    return None if math.isinf(timeout) else timeout


class TaskProcess(Actor):
    """The actor that runs one function, and ends with it.

    The function runs beside the mailbox, so that a request to end reaches it: it is cancelled, and has the
    ``shutdown`` seconds of its spec to clean up.
    """

    waits_in_place = True

    def __init__(
        self, function: Callable[..., object], args: tuple[object, ...], task: Task[object] | None = None
    ) -> None:
        self._function = function
        self._args = args
        self._task = task
        self._work: asyncio.Task[object] | None = None
        self._failure: BaseException | None = None
        self.start_task(self._perform())

    async def _perform(self) -> None:
        self._work = cast("asyncio.Task[object] | None", asyncio.current_task())
        answer = self._function(*self._args)
        if not inspect.isawaitable(answer):
            raise TypeError(
                f"{name_of(self._function)} returned {type(answer).__name__}; a task runs an `async def` function "
                "(put a blocking one into asyncio.to_thread)"
            )
        try:
            value = await answer
        except BaseException as error:
            self._failure = error
            raise
        if self._task is not None:
            self._task.returned(value)
        self.stop()

    async def receive(self, message: object) -> None:
        self.system.dead_letter(self.path, message)  # nothing that is sent to a task is for it

    async def stopping(self, reason: Reason) -> None:
        work = self._work
        if work is not None and not work.done():
            work.cancel()
            try:
                await asyncio.wait([work])  # bounded by the spec's shutdown time
            except asyncio.CancelledError:
                work.cancel()  # its time is over; the kernel does not interrupt what cleans up already
                raise
        elif isinstance(reason, Crashed):
            self._failure = None  # it is the reason
        failure, self._failure = self._failure, None
        if failure is not None and not isinstance(failure, asyncio.CancelledError):
            raise failure  # cleaning up failed: that must not pass for an orderly end


def name_of(function: Callable[..., object]) -> str:
    """What people call a function."""
    while isinstance(function, partial):
        function = cast("partial[object]", function).func
    return getattr(function, "__name__", type(function).__name__)
