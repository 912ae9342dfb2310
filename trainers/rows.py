"""From an episode to a training row.

A :class:`TrainingRow` is one sequence of token ids: the first prompt, then everything that followed, with a mask that
tells the policy's own ids from those of its surroundings. It is put together from the tokens that the policy server
reported, turn by turn; no text is tokenised here. The row carries its episode's outcome, and only ``Scored`` has a
reward: every other outcome gives an *unscorable* row, which no trainer learns from and which is counted.

::

    ValueError
    └── RowError     a transcript that no row can be built from; the message says which turn and why
"""

from __future__ import annotations

import msgspec

from palmette.agents.transcript import Transcript
from palmette.benchmarks.outcomes import Outcome, Scored, Stale


class RowError(ValueError):
    """A scored transcript lacks tokens, or its turns do not form one growing sequence."""


class TrainingRow(msgspec.Struct, frozen=True, kw_only=True):
    """One episode as a trainer sees it. ``completion_ids``, ``logprobs`` and ``env_mask`` have the same length."""

    task_id: str
    group: str
    """Rows of one group are compared with each other (GRPO: several attempts at one task)."""
    outcome: Outcome
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Natural logarithms under the sampling policy; 0.0 where ``env_mask`` is 0."""
    env_mask: tuple[int, ...]
    """1 on ids that the policy sampled, 0 on ids that came from outside. (TRL's name for it.)"""
    policy_version: int
    """The oldest version that sampled any of it, in optimiser steps; -1 in an unscorable row."""

    @property
    def reward(self) -> float | None:
        """``None`` unless the episode was scored."""
        return self.outcome.reward if isinstance(self.outcome, Scored) else None


def unscorable(task_id: str, group: str, outcome: Outcome, *, eos_id: int) -> TrainingRow:
    """The row of an episode that gives nothing to learn from: one masked id, no reward.

    Raises:
        RowError: ``outcome`` is ``Scored``.
    """
    if isinstance(outcome, Scored):
        raise RowError(f"the episode of {task_id} is scored ({outcome.reward:g}); build its row with training_row")
    return TrainingRow(
        task_id=task_id,
        group=group,
        outcome=outcome,
        prompt_ids=(eos_id,),
        completion_ids=(eos_id,),
        logprobs=(0.0,),
        env_mask=(0,),
        policy_version=-1,
    )


def training_row(transcript: Transcript, outcome: Outcome, *, task_id: str, group: str, eos_id: int) -> TrainingRow:
    """The row of an episode; unscorable unless ``outcome`` is ``Scored``.

    Raises:
        RowError: a scored transcript has no turns, or a turn without tokens, or a prompt that does not continue the
            sequence so far (text was tokenised anew, or the conversation was rewritten).
    """
    if not isinstance(outcome, Scored):
        return unscorable(task_id, group, outcome, eos_id=eos_id)
    if not transcript.turns:
        raise RowError(f"the scored episode of {task_id} has no model turn to learn from")
    sequence: tuple[int, ...] = ()
    logprobs: list[float] = []
    mask: list[int] = []
    versions: list[int] = []
    start = 0
    for number, turn in enumerate(transcript.turns):
        tokens = turn.tokens
        if tokens is None:
            raise RowError(
                f"turn {number} of {task_id} has no token ids; sample from a policy server, which reports them"
            )
        if not tokens.prompt_ids or not tokens.output_ids or len(tokens.output_ids) != len(tokens.logprobs):
            raise RowError(
                f"turn {number} of {task_id} has {len(tokens.prompt_ids)} prompt ids, {len(tokens.output_ids)} output "
                f"ids and {len(tokens.logprobs)} log-probabilities; it needs a prompt, an output, and as many as that"
            )
        if tokens.prompt_ids[: len(sequence)] != sequence:
            at = next(
                (i for i, (a, b) in enumerate(zip(sequence, tokens.prompt_ids, strict=False)) if a != b),
                len(tokens.prompt_ids),
            )
            raise RowError(
                f"the prompt of turn {number} of {task_id} does not continue the sequence so far: it departs at "
                f"id {at} of {len(sequence)}; send the sampled ids back as they were, never their text"
            )
        if number == 0:
            start = len(tokens.prompt_ids)
        else:
            heard = len(tokens.prompt_ids) - len(sequence)
            mask += [0] * heard
            logprobs += [0.0] * heard
        mask += [1] * len(tokens.output_ids)
        logprobs += tokens.logprobs
        versions.append(tokens.policy_version)
        sequence = tokens.prompt_ids + tokens.output_ids
    return TrainingRow(
        task_id=task_id,
        group=group,
        outcome=outcome,
        prompt_ids=sequence[:start],
        completion_ids=sequence[start:],
        logprobs=tuple(logprobs),
        env_mask=tuple(mask),
        policy_version=min(versions),
    )


def check_staleness(row: TrainingRow, *, policy_version: int, max_staleness: int, eos_id: int) -> TrainingRow:
    """``row``, or an unscorable one with outcome ``Stale`` if it is too old for a trainer at ``policy_version``.

    A row from a *newer* policy is stale as well, with a negative age: the trainer that made that policy was killed and
    went back to its last checkpoint, so the policy is no ancestor of the present one.
    """
    if row.reward is None:
        return row
    age = policy_version - row.policy_version
    if 0 <= age <= max_staleness:
        return row
    return unscorable(row.task_id, row.group, Stale(age=age), eos_id=eos_id)
