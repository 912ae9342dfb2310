"""A training run, as one tree::

    /                         rest_for_one, ends when the course has finished
    ├── journal               the run store's owner
    └── training              one_for_one
        ├── policy            process: samples from the policy
        ├── rollouts          one_for_all
        │   ├── pool          plays episodes, one result each
        │   └── episodes      dynamic: one tree per episode under way
        ├── course            the stages, and their evaluations
        ├── trainer           process: warm start, then GRPO through TRL
        └── chaos             kills the others, where it is asked for

The policy server and the trainer are separate processes under separate restarts: a killed trainer goes on from its last
checkpoint while the server keeps serving; a killed server comes back with the newest weights, and the agents that were
waiting for it start over.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from palmette.actors import Actor
from palmette.agents.react import ReactLimits
from palmette.agents.tools import Tool
from palmette.benchmarks.benchmark import Benchmark, Dialect
from palmette.benchmarks.episode import EpisodeSettings
from palmette.benchmarks.errors import BadOption
from palmette.benchmarks.rubric import Rubric
from palmette.benchmarks.run import journal_spec, rollouts_spec
from palmette.benchmarks.task import Task
from palmette.machines.contract import Machine
from palmette.supervisors import Backoff, ChildSpec, Supervisor, child
from palmette.trainers.chaos import Chaos, ChaosPlan, sabotage_client, sabotage_tools
from palmette.trainers.client import TrainedPolicy
from palmette.trainers.course import Course
from palmette.trainers.grpo_config import GrpoConfig
from palmette.trainers.policy_server import PolicyServer
from palmette.trainers.trainer import Trainer, TrainerConfig

REPLY_TOKENS = 12
"""A command of the trail suite is six characters; what is longer will not become one."""


FINAL: Final = ("TrainingFailed", "RolloutsWrong", "RowError", "ValueError")
"""What a trainer cannot do better the next time."""


class TrainConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A training run; it stands in the journal."""

    benchmark: str = "trail"
    steps: int = 40
    """Optimiser steps."""
    groups: int = 8
    """Tasks per step."""
    num_generations: int = 8
    """Episodes per task and step (GRPO's group)."""
    learning_rate: float = 1e-3
    eval_episodes: int = 512
    """Held-out tasks, played before and after."""
    demonstrations: int = 4800
    warm_steps: int = 150
    seed: int = 0
    concurrency: int = 64
    machine: str = "local"
    episode_seconds: float = 120.0
    output_dir: str = "palmette-training"
    chaos: bool = False

    def __post_init__(self) -> None:
        if self.benchmark != "trail":
            raise BadOption(
                f"only 'trail' comes with demonstrations and a policy to train, not {self.benchmark!r}; "
                "train others through palmette.trainers in Python"
            )
        for name in ("steps", "groups", "eval_episodes", "demonstrations", "warm_steps", "concurrency"):
            if getattr(self, name) < 1:
                raise BadOption(f"--{name.replace('_', '-')} is at least 1, got {getattr(self, name)}")
        if self.num_generations < 2:
            raise BadOption(f"--num-generations is at least 2, for a group to compare; got {self.num_generations}")


class PreparedTraining(msgspec.Struct, frozen=True, kw_only=True):
    """A training run that can be started."""

    config: TrainConfig
    benchmark: Benchmark
    held_out: tuple[str, ...]
    trainer: TrainerConfig
    client: TrainedPolicy


class _Splits:
    """Training and held-out tasks of one benchmark, as one."""

    def __init__(self, train: Benchmark, held_out: Benchmark) -> None:
        self.name = train.name
        self.needs_machine = train.needs_machine
        self.dialect: Dialect = train.dialect
        self._train = train
        self._tasks = (*train.tasks(), *held_out.tasks())

    def tasks(self) -> Sequence[Task]:
        return self._tasks

    def rubric(self, task: Task) -> Rubric:
        return self._train.rubric(task)

    def tools(self, task: Task, machine: Machine | None) -> Sequence[Tool]:
        return self._train.tools(task, machine)

    def replies(self, task: Task, field: str) -> Sequence[str]:
        return self._train.replies(task, field)


