"""What both trainers need of Hugging Face: silence, and the options of a machine that may have no GPU."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from palmette.trainers.policy import no_progress_bars

if TYPE_CHECKING:
    from transformers import Trainer, TrainerCallback


class TrainingFailed(Exception):
    """The numbers went bad: the loss is not finite. Going on would spoil the policy; lower the learning rate."""


_LOGGERS = ("trl", "transformers", "datasets", "accelerate")


@contextmanager
def quiet() -> Generator[None]:
    """Keep progress bars, tables and advice off the terminal while a trainer runs; errors still come through.

    Process-wide while it is held, and restored after: for a process (or a test) that runs one trainer at a time.
    """
    import datasets

    bars = datasets.are_progress_bars_disabled()
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    datasets.disable_progress_bars()
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # The version of TRL is pinned and its hooks are contract-tested: that they "may change" is known.
            warnings.filterwarnings("ignore", message=".*experimental feature.*")
            warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
            with no_progress_bars():
                yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if not bars:
            datasets.enable_progress_bars()


def machine_options(threads: int) -> dict[str, Any]:
    """Training arguments that hold on a plain CPU as well as on a GPU; sets PyTorch's thread count.

    TRL's defaults (bf16, gradient checkpointing) are for large models on GPUs. More than one thread makes small
    models slower, and twelve times slower when anything else runs on the machine.
    """
    import torch

    torch.set_num_threads(threads)
    return {
        "use_cpu": not torch.cuda.is_available(),
        "bf16": False,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
        "report_to": "none",
        "disable_tqdm": True,
        "logging_strategy": "steps",
        "logging_steps": 1,
    }


def silence_callbacks(trainer: Trainer) -> None:
    """Take out the callbacks that print."""
    from transformers import PrinterCallback, ProgressCallback

    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)


def step_callback(on_log: Callable[[int, dict[str, float]], None]) -> TrainerCallback:
    """A callback that calls ``on_log(step, metrics)`` after every optimiser step."""
    from transformers import TrainerCallback

    class OnLog(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            if logs is not None and "loss" in logs:  # the summary at the end has none
                if not math.isfinite(logs["loss"]):
                    raise TrainingFailed(f"the loss is {logs['loss']} at step {state.global_step}; lower learning_rate")
                on_log(int(state.global_step), {name: float(value) for name, value in logs.items()})

    return OnLog()
