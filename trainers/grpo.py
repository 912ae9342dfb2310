"""GRPO: a policy learns from the rewards of groups of episodes, through TRL's ``GRPOTrainer(rollout_func=...)``.

The trainer asks for rollouts and does not care how they come about. At every optimiser step it publishes its weights,
asks for one row per requested episode, in order, and learns from the rows that are scored. It checkpoints, and a run
that was killed goes on from its newest complete checkpoint as if nothing had happened: the sequence of tasks and seeds
is a function of the configuration and the step alone.

    run_grpo(
        GrpoConfig(max_steps=40),
        model_dir=Path("policy-sft"),
        output_dir=Path("run"),
        prompts=[(task.id, task.prompt) for task in benchmark.tasks()],
        rollouts=run_episodes,
        publish=send_to_policy_server,
        on_step=print,
    )

Everything here blocks; run it in a process of its own. (Group relative policy optimisation: Shao et al. 2024,
arXiv:2402.03300; the ``dapo`` loss: Yu et al. 2025, arXiv:2503.14476.)

::

    Exception
    ├── RolloutsWrong     the callback broke its contract (a row too few, rows in another order): a bug, not bad luck
    ├── NothingScored     no row of a step was scored: something under the episodes is down; restart with a backoff
    └── TrainingFailed    the loss is not finite (from hugging_face)
"""

# The annotations of Hugging Face's libraries are partial.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from palmette.benchmarks.outcomes import Tally, tally
from palmette.trainers import checkpoints, hugging_face, policy
from palmette.trainers.grpo_config import GrpoConfig, RolloutBatch, RolloutRequest, StepMetrics
from palmette.trainers.rows import TrainingRow, check_staleness
from palmette.trainers.tokenizer import Codec

if TYPE_CHECKING:
    from trl.trainer.grpo_trainer import GRPOTrainer


class RolloutsWrong(Exception):
    """The rows that came back are not those that were asked for."""


class NothingScored(Exception):
    """Not one episode of a step was scored, so there is nothing to learn from."""


def run_grpo(
    config: GrpoConfig,
    *,
    model_dir: Path,
    output_dir: Path,
    prompts: Sequence[tuple[str, str]],
    rollouts: Callable[[RolloutBatch], Sequence[TrainingRow]],
    publish: Callable[[bytes, int], None],
    on_step: Callable[[StepMetrics], None],
    resume: bool = False,
) -> Path:
    """Train the policy in ``model_dir`` for ``config.max_steps`` steps; the directory of the trained one. Blocks.

    ``prompts`` are (task id, prompt) pairs. ``publish(weights, version)`` is called before each ``rollouts(batch)``,
    which returns one row per request in the same order; both may block, and what they raise ends the training.
    With ``resume``, work that an earlier call with the same arguments left in ``output_dir`` is continued, if there is
    any; a finished one is not trained again.

    Raises:
        ValueError: no prompts, an ``output_dir`` in use and no ``resume``, or one made with another configuration.
        RolloutsWrong, NothingScored, TrainingFailed: see the top of this module.
    """
    if not prompts:
        raise ValueError("there are no prompts to train on; give at least one (task id, prompt) pair")
    _claim(output_dir, config, resume=resume)
    final = output_dir / "final"
    if final.is_dir():  # it appears whole, so it is whole
        return final
    checkpoints.discard_incomplete(output_dir)
    latest = checkpoints.newest(output_dir)
    codec = Codec.load(model_dir)
    if latest is not None and latest.step >= config.max_steps:
        # Killed between the last checkpoint and the export. Trainer.train would do one step too many from here.
        return policy.save(final, policy.load_model(latest.path), codec)
    with hugging_face.quiet():
        run = _Run(config, codec, rollouts, publish, on_step)
        trainer = _trainer(config, run, model_dir, output_dir, _dataset(config, prompts))
        trainer.train(resume_from_checkpoint=None if latest is None else str(latest.path))
        return policy.save(final, cast(Any, trainer.model), codec)


