"""Supervised fine-tuning: a policy learns to talk as given conversations do.

The warm start of reinforcement learning. The loss is on the assistant's words alone (and on the token that ends
them), through TRL's ``SFTTrainer``. A warm start is short and leaves no checkpoints: the new policy directory appears
whole at the end, and a killed run is simply run again.

    warm_start("policy", demonstrations(4800, seed=0), SftConfig(), "policy-sft")
"""

# The annotations of Hugging Face's libraries are partial.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from palmette.agents.conversation import Message
from palmette.trainers import hugging_face, policy
from palmette.trainers.tokenizer import Codec


class SftConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Names as in ``trl.SFTConfig``; the defaults suit the 116,000-parameter policy."""

    max_steps: int = 150
    per_device_train_batch_size: int = 32
    learning_rate: float = 6e-3
    lr_scheduler_type: str = "linear"
    adam_beta2: float = 0.95
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 0
    threads: int = 1


class SftMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """What a warm start came to."""

    steps: int
    conversations: int
    """As many as were given; those beyond ``steps * batch size`` were not needed."""
    first_loss: float
    """Mean cross-entropy per assistant token at the first step, in nats."""
    last_loss: float
    seconds: float
    """Wall-clock time, tokenising and saving included."""


def warm_start(
    path: str | Path,
    conversations: Sequence[Sequence[Message]],
    config: SftConfig,
    output: str | Path,
    *,
    on_step: Callable[[int, int, Mapping[str, float]], None] | None = None,
) -> SftMetrics:
    """Train the policy at ``path`` on ``conversations`` and write the result to ``output``. Blocks.

    ``on_step(step, total, metrics)`` is called after every optimiser step, with TRL's metrics (``loss``,
    ``grad_norm``, ``learning_rate``, ...); what it raises ends the training.

    Raises:
        ValueError: there are no conversations, one has no assistant message, or ``output`` exists already.
        TrainingFailed: the loss is not finite.
    """
    if not conversations:
        raise ValueError("there are no conversations to learn from; give at least one")
    for number, conversation in enumerate(conversations):
        if not any(message.role == "assistant" for message in conversation):
            raise ValueError(f"conversation {number} has no assistant message; there is nothing to learn from it")
    if Path(output).exists():
        raise ValueError(f"{output} exists already; remove it or choose another directory")
    import datasets
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    began = time.perf_counter()
    codec = Codec.load(path)
    losses: list[float] = []

    def on_log(step: int, metrics: dict[str, float]) -> None:
        losses.append(metrics["loss"])
        if on_step is not None:
            on_step(step, config.max_steps, metrics)

    with hugging_face.quiet(), tempfile.TemporaryDirectory(prefix="palmette-sft-") as scratch:
        options = hugging_face.machine_options(config.threads)
        trainer = SFTTrainer(
            model=policy.load_model(path),
            args=SFTConfig(
                output_dir=scratch,
                max_steps=config.max_steps,
                per_device_train_batch_size=config.per_device_train_batch_size,
                learning_rate=config.learning_rate,
                lr_scheduler_type=config.lr_scheduler_type,
                adam_beta2=config.adam_beta2,
                weight_decay=config.weight_decay,
                max_grad_norm=config.max_grad_norm,
                seed=config.seed,
                save_strategy="no",
                assistant_only_loss=True,
                max_length=None,
                **options,
            ),
            train_dataset=datasets.Dataset.from_list(
                [{"messages": codec.chat(conversation)} for conversation in conversations]
            ),
            processing_class=cast(Any, codec.tokenizer),
            callbacks=[hugging_face.step_callback(on_log)],
        )
        hugging_face.silence_callbacks(trainer)
        trainer.train()
        policy.save(output, cast(Any, trainer.model), codec)
    return SftMetrics(
        steps=len(losses),
        conversations=len(conversations),
        first_loss=losses[0],
        last_loss=losses[-1],
        seconds=time.perf_counter() - began,
    )
