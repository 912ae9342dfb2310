"""The trainer: a transient actor in a process of its own. Kill it, and it goes on from its last step.

It works through three stages and keeps nothing in memory that is not on disk: the warm start (a policy directory that
appears whole), the optimiser steps (checkpoints), the trained policy (``final``). What it needs from others it asks
for by message: episodes from the pool, the go for each stage from the course.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from palmette.actors import Actor, Ref, TaskDone, deadline, endpoint
from palmette.agents.conversation import Message
from palmette.benchmarks.episode import EpisodeRequest
from palmette.benchmarks.journal.actor import Journal
from palmette.benchmarks.journal.records import EpisodeKey, StepTrained
from palmette.benchmarks.outcomes import Scored
from palmette.benchmarks.pool import EpisodePool
from palmette.trainers.course import Course
from palmette.trainers.grpo_config import GrpoConfig, RolloutBatch, RolloutRequest, StepMetrics
from palmette.trainers.policy_server import PolicyServer
from palmette.trainers.progress import WarmStart
from palmette.trainers.rows import TrainingRow, check_staleness, training_row, unscorable

if TYPE_CHECKING:
    from palmette.trainers.tokenizer import Codec

T = TypeVar("T")

STAGE_SECONDS = 24 * 3600.0
"""Deadline of a stage of the course (an evaluation)."""


class TrainerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the trainer's process is told. Everything in it crosses the wire."""

    run: str
    output_dir: str
    grpo: GrpoConfig
    sft_steps: int
    sft_seed: int
    prompts: tuple[tuple[str, str], ...]
    """Task id and prompt of every training task."""
    demonstrations: tuple[tuple[Message, ...], ...]
    rollout_seconds: float
    """Deadline of one step's episodes."""

    @property
    def base_dir(self) -> Path:
        return Path(self.output_dir) / "base"

    @property
    def warm_dir(self) -> Path:
        return Path(self.output_dir) / "warm"

    @property
    def grpo_dir(self) -> Path:
        return Path(self.output_dir) / "grpo"


