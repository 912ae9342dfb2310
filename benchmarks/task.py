"""Tasks, and the transcripts of what agents did with them.

A :class:`Task` has two halves that are kept apart by type: the *public* half goes to the agent, the *grader's* half
(reference answers, hidden tests) to evaluators only. Nothing that an agent, its tools or its machine are given holds a
:class:`GraderData`.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from palmette.agents.transcript import Transcript, Turn
from palmette.benchmarks.outcomes import CriterionScore
from palmette.machines.contract import Machine

__all__ = ["Criterion", "GraderData", "Task", "Transcript", "Turn"]


class GraderData(msgspec.Struct, frozen=True, kw_only=True):
    """What only evaluators may see."""

    answer: str = ""
    """The reference answer, in the form that the reference solver replies with."""
    tests: str = ""
    """Source of hidden tests, where the task has some."""
    extra: dict[str, str] = {}


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One task of a benchmark."""

    id: str
    """Unique within the benchmark and stable from run to run."""
    prompt: str
    files: dict[str, bytes] = {}
    """Put into the machine before the agent starts."""
    turns: int | None = None
    """How many replies the task's own rules allow. An agent that uses them up is judged on what it has done."""
    grader: GraderData = GraderData()

    def public(self) -> Task:
        """This task as an agent may see it."""
        return msgspec.structs.replace(self, grader=GraderData())


class Criterion(Protocol):
    """One thing to judge. Raise plain Python when judging is impossible: it becomes ``JudgeFailed``, never a zero."""

    name: str
    weight: float

    async def evaluate(self, task: Task, transcript: Transcript, machine: Machine | None) -> CriterionScore: ...
