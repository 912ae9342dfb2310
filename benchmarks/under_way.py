"""An episode under way, as the pool keeps it, and what pool, agent and evaluator say to each other about it.

::

    Refused (actors)
    └── EpisodeOver    a part of an episode comes late: it has ended, or another attempt has begun
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from palmette.actors import Reason, Refused
from palmette.agents.tools import Tool
from palmette.benchmarks.episode import EpisodeRequest
from palmette.benchmarks.journal.records import EpisodeEnded, EpisodeKey
from palmette.benchmarks.task import Transcript

T = TypeVar("T")


class EpisodeOver(Refused):
    """A part of an episode that has ended, or an attempt that another one has replaced, came late."""


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent sets out with."""

    attempt: int
    """Counts from 1."""
    tools: Sequence[Tool]


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """An agent's work, for its evaluator."""

    transcript: Transcript
    attempt: int
    seconds: float
    """Since the episode's first start."""


class UnderWay:
    """The pool's record of an episode under way."""

    __slots__ = ("answered", "attempt", "end", "ended", "name", "request", "started")

    def __init__(self, request: EpisodeRequest, attempt: int) -> None:
        loop = asyncio.get_running_loop()
        self.request = request
        self.name = name_of(request.key)
        self.attempt = attempt
        self.started = time.monotonic()
        self.answered: asyncio.Future[Answered | None] = loop.create_future()
        """The agent's work; ``None`` if there will be none."""
        self.ended: EpisodeEnded | None = None
        """What the journal has, once an evaluator has told."""
        self.end: asyncio.Future[Reason] = loop.create_future()
        """The end of its tree."""

    @property
    def work(self) -> Answered | None:
        """What its agent has answered, if it has."""
        return self.answered.result() if self.answered.done() else None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


def name_of(key: EpisodeKey) -> str:
    """An episode's name in the tree: readable, and unique whatever characters task ids are made of."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", key.task)
    if plain != key.task:
        plain = f"{plain[:40]}-{hashlib.sha256(key.task.encode()).hexdigest()[:6]}"
    return f"{plain}+{key.sample}"


async def wait_for(future: asyncio.Future[T]) -> T:
    """A future that several wait for: one who is cancelled does not cancel it for the others."""
    return await asyncio.shield(future)
