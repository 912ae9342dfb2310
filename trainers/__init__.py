"""Training: policies, the servers that sample from them, and the loops that learn.

The names here load on first use: importing this package costs nothing, and a process that serves a policy never
imports what only a trainer needs (TRL, pandas).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from palmette.trainers.batching import Batcher, BatcherClosed, BatcherStatistics, EngineCrashed, QueueFull
    from palmette.trainers.engine import EngineStatistics, PolicyEngine
    from palmette.trainers.grpo import NothingScored, RolloutsWrong, run_grpo
    from palmette.trainers.grpo_config import GrpoConfig, RolloutBatch, RolloutRequest, StepMetrics
    from palmette.trainers.hugging_face import TrainingFailed
    from palmette.trainers.openai_endpoint import OpenAIEndpoint
    from palmette.trainers.policy import PolicyConfig, create, load_weights, weights_to_bytes
    from palmette.trainers.rows import RowError, TrainingRow, check_staleness, training_row, unscorable
    from palmette.trainers.sampling import BadRequest, Generate, Sample, SampleRequest, WindowExceeded
    from palmette.trainers.session import PolicyClient, PolicySession
    from palmette.trainers.sft import SftConfig, SftMetrics, warm_start
    from palmette.trainers.tokenizer import Codec, byte_tokenizer

__all__ = [
    "BadRequest",
    "Batcher",
    "BatcherClosed",
    "BatcherStatistics",
    "Codec",
    "EngineCrashed",
    "EngineStatistics",
    "Generate",
    "GrpoConfig",
    "NothingScored",
    "OpenAIEndpoint",
    "PolicyClient",
    "PolicyConfig",
    "PolicyEngine",
    "PolicySession",
    "QueueFull",
    "RolloutBatch",
    "RolloutRequest",
    "RolloutsWrong",
    "RowError",
    "Sample",
    "SampleRequest",
    "SftConfig",
    "SftMetrics",
    "StepMetrics",
    "TrainingFailed",
    "TrainingRow",
    "WindowExceeded",
    "byte_tokenizer",
    "check_staleness",
    "create",
    "load_weights",
    "run_grpo",
    "training_row",
    "unscorable",
    "warm_start",
    "weights_to_bytes",
]

_ROOMS = {
    "batching": ("Batcher", "BatcherClosed", "BatcherStatistics", "EngineCrashed", "QueueFull"),
    "engine": ("EngineStatistics", "PolicyEngine"),
    "grpo": ("NothingScored", "RolloutsWrong", "run_grpo"),
    "grpo_config": ("GrpoConfig", "RolloutBatch", "RolloutRequest", "StepMetrics"),
    "hugging_face": ("TrainingFailed",),
    "openai_endpoint": ("OpenAIEndpoint",),
    "policy": ("PolicyConfig", "create", "load_weights", "weights_to_bytes"),
    "rows": ("RowError", "TrainingRow", "check_staleness", "training_row", "unscorable"),
    "sampling": ("BadRequest", "Generate", "Sample", "SampleRequest", "WindowExceeded"),
    "session": ("PolicyClient", "PolicySession"),
    "sft": ("SftConfig", "SftMetrics", "warm_start"),
    "tokenizer": ("Codec", "byte_tokenizer"),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