class _Run:
    """What happens between TRL's calls: rollouts are asked for, checked and counted; steps are reported."""

    def __init__(
        self,
        config: GrpoConfig,
        codec: Codec,
        rollouts: Callable[[RolloutBatch], Sequence[TrainingRow]],
        publish: Callable[[bytes, int], None],
        on_step: Callable[[StepMetrics], None],
    ) -> None:
        self.config = config
        self.codec = codec
        self._rollouts = rollouts
        self._publish = publish
        self._on_step = on_step
        self._tally = Tally()
        self._began = self._rolled_out = 0.0
        self.behind = False
        """Whether a row of the present step comes from an older policy."""

    def rollout(self, prompts: list[Any], trainer: GRPOTrainer) -> dict[str, Any]:
        """TRL's ``rollout_func``: ``prompts`` are message lists, each already repeated ``num_generations`` times."""
        self._began = time.perf_counter()
        version = int(trainer.state.global_step)
        batch = self._batch(prompts, version)
        self._publish(policy.weights_to_bytes(trainer.accelerator.unwrap_model(trainer.model)), version)
        rows = self._checked(batch, self._rollouts(batch))
        self._tally = tally(row.outcome for row in rows)
        if not self._tally.scored:
            raise NothingScored(
                f"none of the {len(rows)} episodes of step {batch.step} was scored ({_counts(self._tally)}); "
                "find out what the episodes need that is down"
            )
        self.behind = any(row.reward is not None and row.policy_version != version for row in rows)
        self._rolled_out = time.perf_counter()
        return {
            "prompt_ids": [list(row.prompt_ids) for row in rows],
            "completion_ids": [list(row.completion_ids) for row in rows],
            "logprobs": [list(row.logprobs) for row in rows],
            "env_mask": [list(row.env_mask) for row in rows],
            "episode_reward": [row.reward for row in rows],
        }

    def log(self, step: int, metrics: dict[str, float]) -> None:
        now = time.perf_counter()
        self._on_step(
            StepMetrics(
                step=step,
                total_steps=self.config.max_steps,
                tally=self._tally,
                loss=metrics["loss"],
                grad_norm=metrics.get("grad_norm", 0.0),
                rollout_seconds=self._rolled_out - self._began,
                seconds=now - self._began,
            )
        )

    def _batch(self, prompts: list[Any], version: int) -> RolloutBatch:
        step = version + 1
        return RolloutBatch(
            step=step,
            policy_version=version,
            requests=tuple(
                RolloutRequest(
                    task_id=messages[0]["task_id"],
                    prompt=messages[0]["content"],
                    group=f"{step}/{index // self.config.num_generations}",
                    seed=_seed(self.config.seed, step, index),
                )
                for index, messages in enumerate(prompts)
            ),
        )

    def _checked(self, batch: RolloutBatch, rows: Sequence[TrainingRow]) -> list[TrainingRow]:
        wanted = [(request.task_id, request.group) for request in batch.requests]
        given = [(row.task_id, row.group) for row in rows]
        if wanted != given:
            at = next(
                (i for i, (a, b) in enumerate(zip(wanted, given, strict=False)) if a != b), min(len(wanted), len(given))
            )
            raise RolloutsWrong(
                f"step {batch.step} asked for {len(wanted)} rows and got {len(given)}; the first difference is at row "
                f"{at}: give one row per request, in order, unscorable ones included"
            )
        return [
            check_staleness(
                row,
                policy_version=batch.policy_version,
                max_staleness=self.config.max_staleness,
                eos_id=self.codec.eos_id,
            )
            for row in rows
        ]


