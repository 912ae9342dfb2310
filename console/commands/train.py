"""``palmette train``: learn from the rewards of supervised episodes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from palmette.console.options import JournalOption, JsonOption

if TYPE_CHECKING:
    from palmette.console.work import Work

Option = typer.Option
OUTPUT = "runs"
"""Directory under which a training's checkpoints go, by run id."""


def train(
    benchmark: Annotated[str, typer.Argument(metavar="BENCHMARK", help="trail.", show_default=False)],
    steps: Annotated[int, Option(help="Optimiser steps.")] = 40,
    groups: Annotated[int, Option(help="Tasks per step.")] = 8,
    num_generations: Annotated[int, Option(help="Episodes per task and step.")] = 8,
    eval_episodes: Annotated[int, Option(help="Held-out episodes before and after.")] = 512,
    learning_rate: Annotated[float, Option(help="Of the optimiser.")] = 1e-3,
    concurrency: Annotated[int, Option(help="Episodes at a time.")] = 64,
    seed: Annotated[int, Option(help="Of everything that is drawn.")] = 0,
    chaos: Annotated[
        bool, Option("--chaos", help="Kill agents, sandboxes, policy server and trainer on purpose.")
    ] = False,
    output: Annotated[
        Path | None,
        Option("-o", "--output-dir", metavar="DIR", help=f"Default: {OUTPUT}/RUN.", show_default=False),
    ] = None,
    journal: JournalOption = None,
    json: JsonOption = False,
) -> None:
    """Learn a benchmark: a warm start from demonstrations, then GRPO through TRL on the rewards of episodes.

    A training that was interrupted, or killed at any moment, goes on from its last step with `palmette resume`.
    """
    from palmette.console.playing import begin
    from palmette.console.work import training
    from palmette.trainers.training import TrainConfig

    def prepare(run_id: str) -> Work:
        return training(
            TrainConfig(
                benchmark=benchmark,
                steps=steps,
                groups=groups,
                num_generations=num_generations,
                eval_episodes=eval_episodes,
                learning_rate=learning_rate,
                concurrency=concurrency,
                seed=seed,
                chaos=chaos,
                output_dir=str((output or Path(OUTPUT) / run_id).absolute()),
            )
        )

    begin(prepare, journal, as_json=json)
