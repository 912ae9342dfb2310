"""``palmette demo``: the whole house in three minutes, offline, under injected crashes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from palmette.console.commands.train import OUTPUT
from palmette.console.options import JournalOption, JsonOption

if TYPE_CHECKING:
    from palmette.console.summary import Summary
    from palmette.console.work import Work

ENOUGH = 0.9
"""Held-out success after the training below which the demo has failed."""


def demo(
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 40,
    eval_episodes: Annotated[int, typer.Option(help="Held-out episodes before and after.")] = 512,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    journal: JournalOption = None,
    json: JsonOption = False,
) -> None:
    """Learn a tool-using task from scratch, offline, while agents, sandboxes, the policy server and the trainer are
    killed on purpose."""
    from palmette.console.playing import begin
    from palmette.console.work import training
    from palmette.trainers.training import TrainConfig

    def prepare(run_id: str) -> Work:
        output = Path(OUTPUT, run_id).absolute()
        return training(
            TrainConfig(steps=steps, eval_episodes=eval_episodes, seed=seed, chaos=True, output_dir=str(output))
        )

    begin(prepare, journal, as_json=json, check=check)


def check(summary: Summary) -> None:
    """Raises DemoFailed unless the policy learned, the sums agree, and only scored episodes were learned from."""
    from palmette.console.closing import success
    from palmette.console.failures import DemoFailed

    wrong: list[str] = []
    if summary.still_open:
        wrong.append(f"{summary.requested:,} episodes were asked for and {summary.tally.requested:,} ended")
    if summary.rows is not None and summary.rows.not_scored:
        wrong.append(f"{summary.rows.not_scored:,} training rows came from episodes that were not scored")
    if summary.after is None:
        wrong.append("the held-out episodes after the training did not all end")
    elif success(summary.after) < ENOUGH:
        wrong.append(f"held-out success after the training is {success(summary.after):.1%}, below {ENOUGH:.0%}")
    if wrong:
        raise DemoFailed(f"the demo failed: {'; '.join(wrong)}; `palmette report {summary.run.id}` shows more")
