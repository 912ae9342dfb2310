"""A training run small enough for a test: four steps of two groups of four episodes.

As a program it is a run to be killed: ``python training_run.py FOLDER RUN`` prints ``step N`` when N steps are done.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from palmette.actors import System
from palmette.agents.conversation import Completion, Message, ModelClient, Session, ToolSchema
from palmette.benchmarks.journal import EpisodeKey, JournalStore
from palmette.supervisors import ChildSpec, Supervisor
from palmette.trainers.course import Course
from palmette.trainers.progress import Progress
from palmette.trainers.training import TrainConfig, prepare_training, training_tree

STEPS, ROLLOUTS, HELD_OUT = 4, 8, 8


def config(folder: Path, *, chaos: bool = False) -> TrainConfig:
    return TrainConfig(
        steps=STEPS,
        groups=2,
        num_generations=4,
        eval_episodes=HELD_OUT,
        demonstrations=64,
        warm_steps=4,
        concurrency=8,
        output_dir=str(folder / "out"),
        chaos=chaos,
    )


def journal_in(folder: Path) -> str:
    return f"sqlite:///{folder}/runs.db"


def new_training(folder: Path) -> str:
    with JournalStore(journal_in(folder)) as store:
        return store.create_run("trail", {}).id


def tree(folder: Path, run: str, *, chaos: bool = False) -> ChildSpec[Supervisor]:
    return training_tree(prepare_training(config(folder, chaos=chaos), run=run), run=run, journal=journal_in(folder))


async def until_step(system: System, step: int) -> Progress:
    """Wait until so many steps are done."""
    while True:
        course = await system.wait_for("course", Course)
        progress = await course.call(Course.progress)
        if progress.step >= step:
            return progress
        await asyncio.sleep(0.02)


class Failing:
    """A client for episodes whose agent is to crash whenever it is started."""

    def __init__(self, client: ModelClient) -> None:
        self._client = client

    def session(self, task_id: str, *, seed: int) -> Session:
        return _Failing()

    async def close(self) -> None:
        await self._client.close()


class _Failing:
    async def complete(
        self,
        conversation: Sequence[Message],
        *,
        tools: Sequence[ToolSchema] = (),
        max_tokens: int | None = None,
        timeout: float,
    ) -> Completion:
        raise RuntimeError("made up: this agent always crashes")


def failing_for(key: EpisodeKey) -> bool:
    """Every fourth rollout; no evaluation, whose samples are 0 and 1."""
    return key.sample > 1 and key.sample % 4 == 3


async def main(folder: Path, run: str) -> None:
    async with System.start(tree(folder, run)) as system:
        for step in range(1, STEPS + 1):
            await until_step(system, step)
            print("step", step, flush=True)
        await system.wait_ended()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
