"""A report's data, from the journal."""

from __future__ import annotations

from palmette.benchmarks.journal import EpisodeEnded, Event, JournalStore, Run, StepTrained
from palmette.benchmarks.outcomes import AgentFailed, InfraFailed, Scored, Stale, kind
from palmette.console.closing import success
from palmette.console.report_data import FailedEpisode, HeldOut, Mark, ReportData, RewardPoint, RunFacts, Training
from palmette.console.roles import role_of
from palmette.console.summary import Summary, summary_of
from palmette.console.summary import state_of as state_of
from palmette.console.work import command_of

MOST_FAILED = 200
"""Episodes without a reward that are listed one by one."""


def report_data(store: JournalStore, run: Run) -> ReportData:
    """Everything on the page about ``run``. Blocks."""
    episodes, steps, events = store.episodes(run.id), store.steps(run.id), store.events(run.id)
    summary = summary_of(
        run, episodes, steps, events,
        unscored_rows=len(store.unscored_rows(run.id)), state=state_of(store, run),
    )  # fmt: skip
    failed = [episode for episode in episodes if not isinstance(episode.outcome, Scored)]
    return ReportData(
        run=_facts(summary),
        tally=summary.tally,
        planned=summary.planned,
        rewards=tuple(e.outcome.reward for e in episodes if isinstance(e.outcome, Scored)),
        training=_training(summary, steps, events) if summary.kind == "train" else None,
        restarts=summary.restarts,
        failed=tuple(_failed(episode) for episode in failed[:MOST_FAILED]),
        failed_left_out=max(len(failed) - MOST_FAILED, 0),
    )


def _facts(summary: Summary) -> RunFacts:
    run = summary.run

    def told(field: str) -> str:
        value = run.config.get(field)
        return value if isinstance(value, str) else ""

    return RunFacts(
        run_id=run.id,
        benchmark=run.benchmark,
        agent=told("agent") if summary.kind == "evaluate" else "GRPO",
        model=told("model"),
        machine=told("machine"),
        state="finished"
        if summary.state == "completed"
        else "running"
        if summary.state == "running"
        else "interrupted",
        started=run.created,
        seconds=summary.seconds,
        command=command_of(run),
    )


def _training(summary: Summary, steps: list[StepTrained], events: list[Event]) -> Training:
    asked = summary.run.config.get("eval_episodes")
    total = summary.run.config.get("steps")
    return Training(
        steps=total if isinstance(total, int) else len(steps),
        points=tuple(
            RewardPoint(step=step.step, mean=step.metrics.get("reward"), scored=len(step.rows)) for step in steps
        ),
        marks=tuple(
            Mark(step=1 + sum(step.at <= event.at for step in steps), label=f"{event.child} restarted: {event.reason}")
            for event in events
            # Restarts inside episodes are too many to mark, and each concerns one row at most.
            if event.kind == "restart" and "*" not in role_of(f"{event.supervisor}/{event.child}") and steps
        ),
        held_out=HeldOut(
            episodes=asked if isinstance(asked, int) else 0,
            before=None if summary.before is None else success(summary.before),
            after=None if summary.after is None else success(summary.after),
        ),
        rows=summary.rows,
    )


def _failed(episode: EpisodeEnded) -> FailedEpisode:
    outcome = episode.outcome
    reason = f"{outcome.age} optimiser steps old" if isinstance(outcome, Stale) else str(getattr(outcome, "reason", ""))
    cause = outcome.cause if isinstance(outcome, AgentFailed | InfraFailed) else ""
    return FailedEpisode(task=episode.task, outcome=kind(outcome), reason=reason, cause=cause, attempt=episode.attempt)
