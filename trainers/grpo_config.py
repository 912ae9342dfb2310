"""What a GRPO run is told, what it asks for, and what it tells: plain data, light to import and fit for the wire."""

from __future__ import annotations

import msgspec

from palmette.benchmarks.outcomes import Tally


class GrpoConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Names as in ``trl.GRPOConfig`` unless told otherwise; the defaults teach ``trail`` to the tiny policy."""

    max_steps: int = 40
    num_generations: int = 8
    """Episodes per task and step: the group whose rewards are compared."""
    per_device_train_batch_size: int = 64
    """Rows per forward pass."""
    gradient_accumulation_steps: int = 1
    """Forward passes per optimiser step; a step takes the product of the two in episodes."""
    learning_rate: float = 1e-3
    lr_scheduler_type: str = "constant"
    adam_beta2: float = 0.95
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    beta: float = 0.0
    """Weight of the KL divergence from the initial policy; 0 keeps no copy of it."""
    loss_type: str = "dapo"
    scale_rewards: str = "group"
    epsilon: float = 0.2
    """Clip range of the importance ratio."""
    temperature: float = 1.0
    """Must be the one that rollouts are sampled with."""
    save_steps: int = 5
    save_total_limit: int = 3
    seed: int = 0
    max_staleness: int = 0
    """Ours: optimiser steps that a row's policy may be behind. Rows from an older one count as ``Stale``. Above 0, rows
    that are behind are weighted by the importance ratio to the policy that sampled them."""
    threads: int = 1
    """Ours: PyTorch's thread count."""

    @property
    def rollouts_per_step(self) -> int:
        return self.per_device_train_batch_size * self.gradient_accumulation_steps

    @property
    def tasks_per_step(self) -> int:
        return self.rollouts_per_step // self.num_generations

    def __post_init__(self) -> None:
        if self.num_generations < 2:
            raise ValueError(f"num_generations must be at least 2 to compare anything, got {self.num_generations}")
        if self.rollouts_per_step % self.num_generations or not self.rollouts_per_step:
            raise ValueError(
                f"{self.rollouts_per_step} rollouts a step (per_device_train_batch_size * gradient_accumulation_steps) "
                f"do not divide into groups of num_generations={self.num_generations}"
            )
        if self.save_total_limit < 2:
            raise ValueError(
                f"save_total_limit must be at least 2, got {self.save_total_limit}: with one, a kill during a save "
                "would leave no complete checkpoint"
            )
        if self.max_steps < 1 or self.save_steps < 1 or self.max_staleness < 0:
            raise ValueError("max_steps and save_steps must be at least 1, max_staleness at least 0")


class RolloutRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One episode that the trainer wants."""

    task_id: str
    prompt: str
    group: str
    seed: int
    """For sampling; differs between the episodes of a group, and is the same when a killed step is done again."""


class RolloutBatch(msgspec.Struct, frozen=True, kw_only=True):
    """The episodes of one optimiser step."""

    step: int
    """The step that they are for, counting from 1."""
    policy_version: int
    """The version that was published for them: optimiser steps done, so ``step - 1``."""
    requests: tuple[RolloutRequest, ...]


class StepMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """One optimiser step. After a kill, the steps since the last checkpoint are done, and reported, once more."""

    step: int
    total_steps: int
    tally: Tally
    """How the step's episodes ended, stale ones counted as such; ``tally.mean_reward`` is over the scored alone."""
    loss: float
    grad_norm: float
    rollout_seconds: float
    """Wall-clock time until the rows were there."""
    seconds: float
    """Wall-clock time of the whole step, rollouts included."""
