"""What a report says, as plain values; :func:`palmette.console.report.render_report` draws them."""

from __future__ import annotations

from typing import Literal

import msgspec

from palmette.benchmarks.outcomes import Tally
from palmette.console.snapshot import RestartCount


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Which run this is."""

    run_id: str
    benchmark: str
    agent: str
    model: str = ""
    machine: str = ""
    state: Literal["finished", "interrupted", "running"] = "finished"
    started: float | None = None
    """Seconds since the epoch."""
    seconds: float | None = None
    """How long it ran, interruptions left out."""
    command: str = ""
    """The command line that started it, without secrets."""


class RewardPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One optimiser step of a training run."""

    step: int
    mean: float | None
    """Mean reward of the step's scored episodes; ``None`` where there were none."""
    scored: int = 0


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened at a step: a kill, a restart, a resumption."""

    step: int
    label: str


class HeldOut(msgspec.Struct, frozen=True, kw_only=True):
    """Success on tasks that were not trained on."""

    episodes: int
    before: float | None = None
    after: float | None = None


class TrainingRows(msgspec.Struct, frozen=True, kw_only=True):
    """Where the rows that the trainer learned from came from."""

    scored: int
    """Episodes of the training phase that ended ``Scored``."""
    used: int
    """Rows that went into optimiser steps."""
    not_scored: int = 0
    """Rows among them whose episode was not ``Scored``. It is counted so that it can be seen to be 0."""


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """What a training run has on top of an evaluation."""

    steps: int
    points: tuple[RewardPoint, ...] = ()
    marks: tuple[Mark, ...] = ()
    held_out: HeldOut | None = None
    rows: TrainingRows | None = None


class FailedEpisode(msgspec.Struct, frozen=True, kw_only=True):
    """An episode without a reward, and why."""

    task: str
    outcome: str
    """The outcome's tag: ``"infra_failed"``, …"""
    reason: str = ""
    cause: str = ""
    """One word for why, where a machine's end was the reason."""
    attempt: int = 1


class ReportData(msgspec.Struct, frozen=True, kw_only=True):
    """Everything on the page."""

    run: RunFacts
    tally: Tally
    planned: int | None = None
    """Episodes that the run was asked for; more than have ended where it was interrupted."""
    rewards: tuple[float, ...] = ()
    """Rewards of the scored episodes in the order in which they ended."""
    training: Training | None = None
    restarts: tuple[RestartCount, ...] = ()
    failed: tuple[FailedEpisode, ...] = ()
    failed_left_out: int = 0
    """Further failed episodes that are not listed."""