def prepare_training(config: TrainConfig, *, run: str = "") -> PreparedTraining:
    """Generate the tasks and the demonstrations. Blocking. Raises BenchmarkError with a sentence for the person."""
    from palmette.benchmarks.suites.trail import Trail, demonstrations

    train = Trail(count=4 * config.groups * config.steps, seed=config.seed, split="train")
    held_out = Trail(count=config.eval_episodes, seed=config.seed, split="test")
    output = Path(config.output_dir).resolve()
    rollouts = config.groups * config.num_generations
    trainer = TrainerConfig(
        run=run,
        output_dir=str(output),
        grpo=GrpoConfig(
            max_steps=config.steps,
            num_generations=config.num_generations,
            per_device_train_batch_size=rollouts,
            learning_rate=config.learning_rate,
            seed=config.seed,
            save_steps=1,
        ),
        sft_steps=config.warm_steps,
        sft_seed=config.seed,
        prompts=tuple((task.id, task.prompt) for task in train.tasks()),
        demonstrations=tuple(tuple(talk) for talk in demonstrations(config.demonstrations, seed=config.seed)),
        rollout_seconds=config.episode_seconds * (2 + rollouts / config.concurrency),
    )
    return PreparedTraining(
        config=config,
        benchmark=_Splits(train, held_out),
        held_out=tuple(task.id for task in held_out.tasks()),
        trainer=trainer,
        client=TrainedPolicy(trainer.warm_dir, temperature=trainer.grpo.temperature, max_tokens=REPLY_TOKENS),
    )


def training_tree(prepared: PreparedTraining, *, run: str, journal: str) -> ChildSpec[Supervisor]:
    """The tree of training run ``run``, whose row is in the journal at the URL ``journal`` already."""
    config = prepared.config
    plan = ChaosPlan() if config.chaos else None
    settings = EpisodeSettings(
        run=run,
        benchmark=prepared.benchmark,
        client=prepared.client,
        machine=config.machine,
        limits=ReactLimits(seconds=config.episode_seconds, reply_tokens=REPLY_TOKENS),
        seconds=config.episode_seconds + 30.0,
        wrap_client=None if plan is None else sabotage_client(plan),
        wrap_tools=None if plan is None else sabotage_tools(plan),
    )
    trainer = msgspec.structs.replace(prepared.trainer, run=run)
    slowly = Backoff(min=0.2, max=10.0)
    children: list[ChildSpec[Actor]] = [
        child(
            PolicyServer,
            str(trainer.warm_dir),
            trainer.output_dir,
            name="policy",
            isolation="process",
            backoff=slowly,
        ),
        rollouts_spec(settings, config.concurrency),
        child(
            Course,
            client=prepared.client,
            held_out=prepared.held_out,
            total_steps=config.steps,
            rollouts_per_step=trainer.grpo.rollouts_per_step,
            concurrency=config.concurrency,
            episode_seconds=settings.seconds,
            seed=config.seed,
            name="course",
            restart="transient",
            significant=True,
            backoff=slowly,
            rules={"retryable": "backoff"},
        ),
        child(
            Trainer,
            trainer,
            name="trainer",
            isolation="process",
            restart="transient",
            backoff=slowly,
            rules={"retryable": "backoff", "NothingScored": "backoff", **dict.fromkeys(FINAL, "escalate")},
        ),
    ]
    if plan is not None:
        children.append(child(Chaos, plan, run, config.steps, name="chaos", restart="transient"))
    training = Supervisor.spec(
        name="training",
        strategy="one_for_one",
        auto_shutdown="any_significant",
        max_restarts=6,
        max_seconds=60.0,
        restart="transient",
        significant=True,
        rules={"max_restarts": "escalate"},
        children=children,
    )
    return Supervisor.spec(
        name="train",
        strategy="rest_for_one",
        auto_shutdown="any_significant",
        children=[journal_spec(journal, run), training],
    )
