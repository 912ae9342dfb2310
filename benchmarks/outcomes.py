"""How an episode ends: exactly one of seven outcomes, and a reward exists only in one of them.

::

    Outcome
    ├── Scored        the evaluators judged it; the only place where a reward lives
    ├── Truncated     a limit of the harness (time, tokens) ended it before the task's own rules did
    ├── AgentFailed   the agent's code crashed beyond its restart budget, or its command was its machine's end
    ├── InfraFailed   the machine, the model endpoint or a node was lost
    ├── JudgeFailed   an evaluator crashed or could not be reached
    ├── Stale         the policy that sampled it is too old to learn from
    └── Cancelled     somebody called it off

A dead sandbox or a dead judge is never a zero: code that wants a reward has to match :class:`Scored` first, and every
other outcome carries the reason instead.

>>> tally([Scored(reward=1.0), JudgeFailed(reason="judge timed out")]).requested
2
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class CriterionScore(msgspec.Struct, frozen=True, kw_only=True):
    """One criterion's verdict."""

    name: str
    score: float
    """Between 0 and 1."""
    weight: float = 1.0
    passed: bool = False
    reason: str = ""


class Scored(msgspec.Struct, frozen=True, kw_only=True, tag="scored"):
    """Judged. ``reward`` is the rubric's value, between 0 and 1 unless the rubric says otherwise."""

    reward: float
    scores: tuple[CriterionScore, ...] = ()


class Truncated(msgspec.Struct, frozen=True, kw_only=True, tag="truncated"):
    """Ended by a limit of the harness, named in ``reason``."""

    reason: str


class AgentFailed(msgspec.Struct, frozen=True, kw_only=True, tag="agent_failed"):
    """The agent crashed more often than its supervisor allows, or broke its machine."""

    reason: str
    cause: str = ""
    """How it broke its machine (:data:`palmette.machines.evidence.Cause`): ``"out_of_memory"``, …; else empty."""


class InfraFailed(msgspec.Struct, frozen=True, kw_only=True, tag="infra_failed"):
    """Something under the agent was lost: machine, model endpoint, node."""

    reason: str
    cause: str = ""
    """One word for why, where what was lost is a machine (:data:`palmette.machines.evidence.Cause`):
    ``"daemon_gone"``, …; else empty."""


class JudgeFailed(msgspec.Struct, frozen=True, kw_only=True, tag="judge_failed"):
    """The episode is there, its verdict is not."""

    reason: str


class Stale(msgspec.Struct, frozen=True, kw_only=True, tag="stale"):
    """Sampled by a policy ``age`` optimiser steps older than the trainer allows."""

    age: int


class Cancelled(msgspec.Struct, frozen=True, kw_only=True, tag="cancelled"):
    """Called off."""

    reason: str = ""


Outcome = Scored | Truncated | AgentFailed | InfraFailed | JudgeFailed | Stale | Cancelled


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """How many episodes ended how. ``requested`` is their sum by construction."""

    scored: int = 0
    truncated: int = 0
    agent_failed: int = 0
    infra_failed: int = 0
    judge_failed: int = 0
    stale: int = 0
    cancelled: int = 0
    reward_sum: float = 0.0

    @property
    def requested(self) -> int:
        return (
            self.scored + self.truncated + self.agent_failed + self.infra_failed
            + self.judge_failed + self.stale + self.cancelled
        )  # fmt: skip

    @property
    def mean_reward(self) -> float | None:
        """Over the scored episodes only; ``None`` when there is none."""
        return self.reward_sum / self.scored if self.scored else None


def kind(outcome: Outcome) -> str:
    """The outcome's tag, as it stands in the journal: ``"scored"``, ``"infra_failed"``, …"""
    return str(outcome.__struct_config__.tag)


def tally(outcomes: Iterable[Outcome]) -> Tally:
    """Count outcomes."""
    counts: dict[str, int] = {}
    reward_sum = 0.0
    for outcome in outcomes:
        counts[kind(outcome)] = counts.get(kind(outcome), 0) + 1
        if isinstance(outcome, Scored):
            reward_sum += outcome.reward
    return Tally(**counts, reward_sum=reward_sum)
