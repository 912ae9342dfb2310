"""What the journal knows of a run, added up: the last screen, ``--json`` and the report are drawn from it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

import msgspec

from palmette.benchmarks.journal import EpisodeEnded, Event, JournalStore, Run, StepTrained
from palmette.benchmarks.outcomes import AgentFailed, InfraFailed, Outcome, Scored, Tally, kind, tally
from palmette.console import leases
from palmette.console.report_data import TrainingRows
from palmette.console.roles import RestartCounts
from palmette.console.snapshot import RestartCount
from palmette.console.work import Kind, kind_of

_PAUSE = 60.0
"""Seconds without any sign of life after which a run counts as interrupted."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A run, added up."""

    run: Run
    kind: Kind
    state: str
    """``completed``, ``running``, ``failed``, or ``interrupted``: it can be resumed."""
    tally: Tally
    planned: int | None
    """Episodes that the run asks for in all; ``None`` in journals of others."""
    causes: dict[str, dict[str, int]] = {}
    """By kind of outcome: how many ended for which cause, where a machine's end was the reason; the most first."""
    full_marks: int
    """Episodes with a reward of 1."""
    restarts: tuple[RestartCount, ...]
    seconds: float
    """How long it was at work, interruptions left out, as far as the journal tells."""
    before: Tally | None = None
    """Of a training: held-out episodes before it, once all have ended."""
    after: Tally | None = None
    rewards: tuple[float | None, ...] = ()
    """Of a training: mean reward by step."""
    rows: TrainingRows | None = None
    """Of a training: where its rows came from."""

    @property
    def requested(self) -> int:
        """Episodes asked for: those planned, or those that ended where nobody knows the plan."""
        return self.tally.requested if self.planned is None else self.planned

    @property
    def still_open(self) -> int:
        """Episodes that have not ended. Below zero, more ended than were asked for: that must never happen."""
        return self.requested - self.tally.requested


def summarise(store: JournalStore, run: Run) -> Summary:
    """Add up ``run``. Blocks."""
    return summary_of(
        run,
        store.episodes(run.id),
        store.steps(run.id),
        store.events(run.id),
        unscored_rows=len(store.unscored_rows(run.id)),
        state=state_of(store, run),
    )


def summary_of(
    run: Run,
    episodes: list[EpisodeEnded],
    steps: list[StepTrained],
    events: list[Event],
    *,
    unscored_rows: int,
    state: str,
) -> Summary:
    """Add up what the journal holds of ``run``."""
    kind = kind_of(run)
    planned = run.config.get("planned")
    summary = Summary(
        run=run,
        kind=kind,
        state=state,
        tally=tally(episode.outcome for episode in episodes),
        planned=planned if isinstance(planned, int) else None,
        causes=causes_of(episode.outcome for episode in episodes),
        full_marks=sum(isinstance(e.outcome, Scored) and e.outcome.reward >= 1.0 for e in episodes),
        restarts=RestartCounts(
            (f"{event.supervisor.rstrip('/')}/{event.child}", event.reason)
            for event in events
            if event.kind == "restart"
        ).listed(),
        seconds=at_work(
            [(run.created, run.created), *((e.started, e.finished) for e in episodes), *((s.at, s.at) for s in steps)]
        ),
    )
    return summary if kind == "evaluate" else _trained(summary, episodes, steps, unscored_rows)


def state_of(store: JournalStore, run: Run) -> str:
    """How ``run`` stands. A run that says ``running`` and that nobody plays was killed."""
    match run.status:
        case "completed" | "failed":
            return run.status
        case "cancelled":
            return "interrupted"
        case "running":
            return "running" if leases.is_played(store.leases(run=run.id), run.id, time.time()) else "interrupted"


def _trained(summary: Summary, episodes: list[EpisodeEnded], steps: list[StepTrained], unscored: int) -> Summary:
    from palmette.trainers.course import AFTER, BEFORE

    held_out = [episode for episode in episodes if is_held_out(summary.run, episode)]
    asked = summary.run.config.get("eval_episodes")

    def evaluation(sample: int) -> Tally | None:
        ended = [episode.outcome for episode in held_out if episode.sample == sample]
        return tally(ended) if len(ended) == asked else None

    trained = [episode for episode in episodes if not is_held_out(summary.run, episode)]
    known = {step.step: step.metrics.get("reward") for step in steps}
    return msgspec.structs.replace(
        summary,
        before=evaluation(BEFORE),
        after=evaluation(AFTER),
        rewards=tuple(known.get(step) for step in range(1, max(known, default=0) + 1)),
        rows=TrainingRows(
            scored=sum(isinstance(episode.outcome, Scored) for episode in trained),
            used=sum(len(step.rows) for step in steps),
            not_scored=unscored,
        ),
    )


def is_held_out(run: Run, episode: EpisodeEnded) -> bool:
    """Whether an episode of a training belongs to its evaluations: its task is of the test split."""
    return episode.task.startswith(f"{run.benchmark}-test-")


def causes_of(outcomes: Iterable[Outcome]) -> dict[str, dict[str, int]]:
    """Count the causes that outcomes name.

    >>> causes_of([InfraFailed(reason="…", cause="daemon_gone"), InfraFailed(reason="…")])
    {'infra_failed': {'daemon_gone': 1}}
    """
    found: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        if isinstance(outcome, AgentFailed | InfraFailed) and outcome.cause:
            found.setdefault(kind(outcome), Counter())[outcome.cause] += 1
    return {name: dict(counter.most_common()) for name, counter in found.items()}


def at_work(intervals: list[tuple[float, float]]) -> float:
    """Seconds covered by ``intervals``, pauses of up to a minute between them included.

    >>> at_work([(0.0, 10.0), (30.0, 40.0), (1000.0, 1005.0)])
    45.0
    """
    covered, end = 0.0, None
    for start, finish in sorted(intervals):
        if end is None or start - end > _PAUSE:
            covered += finish - start
            end = finish
        elif finish > end:
            covered += finish - end
            end = finish
    return covered
