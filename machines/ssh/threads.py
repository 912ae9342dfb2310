"""Blocking calls beside the event loop: in daemon threads, with deadlines, and what arrives late is not lost.

paramiko blocks, and some of its calls have no deadline of their own. An executor is no place for them: one that hangs
keeps a worker for ever, and the interpreter waits for it at its exit. Here a call that nobody waits for any more goes
on in its daemon thread until the connection is closed, which releases it; what it then returns is handed to ``late``.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[[], T], *, seconds: float, late: Callable[[T], object] | None = None) -> T:
    """Run ``work`` in a thread of its own and wait for it for at most ``seconds``.

    Args:
        late: takes, in a thread, what ``work`` returned after its caller had gone (deadline, cancellation).

    Raises:
        TimeoutError: it is not done; it goes on, and the caller should see to it that it ends.
    """
    call = _Call(work, late)
    threading.Thread(target=call.run, name="palmette-ssh-call", daemon=True).start()
    async with asyncio.timeout(seconds):
        return await call.result


class Lane:
    """One daemon thread that does calls one after another. Use on one event loop; :meth:`close` when done."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._closed = False
        threading.Thread(target=self._work, name=f"palmette-ssh-{name}", daemon=True).start()

    def submit(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Do ``work`` after what was submitted before; cancelling the future does not stop it.

        The future holds a ``ConnectionError`` once the lane is closed.
        """
        call = _Call(work, None)
        if self._closed:
            call.result.set_exception(ConnectionResetError("the connection is closed"))
        else:
            self._calls.put(call.run)
        return call.result

    def close(self) -> None:
        """End the thread after what was submitted."""
        self._closed = True
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


class _Call(Generic[T]):
    """``work``, and the future of its result on the loop that it was made on."""

    def __init__(self, work: Callable[[], T], late: Callable[[T], object] | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._work = work
        self._late = late
        self.result: asyncio.Future[T] = self._loop.create_future()

    def run(self) -> None:
        outcome: T | _Failure
        try:
            outcome = self._work()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to whoever waits
            outcome = _Failure(error)
        try:
            self._loop.call_soon_threadsafe(self._deliver, outcome)
        except RuntimeError:  # the loop is closed: nobody waits
            self._discard(outcome)

    def _deliver(self, outcome: T | _Failure) -> None:
        if self.result.done():
            if self._late is not None:
                threading.Thread(target=self._discard, args=(outcome,), name="palmette-ssh-late", daemon=True).start()
        elif isinstance(outcome, _Failure):
            self.result.set_exception(outcome.error)
        else:
            self.result.set_result(outcome)

    def _discard(self, outcome: T | _Failure) -> None:
        if self._late is not None and not isinstance(outcome, _Failure):
            self._late(outcome)


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error