class Trainer(Actor):
    """See the module's text."""

    def __init__(self, config: TrainerConfig) -> None:
        self._config = config
        self._used: dict[int, tuple[EpisodeKey, ...]] = {}
        """By step, the episodes that it learns from."""

    async def continued(self) -> None:
        self.start_task(self._work(), tag="work")

    async def receive(self, message: object) -> None:
        if isinstance(message, TaskDone):
            self.stop()
        else:
            await super().receive(message)

    @endpoint
    async def pid(self) -> int:
        """The trainer's process."""
        return os.getpid()

    async def _work(self) -> None:
        config = self._config
        self._pool = await self.system.lookup("pool", EpisodePool)
        self._policy = await self.system.lookup("policy", PolicyServer)
        self._journal = await self.system.lookup("journal", Journal)
        self._course = await self.system.lookup("course", Course)
        if not config.warm_dir.is_dir():
            await asyncio.to_thread(self._warm_start, self._course)
        with deadline(STAGE_SECONDS):
            await self._course.call(Course.prepare)
        weights = await asyncio.to_thread(self._train)
        await self._publish(weights, config.grpo.max_steps)
        with deadline(STAGE_SECONDS):
            await self._course.call(Course.conclude)

    # --- in a thread: Hugging Face's trainers block --------------------------------------------------------------

    def _warm_start(self, course: Ref[Course]) -> None:
        from palmette.trainers import policy, sft

        config = self._config
        if not config.base_dir.is_dir():
            policy.create(config.base_dir, seed=config.sft_seed)

        def on_step(step: int, total: int, metrics: object) -> None:
            self.system.loop.call_soon_threadsafe(course.send, WarmStart(step / total))

        sft.warm_start(
            config.base_dir,
            [list(conversation) for conversation in config.demonstrations],
            sft.SftConfig(max_steps=config.sft_steps, seed=config.sft_seed),
            config.warm_dir,
            on_step=on_step,
        )

    def _train(self) -> bytes:
        from palmette.trainers import policy
        from palmette.trainers.grpo import run_grpo
        from palmette.trainers.tokenizer import Codec

        config = self._config
        codec = Codec.load(config.warm_dir)

        def rollouts(batch: RolloutBatch) -> Sequence[TrainingRow]:
            return self._wait(lambda: self._rollouts(batch, codec), config.rollout_seconds)

        def publish(weights: bytes, version: int) -> None:
            self._wait(lambda: self._publish(weights, version), config.rollout_seconds)

        def on_step(metrics: StepMetrics) -> None:
            self._wait(lambda: self._report(metrics), config.rollout_seconds)

        final = run_grpo(
            config.grpo,
            model_dir=config.warm_dir,
            output_dir=config.grpo_dir,
            prompts=config.prompts,
            rollouts=rollouts,
            publish=publish,
            on_step=on_step,
            resume=True,
        )
        return policy.weights_to_bytes(policy.load_model(final))

    def _wait(self, work: Callable[[], Coroutine[object, object, T]], seconds: float) -> T:
        return on_loop(self.system.loop, work, seconds)

    # --- on the loop -----------------------------------------------------------------------------------------------

    async def _publish(self, weights: bytes, version: int) -> None:
        with deadline(self._config.rollout_seconds):
            # A server that is being restarted is waited for: to crash here would cost a second process start.
            await self._course.call(Course.policy_served)
            await self._policy.call(PolicyServer.publish, weights, version)

    async def _rollouts(self, batch: RolloutBatch, codec: Codec) -> list[TrainingRow]:
        rows = await asyncio.gather(
            *(self._rollout(batch, index, request, codec) for index, request in enumerate(batch.requests))
        )
        self._used[batch.step] = tuple(
            EpisodeKey(request.task_id, self._sample(batch, index))
            for index, (request, row) in enumerate(zip(batch.requests, rows, strict=True))
            if isinstance(row.outcome, Scored)
        )
        return rows

    async def _rollout(self, batch: RolloutBatch, index: int, request: RolloutRequest, codec: Codec) -> TrainingRow:
        with deadline(self._config.rollout_seconds):
            result = await self._pool.call(
                EpisodePool.play,
                EpisodeRequest(task=request.task_id, sample=self._sample(batch, index), seed=request.seed),
            )
        if result.transcript is None:
            return unscorable(request.task_id, request.group, result.outcome, eos_id=codec.eos_id)
        row = training_row(
            result.transcript, result.outcome, task_id=request.task_id, group=request.group, eos_id=codec.eos_id
        )
        return check_staleness(
            row,
            policy_version=batch.policy_version,
            max_staleness=self._config.grpo.max_staleness,
            eos_id=codec.eos_id,
        )

    def _sample(self, batch: RolloutBatch, index: int) -> int:
        """A sample number that no other episode of the run has; samples 0 and 1 are the evaluations'."""
        return 2 + (batch.step - 1) * len(batch.requests) + index

    async def _report(self, metrics: StepMetrics) -> None:
        numbers = {
            "reward": metrics.tally.mean_reward,
            "loss": metrics.loss,
            "grad_norm": metrics.grad_norm,
            "seconds": metrics.seconds,
            "rollout_seconds": metrics.rollout_seconds,
            "requested": float(metrics.tally.requested),
            "scored": float(metrics.tally.scored),
            "stale": float(metrics.tally.stale),
        }
        step = StepTrained(
            run=self._config.run,
            step=metrics.step,
            metrics={name: value for name, value in numbers.items() if value is not None},
            rows=self._used.pop(metrics.step, ()),
            at=time.time(),
        )
        await self._journal.call(Journal.commit, [step])
        await self._course.call(Course.stepped, metrics)


def on_loop(loop: asyncio.AbstractEventLoop, work: Callable[[], Coroutine[object, object, T]], seconds: float) -> T:
    """Have ``work`` done on ``loop`` and wait for it, at most ``seconds``: for another thread, which blocks.

    Raises:
        TimeoutError: it took longer; it is cancelled.
    """
    future = asyncio.run_coroutine_threadsafe(work(), loop)
    try:
        return future.result(seconds)
    finally:
        future.cancel()  # changes nothing about one that is done
