"""Actors for the tests of simulated nodes. In a module of their own, as for real ones: classes travel by name."""

from __future__ import annotations

import asyncio
import os
import sys

import msgspec

from palmette.actors import Actor, Down, Exit, Ref, describe, endpoint
from palmette.supervisors import Supervisor, child


class Tick(msgspec.Struct, frozen=True):
    """From which incarnation, and the how-manieth."""

    incarnation: int
    number: int


class Listener(Actor):
    """Keeps what it is told; watches, and traps exits."""

    trap_exit = True

    def __init__(self) -> None:
        self.heard: list[Tick] = []
        self.news: list[str] = []

    @endpoint
    async def watch(self, other: Ref[Actor]) -> None:
        self.monitor(other)
        self.link(other)

    async def receive(self, message: object) -> None:
        match message:
            case Tick():
                self.heard.append(message)
            case Down(ref, reason):
                self.news.append(f"{self.system.loop.time():.3f} down {ref.path} {describe(reason)}")
            case Exit(ref, reason):
                self.news.append(f"{self.system.loop.time():.3f} exit {ref.path} {describe(reason)}")
            case _:
                raise AssertionError(message)

    @endpoint
    async def all_heard(self) -> list[Tick]:
        return self.heard

    @endpoint
    async def all_news(self) -> list[str]:
        return self.news


class Talker(Actor):
    """Tells a listener something ten times a second, for as long as it runs, and notes it where everybody can see it.

    ``said`` is shared by all simulated nodes, which no real ones could.
    """

    said: list[Tick] = []  # noqa: RUF012

    def __init__(self, listener: Ref[Listener]) -> None:
        self.listener = listener

    async def continued(self) -> None:
        self.start_task(self.talk())

    async def talk(self) -> None:
        number = 0
        try:
            while True:
                number += 1
                tick = Tick(self.ref.incarnation, number)
                self.said.append(tick)
                self.listener.send(tick)
                await asyncio.sleep(0.1)
        finally:
            self.said.append(Tick(self.ref.incarnation, -1))  # unless it is killed


class Taker(Actor):
    """Counts what it is given."""

    def __init__(self) -> None:
        self.taken: list[int] = []

    @endpoint
    async def take(self, number: int, blob: str) -> None:
        self.taken.append(number)

    @endpoint
    async def all_taken(self) -> list[int]:
        return self.taken

    @endpoint
    async def pid(self) -> int:
        return os.getpid()

    @endpoint
    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    @endpoint
    async def exit_loose(self) -> None:
        """Leave by way of a task that no actor owns."""

        async def leave() -> None:
            sys.exit("nobody's task")

        self.loose = asyncio.ensure_future(leave())


class Outer(Supervisor):
    """A node with a node of its own."""

    def __init__(self) -> None:
        super().__init__(children=[child(Taker, name="inner", isolation="process")])
