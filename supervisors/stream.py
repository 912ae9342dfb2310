"""A stream of tasks: one for each item, a bounded number at a time, their results in a bounded buffer.

Nothing happens between two pulls but that what runs goes on: the consumer's pull starts tasks, so a slow consumer slows
the stream down. At most ``max_concurrency`` tasks run at a time. At most twice as many have been started and not been
delivered, so that in an ordered stream one slow item does not stop the others at once, and yet the buffer is bounded.

Leaving the iteration stops the tasks that run: when the generator is closed (``contextlib.aclosing``), or collected,
which after a ``break`` is the same moment as a rule, or when the consumer is cancelled; at the latest when the owner of
the stream ends.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
from typing import Generic, Literal, TypeVar, get_args

import msgspec

from palmette.actors.deadlines import time_left
from palmette.actors.errors import DeadlineExceeded
from palmette.actors.exits import Killed
from palmette.supervisors.spec import Shutdown as ShutdownTime
from palmette.supervisors.task import Exited, Ok, Task, shut_down

R = TypeVar("R")
T = TypeVar("T")

OnTimeout = Literal["exit", "kill_task"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of ``async_stream``."""

    max_concurrency: int
    ordered: bool
    timeout: float
    on_timeout: OnTimeout
    shutdown: ShutdownTime

    def __post_init__(self) -> None:
        if self.max_concurrency < 1:
            raise ValueError(f"max_concurrency is at least 1, not {self.max_concurrency!r}")
        if not self.timeout > 0:
            raise ValueError(
                f"timeout is more than 0 seconds, not {self.timeout!r}; math.inf waits as long as it takes"
            )
        if self.on_timeout not in get_args(OnTimeout):
            raise ValueError(f"on_timeout is exit or kill_task, not {self.on_timeout!r}")


class _Entry(Generic[R]):
    """One item on its way."""

    __slots__ = ("answer", "item", "task", "timer")

    def __init__(self, item: object, task: Task[R]) -> None:
        self.item = item
        self.task = task
        self.answer: Ok[R] | Exited | None = None
        self.timer: asyncio.TimerHandle | None = None


class _Stream(Generic[T, R]):
    """What is under way in one stream."""

    def __init__(
        self, begin: Callable[[T], Coroutine[object, object, Task[R]]], items: Iterator[T], settings: Settings
    ) -> None:
        self.begin = begin
        self.items = items
        self.settings = settings
        self.loop = asyncio.get_running_loop()
        self.exhausted = False
        self.running: dict[_Entry[R], None] = {}
        """In order: a simulation must stop them in the same one each time."""
        self.undelivered: deque[_Entry[R]] = deque()
        """Started, in order; without order, done, in the order of that."""
        self.overdue: _Entry[R] | None = None
        self.changed: asyncio.Future[None] | None = None
        """What the consumer waits for."""

    async def start_more(self) -> None:
        """Take items and start tasks, as many as there may be."""
        settings = self.settings
        while not self.exhausted and len(self.running) < settings.max_concurrency:
            started = len(self.undelivered) + (0 if settings.ordered else len(self.running))
            if started >= 2 * settings.max_concurrency:
                return
            try:
                item = next(self.items)
            except StopIteration:
                self.exhausted = True
                return
            entry: _Entry[R] = _Entry(item, await self.begin(item))
            self.running[entry] = None
            if settings.ordered:
                self.undelivered.append(entry)
            if not math.isinf(settings.timeout):
                entry.timer = self.loop.call_later(settings.timeout, self._late, entry)
            entry.task.finished.add_done_callback(lambda _, entry=entry: self._done(entry, entry.task.answer()))

    def next_answer(self) -> Ok[R] | Exited | None:
        """The answer whose turn it is, if it is there."""
        if not self.undelivered or self.undelivered[0].answer is None:
            return None
        return self.undelivered.popleft().answer

    def check(self) -> None:
        """Raise DeadlineExceeded if a task was too late, perhaps while the consumer was away, and that ends all."""
        if self.overdue is not None:
            raise DeadlineExceeded(f"{self.overdue.task.path} took longer than {self.settings.timeout:g} s")

    async def wait(self) -> None:
        """Wait until something has happened. Raises DeadlineExceeded."""
        self.changed = changed = self.loop.create_future()
        await asyncio.wait([changed], timeout=time_left())
        self.changed = None
        if not changed.done():
            raise DeadlineExceeded("the results of a stream were not there by the deadline in force")

    async def close(self) -> None:
        """Stop what runs."""
        for entry in self.running:
            if entry.timer is not None:
                entry.timer.cancel()
        shutdown = self.settings.shutdown
        seconds = math.inf if shutdown == "infinity" else shutdown
        await shut_down([entry.task for entry in self.running], seconds, "its stream was left")

    def _late(self, entry: _Entry[R]) -> None:
        if self.settings.on_timeout == "exit":
            self.overdue = entry
            self._wake()
            return
        killed = Killed(f"it took longer than {self.settings.timeout:g} s")
        entry.task.kill(killed)
        # Code that swallows its cancellation becomes a zombie; the stream goes on without it.
        entry.timer = self.loop.call_later(entry.task.kill_seconds(), self._done, entry, Exited(killed))

    def _done(self, entry: _Entry[R], answer: Ok[R] | Exited | None) -> None:
        if entry.answer is not None:
            return
        if entry.timer is not None:
            entry.timer.cancel()
        if isinstance(answer, Exited):
            answer = msgspec.structs.replace(answer, item=entry.item)
        entry.answer = answer
        self.running.pop(entry, None)
        if not self.settings.ordered:
            self.undelivered.append(entry)
        self._wake()

    def _wake(self) -> None:
        if self.changed is not None and not self.changed.done():
            self.changed.set_result(None)


async def stream(
    begin: Callable[[T], Coroutine[object, object, Task[R]]], items: Iterable[T], settings: Settings
) -> AsyncGenerator[Ok[R] | Exited]:
    """See the module's text; ``begin`` starts the task of an item."""
    state = _Stream(begin, iter(items), settings)
    try:
        while True:
            state.check()
            await state.start_more()
            answer = state.next_answer()
            if answer is not None:
                yield answer
            elif state.running:
                await state.wait()
            elif state.exhausted and not state.undelivered:
                return
    finally:
        await state.close()
