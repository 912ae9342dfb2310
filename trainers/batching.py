"""Many coroutines share one blocking engine: what arrives while a batch runs forms the next batch.

There is no waiting window. An idle engine starts at once, a busy one gathers; so a lone request is never held back,
and under load the batches grow by themselves. The engine only ever runs in one thread that belongs to the batcher.

    async with Batcher(engine.generate, check=engine.check, max_batch_size=64) as batcher:
        sample = await batcher.submit(request, timeout=30.0)

::

    Exception
    ├── BatcherClosed   submitted to, or still waiting in, a batcher that was closed
    ├── QueueFull       the queue is at its bound; slow down, or start more servers
    ├── EngineCrashed   the engine raised; every waiter gets this, and the batcher stays broken: start a new one
    └── TimeoutError    (built in) the request's own deadline passed
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

import msgspec

T = TypeVar("T")
Request = TypeVar("Request")
Answer = TypeVar("Answer")


class BatcherClosed(Exception):
    """The batcher no longer takes or answers requests."""


class QueueFull(Exception):
    """As many requests wait as are allowed to."""


class EngineCrashed(Exception):
    """The engine raised (see ``__cause__``); its state is not to be trusted any more."""


class BatcherStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A batcher at one moment. Requests that were taken = answered + abandoned + failed + waiting + running."""

    waiting: int
    """Requests in the queue."""
    running: int
    """Requests in the engine now."""
    answered: int
    abandoned: int
    """Cancelled or past their deadline before their answer came."""
    failed: int
    """Ended by a crash of the engine or by closing."""
    batches: int
    largest_batch: int
    crashed: bool


