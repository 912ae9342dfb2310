"""Episodes of trail in memory: the real harness, session, batcher and engine, and a dictionary for a machine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import cast

from palmette.agents.react import react
from palmette.agents.transcript import Transcript
from palmette.benchmarks.outcomes import Outcome
from palmette.benchmarks.suites.trail import Trail
from palmette.benchmarks.task import Task
from palmette.machines.contract import Machine
from palmette.trainers.batching import Batcher
from palmette.trainers.engine import PolicyEngine
from palmette.trainers.grpo_config import RolloutBatch
from palmette.trainers.rows import TrainingRow, training_row
from palmette.trainers.sampling import Sample, SampleRequest
from palmette.trainers.session import PolicyClient


class DictMachine:
    """As much of a machine as trail's tool uses."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)

    async def get(self, path: str, *, max_bytes: int) -> bytes:
        return self.files[path]


async def episode(benchmark: Trail, client: PolicyClient, task: Task, seed: int) -> tuple[Transcript, Outcome]:
    machine = cast(Machine, DictMachine(task.files))
    transcript = await react(
        task.prompt,
        client.session(task.id, seed=seed),
        benchmark.tools(task.public(), machine),
        dialect=benchmark.dialect,
        turns=task.turns,
    )
    return transcript, await benchmark.rubric(task).judge(task, transcript, machine)


async def _episodes(
    engine: PolicyEngine, benchmark: Trail, wanted: Sequence[tuple[Task, int]]
) -> list[tuple[Transcript, Outcome]]:
    batcher = Batcher(engine.generate, check=engine.check, max_batch_size=64)
    async with batcher:

        async def generate(request: SampleRequest) -> Sample:
            return await batcher.submit(request, timeout=60.0)

        client = PolicyClient(generate, engine.codec)
        return list(await asyncio.gather(*(episode(benchmark, client, task, seed) for task, seed in wanted)))


def evaluate_in_process(engine: PolicyEngine, benchmark: Trail) -> float:
    """The mean reward over all tasks."""
    results = asyncio.run(_episodes(engine, benchmark, [(task, 0) for task in benchmark.tasks()]))
    return sum(getattr(outcome, "reward", 0.0) for _, outcome in results) / len(results)


def rollout_in_process(engine: PolicyEngine, benchmark: Trail, batch: RolloutBatch) -> list[TrainingRow]:
    """What a trainer asked for."""
    tasks = {task.id: task for task in benchmark.tasks()}
    results = asyncio.run(_episodes(engine, benchmark, [(tasks[r.task_id], r.seed) for r in batch.requests]))
    return [
        training_row(transcript, outcome, task_id=request.task_id, group=request.group, eos_id=engine.codec.eos_id)
        for request, (transcript, outcome) in zip(batch.requests, results, strict=True)
    ]
