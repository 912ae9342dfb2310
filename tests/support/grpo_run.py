"""A training run on made-up episodes: equal on every machine and at every attempt, so that runs can be compared.

As a program it is a run to be killed: ``python grpo_run.py POLICY OUTPUT LOG`` appends a line to LOG at every event,
and waits before step 7 for the end.
"""

from __future__ import annotations

import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from palmette.benchmarks.outcomes import InfraFailed, Scored
from palmette.trainers.grpo import run_grpo
from palmette.trainers.grpo_config import GrpoConfig, RolloutBatch, RolloutRequest
from palmette.trainers.rows import TrainingRow, unscorable

CONFIG = GrpoConfig(
    max_steps=8,
    num_generations=4,
    per_device_train_batch_size=8,
    gradient_accumulation_steps=2,
    save_steps=1,
    save_total_limit=2,
    learning_rate=1e-3,
)
PROMPTS = [(f"task-{index}", f"find {index}") for index in range(5)]
EOS = 1


def episode(request: RolloutRequest, version: int) -> TrainingRow:
    """Ids and reward that depend on the request's seed alone; one in eight has lost its machine."""
    draw = random.Random(request.seed)
    if draw.random() < 0.125:
        return unscorable(request.task_id, request.group, InfraFailed(reason="made up"), eos_id=EOS)
    said = (*(draw.randrange(6, 262) for _ in range(draw.randrange(2, 6))), EOS)
    heard = (5, *(draw.randrange(6, 262) for _ in range(3)), EOS, 4)
    return TrainingRow(
        task_id=request.task_id,
        group=request.group,
        outcome=Scored(reward=float(said[0] % 2)),
        prompt_ids=(3, 50, 60, EOS, 4),
        completion_ids=said + heard + said,
        logprobs=(-1.0,) * len(said) + (0.0,) * len(heard) + (-1.0,) * len(said),
        env_mask=(1,) * len(said) + (0,) * len(heard) + (1,) * len(said),
        policy_version=version,
    )


def episodes(batch: RolloutBatch) -> list[TrainingRow]:
    return [episode(request, batch.policy_version) for request in batch.requests]


def logged_run(model: Path, output: Path, log: Callable[[str], None], *, resume: bool) -> Path:
    def rollouts(batch: RolloutBatch) -> list[TrainingRow]:
        log(f"rollout {batch.step} {' '.join(f'{request.task_id}:{request.seed}' for request in batch.requests)}")
        return episodes(batch)

    return run_grpo(
        CONFIG,
        model_dir=model,
        output_dir=output,
        prompts=PROMPTS,
        rollouts=rollouts,
        publish=lambda weights, version: log(f"publish {version}"),
        on_step=lambda metrics: log(f"step {metrics.step}"),
        resume=resume,
    )


if __name__ == "__main__":
    with open(sys.argv[3], "a", buffering=1) as file:

        def write(line: str) -> None:
            file.write(f"{line}\n")
            if line == "publish 6":
                signal.pause()

        logged_run(Path(sys.argv[1]), Path(sys.argv[2]), write, resume=False)
