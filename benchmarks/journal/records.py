"""What is written to the journal and read from it, as plain frozen messages.

:data:`Record` is a tagged union: a batch of records travels to the journal's owner in one message and is committed in
one transaction. Times are Unix seconds; durations are seconds of a monotonic clock. Every record may be committed
twice: the identity that makes the second one harmless is stated with each.
"""

from __future__ import annotations

from typing import Literal, NamedTuple
from uuid import uuid4

import msgspec

from palmette.benchmarks.outcomes import Outcome
from palmette.benchmarks.task import Turn

RunStatus = Literal["running", "completed", "failed", "cancelled"]


class EpisodeKey(NamedTuple):
    """An episode within its run: the task, and which of its samples."""

    task: str
    sample: int


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run: a benchmark, and everything that `resume` needs to go on with it."""

    id: str
    created: float
    benchmark: str
    config: dict[str, object]
    """JSON. It is stored in clear: no key or password belongs in it."""
    status: RunStatus


class AttemptStarted(msgspec.Struct, frozen=True, kw_only=True, tag="attempt"):
    """An agent set out on an episode. Identity: run, task, sample, attempt; the first one wins."""

    run: str
    task: str
    sample: int
    attempt: int
    at: float


class TurnSaid(msgspec.Struct, frozen=True, kw_only=True, tag="turn"):
    """One turn, as a delta. Identity: run, task, sample, attempt, ``turn.index``; the first one wins."""

    run: str
    task: str
    sample: int
    attempt: int
    turn: Turn


class EpisodeEnded(msgspec.Struct, frozen=True, kw_only=True, tag="episode"):
    """An episode's one and only end. Identity: run, task, sample; the first one wins, whatever its attempt."""

    run: str
    task: str
    sample: int
    attempt: int
    outcome: Outcome
    answer: str | None = None
    started: float
    finished: float
    seconds: float


class StepTrained(msgspec.Struct, frozen=True, kw_only=True, tag="step"):
    """One optimiser step. Identity: run, step; the *last* one wins.

    A trainer that was killed repeats the steps after its last checkpoint; the repeated ones are in the weights.
    """

    run: str
    step: int
    metrics: dict[str, float]
    rows: tuple[EpisodeKey, ...] = ()
    """The episodes that it learned from."""
    at: float


class Event(msgspec.Struct, frozen=True, kw_only=True, tag="event"):
    """Something that befell the tree of a run, such as a restart. Identity: ``id``."""

    run: str
    at: float
    kind: str
    """``"restart"``, ``"kill"``, …"""
    supervisor: str = ""
    child: str = ""
    reason: str = ""
    id: str = msgspec.field(default_factory=lambda: uuid4().hex)


Record = AttemptStarted | TurnSaid | EpisodeEnded | StepTrained | Event


class Committed(msgspec.Struct, frozen=True, kw_only=True):
    """A batch is durable. What it held that was there before is told apart."""

    records: int
    """How many were written."""
    ended: tuple[tuple[str, EpisodeKey], ...] = ()
    """Run and key of each episode that ended with this batch."""
    duplicates: tuple[tuple[str, EpisodeKey], ...] = ()
    """Run and key of each episode that had ended before (or earlier in the batch); the new outcome was dropped."""


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A claim on a name, such as ``run:3fa9c1`` or ``machine:…``, that lapses unless it is renewed."""

    name: str
    holder: str
    """Who: host, process id and something random, say."""
    expires: float
    run: str | None = None
    detail: str = ""
