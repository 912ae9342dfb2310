"""Actors that watch and tie themselves to each other across nodes, and write down what they are told.

All simulated nodes share this process, and so the book; an entry is of one incarnation, by a number of its own.
"""

from __future__ import annotations

import itertools

import msgspec

from palmette.actors import Actor, Down, Exit, NoProcess, Ref, endpoint
from palmette.supervisors import Supervisor


class Life(msgspec.Struct, frozen=True):
    """One incarnation."""

    path: str
    born: float


class Book:
    """What happened."""

    lives: dict[int, Life] = {}  # noqa: RUF012
    watches: dict[tuple[int, int], tuple[str, float]] = {}  # noqa: RUF012
    """Monitors, by who (a life) and number: of which address, and since when."""
    downs: dict[tuple[int, int], list[float]] = {}  # noqa: RUF012
    ties: dict[tuple[int, str], list[float]] = {}  # noqa: RUF012
    """Links that are in force, or were: by who and to which address, the times of making them."""
    exits: dict[tuple[int, str], list[float]] = {}  # noqa: RUF012
    numbers = itertools.count(1)

    @classmethod
    def clear(cls) -> None:
        for book in (cls.lives, cls.watches, cls.downs, cls.ties, cls.exits):
            book.clear()


class Bonded(Actor):
    """Watches and ties; traps exits."""

    trap_exit = True
    faithful = False
    """Whether it watches and ties itself anew to whoever has just ended, as soon as it hears of it."""

    def __init__(self) -> None:
        self.life = next(Book.numbers)
        Book.lives[self.life] = Life(self.path, self.system.loop.time())

    @endpoint
    async def watch(self, other: Ref[Bonded]) -> None:
        number = self.monitor(other)
        Book.watches[(self.life, number)] = (other.path, self.system.loop.time())

    @endpoint
    async def tie(self, other: Ref[Bonded]) -> None:
        """Once per link: to tie what is tied changes nothing."""
        key = (self.life, other.path)
        if len(Book.ties.get(key, ())) == len(Book.exits.get(key, ())):
            Book.ties.setdefault(key, []).append(self.system.loop.time())
            self.link(other)

    @endpoint
    async def crash(self) -> None:
        raise RuntimeError("asked to")

    async def receive(self, message: object) -> None:
        now = self.system.loop.time()
        match message:
            case Down(ref, reason, monitor):
                Book.downs.setdefault((self.life, monitor), []).append(now)
                if self.faithful and not isinstance(reason, NoProcess):
                    await self.watch(self.system.ref_at(ref.path, Bonded))
            case Exit(ref, reason):
                Book.exits.setdefault((self.life, ref.path), []).append(now)
                if self.faithful and not isinstance(reason, NoProcess):
                    await self.tie(self.system.ref_at(ref.path, Bonded))
            case _:
                raise AssertionError(message)


class Faithful(Bonded):
    """See its attribute."""

    faithful = True


class Home(Supervisor):
    """Where some of them live."""

    def __init__(self) -> None:
        super().__init__(max_restarts=100_000)
