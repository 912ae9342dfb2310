"""What one writes by hand on asyncio instead of an actor: the floor that palmette is measured against.

No deadlines, no exits, no names: just a deque, and a future where there is a reply.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Callback:
    """A mailbox that a loop callback works off; its handler is a plain function."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[int, asyncio.Future[int] | None]] = deque()
        self._is_scheduled = False
        self.handled = 0

    def call(self, value: int) -> asyncio.Future[int]:
        """Ask; await the result for the reply."""
        future: asyncio.Future[int] = self._loop.create_future()
        self._put(value, future)
        return future

    def send(self, value: int) -> None:
        """Tell."""
        self._put(value, None)

    def _put(self, value: int, future: asyncio.Future[int] | None) -> None:
        self._queue.append((value, future))
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._work)

    def _work(self) -> None:
        self._is_scheduled = False
        queue = self._queue
        while queue:
            value, future = queue.popleft()
            result = self.handle(value)
            if future is not None:
                future.set_result(result)

    def handle(self, value: int) -> int:
        self.handled += 1
        return value


class Server:
    """A mailbox that a task works off; its handler is a coroutine function, as an actor's is."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[int, asyncio.Future[int] | None]] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self.handled = 0
        self.task = self._loop.create_task(self._run())

    def call(self, value: int) -> asyncio.Future[int]:
        """Ask; await the result for the reply."""
        future: asyncio.Future[int] = self._loop.create_future()
        self._queue.append((value, future))
        waiting = self._waiting
        if waiting is not None:
            self._waiting = None
            waiting.set_result(None)
        return future

    def send(self, value: int) -> None:
        """Tell."""
        self._queue.append((value, None))
        waiting = self._waiting
        if waiting is not None:
            self._waiting = None
            waiting.set_result(None)

    async def _run(self) -> None:
        queue = self._queue
        while True:
            while queue:
                value, future = queue.popleft()
                result = await self.handle(value)
                if future is not None:
                    future.set_result(result)
            self._waiting = self._loop.create_future()
            await self._waiting

    async def handle(self, value: int) -> int:
        self.handled += 1
        return value


class Spawner:
    """Tasks by name, started on request and acknowledged by themselves, ended together: a supervisor's bare work."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._queue: deque[tuple[str, asyncio.Future[str]]] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self.task = self._loop.create_task(self._run())

    def start(self, name: str) -> asyncio.Future[str]:
        """Ask for a task; await the result until it runs."""
        future: asyncio.Future[str] = self._loop.create_future()
        self._queue.append((name, future))
        waiting = self._waiting
        if waiting is not None:
            self._waiting = None
            waiting.set_result(None)
        return future

    async def stop(self) -> None:
        """End them all, and wait for it."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.wait(self._tasks.values())
        self.task.cancel()

    async def _run(self) -> None:
        while True:
            while self._queue:
                name, future = self._queue.popleft()
                started: asyncio.Future[None] = self._loop.create_future()
                self._tasks[name] = self._loop.create_task(_sleeper(started))
                await started
                future.set_result(name)
            self._waiting = self._loop.create_future()
            await self._waiting


async def _sleeper(started: asyncio.Future[None]) -> None:
    mail: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    started.set_result(None)
    await mail
