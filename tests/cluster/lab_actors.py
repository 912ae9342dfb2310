"""Actors that live on the lab's hosts."""

from __future__ import annotations

import os
import time

from palmette.actors import Actor, endpoint


class Settler(Actor):
    """Says where it lives."""

    def __init__(self) -> None:
        self.count = 0

    @endpoint
    async def pid(self) -> int:
        return os.getpid()

    @endpoint
    async def devices(self) -> str | None:
        return os.environ.get("CUDA_VISIBLE_DEVICES")

    @endpoint
    async def add(self) -> int:
        self.count += 1
        return self.count

    @endpoint
    async def block(self, seconds: float) -> None:
        """Hold up the loop, as a training step does."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pass


class Asker(Actor):
    """Calls another, by a name that it looked up once."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def started(self) -> None:
        self.other = await self.system.lookup(self.name, Settler)

    @endpoint
    async def ask(self) -> int:
        return await self.other.call(Settler.pid)


class Talker(Actor):
    """Prints, and dies."""

    @endpoint
    async def die(self, words: str) -> None:
        print(words, flush=True)
        os.write(2, f"last words: {words}\n".encode())
        os.kill(os.getpid(), 9)
