"""The actors that are measured."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from palmette.actors import Actor, Ref, System, endpoint
from palmette.supervisors import ChildSpec, DynamicSupervisor, Supervisor, child

A = TypeVar("A", bound=Actor)


class Idle(Actor):
    """Does nothing."""


class Echo(Actor):
    """Answers, counts, and breaks."""

    def __init__(self) -> None:
        self.handled = 0

    @endpoint
    async def echo(self, value: int) -> int:
        """``value``."""
        self.handled += 1
        return value

    @endpoint
    async def crash(self) -> None:
        """Raise."""
        raise ValueError("on purpose")

    @endpoint
    async def pid(self) -> int:
        """The process it lives in."""
        return os.getpid()

    async def receive(self, message: object) -> None:
        self.handled += 1


def tree(*children: ChildSpec[Actor]) -> ChildSpec[Supervisor]:
    """These children, restarted as often as it takes."""
    return Supervisor.spec(children=children, max_restarts=1_000_000)


@asynccontextmanager
async def pool() -> AsyncGenerator[tuple[System, Ref[DynamicSupervisor]]]:
    """A system with one dynamic supervisor."""
    async with System.start(tree(DynamicSupervisor.spec(name="pool", max_restarts=1_000_000))) as system:
        yield system, system.whereis("pool", DynamicSupervisor)


@asynccontextmanager
async def echo() -> AsyncGenerator[tuple[System, Ref[Echo]]]:
    """A system with one :class:`Echo`."""
    async with System.start(tree(child(Echo, name="echo"))) as system:
        yield system, system.whereis("echo", Echo)


async def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Look once per turn of the loop. Raises TimeoutError."""
    patience = time.monotonic() + seconds
    while not true():
        if time.monotonic() > patience:
            raise TimeoutError(f"not within {seconds:g} s")
        await asyncio.sleep(0)