class Batcher(Generic[Request, Answer]):
    """Batches requests for ``generate``, a blocking function from requests to answers in the same order.

    ``check`` raises on a request that would make a whole batch fail; it runs in :meth:`submit` and must be quick.
    """

    def __init__(
        self,
        generate: Callable[[Sequence[Request]], Sequence[Answer]],
        *,
        check: Callable[[Request], None] | None = None,
        max_batch_size: int = 64,
        max_queue: int = 4096,
    ) -> None:
        if max_batch_size < 1 or max_queue < 1:
            raise ValueError(f"max_batch_size and max_queue must be at least 1, got {max_batch_size} and {max_queue}")
        self._generate = generate
        self._check = check
        self._max_batch_size = max_batch_size
        self._max_queue = max_queue
        self._queue: deque[tuple[Request, asyncio.Future[Answer]]] = deque()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="palmette-batcher")
        self._task: asyncio.Task[None] | None = None
        self._running: list[asyncio.Future[Answer]] = []
        self._error: Exception | None = None
        self._closed = False
        self._answered = self._abandoned = self._failed = self._batches = self._largest = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def submit(self, request: Request, *, timeout: float) -> Answer:
        """Wait, for at most ``timeout`` seconds, for the answer to ``request``.

        Cancelling the caller takes a waiting request out of the queue. A request that is already in the engine runs
        on there (a blocking call cannot be interrupted) and its answer is dropped.

        Raises:
            TimeoutError, QueueFull, BatcherClosed, EngineCrashed: see the top of this module.
            Whatever ``check`` raises.
        """
        self._refuse_if_over()
        if self._check is not None:
            self._check(request)
        if len(self._queue) >= self._max_queue:
            raise QueueFull(f"{len(self._queue)} requests wait already (max_queue={self._max_queue}); slow down")
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        entry = (request, answer)
        self._queue.append(entry)
        if self._task is None:
            self._task = asyncio.create_task(self._drain(), name="palmette-batcher")
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise TimeoutError(
                f"no answer within {timeout:g} s ({len(self._queue)} requests wait); allow more time or more servers"
            ) from None
        finally:
            if answer.cancelled():  # the cancelled wait, ours or the deadline's, has cancelled the future
                self._abandoned += 1
                if entry in self._queue:
                    self._queue.remove(entry)
            elif answer.done():
                answer.exception()  # looked at, in case the caller was cancelled in the same tick

    async def run(self, function: Callable[[], T], *, timeout: float) -> T:
        """Run ``function`` in the engine's thread, between two batches: how new weights get in.

        Raises:
            TimeoutError: it has not ended within ``timeout`` seconds. If it had begun, it runs on.
            BatcherClosed, EngineCrashed: as for :meth:`submit`.
            Whatever ``function`` raises.
        """
        self._refuse_if_over()
        async with asyncio.timeout(timeout):
            return await asyncio.get_running_loop().run_in_executor(self._executor, function)

    async def aclose(self, *, timeout: float = 30.0) -> None:
        """Refuse what waits, let the running batch end, and end the thread. Closing twice is fine.

        Raises:
            TimeoutError: the engine did not come back within ``timeout`` seconds. Its thread lives on, because a
                thread cannot be killed; end the process.
        """
        if self._closed:
            return
        self._closed = True
        self._fail_waiting(lambda: BatcherClosed("the batcher was closed while this request waited"))
        idle = asyncio.get_running_loop().run_in_executor(self._executor, lambda: None)
        try:
            async with asyncio.timeout(timeout):
                await idle  # one thread, first come first served: whatever ran has ended
                if self._task is not None:
                    await self._task
        except TimeoutError:
            self._executor.shutdown(wait=False, cancel_futures=True)
            raise TimeoutError(f"the engine did not come back within {timeout:g} s; end its process") from None
        self._executor.shutdown(wait=True)  # the thread is idle: a join of microseconds

    def statistics(self) -> BatcherStatistics:
        return BatcherStatistics(
            waiting=len(self._queue),
            running=sum(not answer.done() for answer in self._running),
            answered=self._answered,
            abandoned=self._abandoned,
            failed=self._failed,
            batches=self._batches,
            largest_batch=self._largest,
            crashed=self._error is not None,
        )

    async def _drain(self) -> None:
        """Run batches until the queue is empty. One such task at most; :meth:`submit` starts the next."""
        try:
            while self._queue:
                await self._answer([self._queue.popleft() for _ in range(min(self._max_batch_size, len(self._queue)))])
        finally:
            self._task = None

    async def _answer(self, batch: list[tuple[Request, asyncio.Future[Answer]]]) -> None:
        requests = [request for request, _ in batch]
        self._running = [answer for _, answer in batch]
        self._batches += 1
        self._largest = max(self._largest, len(batch))
        try:
            answers = await asyncio.get_running_loop().run_in_executor(self._executor, self._generate, requests)
            if len(answers) != len(requests):
                raise RuntimeError(f"the engine gave {len(answers)} answers to {len(requests)} requests")
        except Exception as error:  # noqa: BLE001  not handled here: given to every waiter, who crashes with it
            self._error = crash = error
            for waiter in self._running:
                self._fail(waiter, self._crashed(crash))
            self._fail_waiting(lambda: self._crashed(crash))
        else:
            for waiter, answer in zip(self._running, answers, strict=True):
                if not waiter.done():
                    waiter.set_result(answer)
                    self._answered += 1
        finally:
            self._running = []

    def _crashed(self, error: Exception) -> EngineCrashed:
        # A new exception for every waiter: a shared one would gather the tracebacks of all of them.
        crashed = EngineCrashed(f"the engine crashed: {type(error).__name__}: {error}")
        crashed.__cause__ = error
        return crashed

    def _fail_waiting(self, make: Callable[[], Exception]) -> None:
        while self._queue:
            self._fail(self._queue.popleft()[1], make())

    def _fail(self, waiter: asyncio.Future[Answer], error: Exception) -> None:
        if not waiter.done():
            waiter.set_exception(error)
            self._failed += 1

    def _refuse_if_over(self) -> None:
        if self._error is not None:
            raise self._crashed(self._error)
        if self._closed:
            raise BatcherClosed("the batcher is closed; start a new one")