def _trainer(config: GrpoConfig, run: _Run, model_dir: Path, output_dir: Path, dataset: Any) -> GRPOTrainer:
    options = hugging_face.machine_options(config.threads)
    from transformers import TrainerCallback
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    class Trainer(GRPOTrainer):
        def create_model_card(self, *_: Any, **__: Any) -> None:
            """No README beside every checkpoint."""

        def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
            output = super()._generate_and_score_completions(inputs)
            # TRL takes rollouts for on-policy unless vLLM made them. With exact ones that is right, and free of the
            # rounding differences between server and trainer; only rows that are behind need the ratio.
            if run.behind:
                output["old_per_token_logps"] = output["sampling_per_token_logps"]
            return output

    class Seal(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            checkpoints.seal(output_dir / f"checkpoint-{state.global_step}", int(state.global_step))

    def episode_reward(episode_reward: list[float | None], **_: Any) -> list[float | None]:
        """The reward came with the rollout. ``None`` makes a row unscorable: out of the baseline, no advantage."""
        return episode_reward

    trainer = Trainer(
        model=policy.load_model(model_dir),
        reward_funcs=episode_reward,
        args=GRPOConfig(
            output_dir=str(output_dir),
            max_steps=config.max_steps,
            num_generations=config.num_generations,
            per_device_train_batch_size=config.per_device_train_batch_size,
            gradient_accumulation_steps=config.gradient_accumulation_steps,
            steps_per_generation=config.gradient_accumulation_steps,
            learning_rate=config.learning_rate,
            lr_scheduler_type=config.lr_scheduler_type,
            adam_beta2=config.adam_beta2,
            weight_decay=config.weight_decay,
            max_grad_norm=config.max_grad_norm,
            beta=config.beta,
            loss_type=config.loss_type,
            scale_rewards=config.scale_rewards,
            epsilon=config.epsilon,
            temperature=config.temperature,
            save_strategy="steps",
            save_steps=config.save_steps,
            save_total_limit=config.save_total_limit,
            seed=config.seed,
            shuffle_dataset=False,  # the data set is already in training order, so that a resumed run agrees with it
            **options,
        ),
        train_dataset=dataset,
        processing_class=cast(Any, run.codec.tokenizer),
        callbacks=[hugging_face.step_callback(run.log), Seal()],
        rollout_func=run.rollout,
    )
    hugging_face.silence_callbacks(trainer)
    return trainer


def _dataset(config: GrpoConfig, prompts: Sequence[tuple[str, str]]) -> Any:
    """One row per task and step, in training order: every pass over ``prompts`` is shuffled anew, none is cut short.

    TRL hands rollouts the messages and no other column, so the task's id travels inside the message.
    """
    import datasets

    needed = config.max_steps * config.tasks_per_step
    order: list[int] = []
    while len(order) < needed:
        turn = list(range(len(prompts)))
        random.Random(f"{config.seed}/{len(order)}").shuffle(turn)
        order += turn
    return datasets.Dataset.from_list(
        [
            {"prompt": [{"role": "user", "content": prompts[index][1], "task_id": prompts[index][0]}]}
            for index in order[:needed]
        ]
    )


def _claim(output_dir: Path, config: GrpoConfig, *, resume: bool) -> None:
    """Make ``output_dir`` this run's, or recognise it as such."""
    path = output_dir / "grpo.json"
    data = msgspec.json.encode(config)
    if not path.exists():
        output_dir.mkdir(parents=True, exist_ok=True)
        partial = output_dir / ".grpo.json"
        partial.write_bytes(data)
        partial.rename(path)
        return
    if not resume:
        raise ValueError(f"{output_dir} holds another training run; resume it or choose another directory")
    before = msgspec.json.decode(path.read_bytes(), type=GrpoConfig)
    if before != config:
        changed = [name for name in config.__struct_fields__ if getattr(before, name) != getattr(config, name)]
        raise ValueError(
            f"{output_dir} was trained with another configuration ({', '.join(changed)} differ); "
            "resume with the old one or choose another directory"
        )


def _seed(seed: int, step: int, index: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{step}/{index}".encode(), digest_size=7).digest(), "little")


def _counts(counted: Tally) -> str:
    fields = msgspec.structs.asdict(counted)
    return ", ".join(f"{value} {name}" for name, value in fields.items() if value and name != "reward_sum")
