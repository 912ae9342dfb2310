"""What a training run tells about itself, and what its parts tell each other."""

from __future__ import annotations

from typing import Literal

import msgspec

from palmette.benchmarks.outcomes import Tally

Phase = Literal["starting", "warm start", "evaluating before", "training", "evaluating after", "finished"]


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """A training run at a glance."""

    phase: Phase
    step: int
    total_steps: int
    rewards: tuple[float | None, ...] = ()
    """Mean reward of each finished step's scored episodes."""
    warm_start: float = 0.0
    """Fraction done."""
    before: Tally | None = None
    """Held-out episodes before the training, once they have all ended."""
    after: Tally | None = None
    evaluated: int = 0
    """Held-out episodes of the present evaluation that have ended."""
    to_evaluate: int = 0
    requested: int = 0
    """Episodes asked for so far."""


class WarmStart(msgspec.Struct, frozen=True):
    """From the trainer to the course: so much of the warm start is done."""

    fraction: float
