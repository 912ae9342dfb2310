"""A policy directory, and weights on the wire.

A *policy directory* is what Hugging Face's ``from_pretrained`` reads: ``config.json``, ``model.safetensors`` and the
tokenizer's files. :func:`create` makes a small one from nothing, :func:`load_model` and
:meth:`Codec.load <palmette.trainers.tokenizer.Codec.load>` read any. New weights travel from a trainer to those that
serve the policy as bytes in the safetensors format, which can hold numbers and nothing else.

::

    create("policy", seed=0)
    model = load_model("policy")
    load_weights(other_model, weights_to_bytes(model))
"""

# The annotations of Hugging Face's libraries are partial.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec

from palmette.trainers.tokenizer import Codec, byte_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class PolicyConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The shape of a small decoder-only transformer (Qwen2); names as in ``transformers.Qwen2Config``.

    The defaults give 116,000 parameters.
    """

    hidden_size: int = 64
    intermediate_size: int = 128
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    max_position_embeddings: int = 1024
    initializer_range: float = 0.1
    """Standard deviation of the initial weights. Large on purpose: at 64 dimensions the usual 0.02 learns slowly."""


def create(path: str | Path, *, seed: int, config: PolicyConfig | None = None) -> Path:
    """Make a policy directory with random weights and the byte-level tokenizer. Equal seeds give equal weights.

    Raises:
        ValueError: ``path`` exists already.
    """
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = config or PolicyConfig()
    codec = Codec(byte_tokenizer())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=len(codec.tokenizer),
                hidden_size=config.hidden_size,
                intermediate_size=config.intermediate_size,
                num_hidden_layers=config.num_hidden_layers,
                num_attention_heads=config.num_attention_heads,
                num_key_value_heads=config.num_attention_heads,
                max_position_embeddings=config.max_position_embeddings,
                initializer_range=config.initializer_range,
                tie_word_embeddings=False,
                pad_token_id=codec.pad_id,
                eos_token_id=codec.eos_id,
                bos_token_id=None,
            )
        )
    return save(path, model, codec)


def save(path: str | Path, model: PreTrainedModel, codec: Codec) -> Path:
    """Write a policy directory so that it is there whole or not at all.

    Raises:
        ValueError: ``path`` exists already.
    """

    def write(folder: Path) -> None:
        with no_progress_bars():
            model.save_pretrained(str(folder))
        codec.tokenizer.save_pretrained(str(folder))

    return write_whole(path, write)


def write_whole(path: str | Path, write: Callable[[Path], None]) -> Path:
    """Let ``write`` fill a directory beside ``path``, then give it its name in one step (rename is atomic).

    What a killed writer left behind is removed by the next one; there must not be two at a time.
    """
    path = Path(path)
    if path.exists():
        raise ValueError(f"{path} exists already; remove it or choose another directory")
    folder = path.with_name(f".{path.name}.partial")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        write(folder)
        os.rename(folder, path)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return path


def load_model(path: str | Path, *, device: str = "cpu") -> PreTrainedModel:
    """The model of a policy directory, in float32, ready to be evaluated.

    Raises:
        ValueError: there is no policy at ``path``.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if not (Path(path) / "config.json").is_file():
        raise ValueError(
            f"{path} holds no config.json; give a policy directory, or make one with palmette.trainers.create"
        )
    with no_progress_bars():
        model = cast(
            "PreTrainedModel",
            AutoModelForCausalLM.from_pretrained(str(path), dtype=torch.float32, local_files_only=True),
        )
    model.to(torch.device(device))  # pyright: ignore[reportArgumentType, reportCallIssue]
    model.eval()
    return model


@contextmanager
def no_progress_bars() -> Generator[None]:
    """Keep transformers' bars for loading and saving off the terminal."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def weights_to_bytes(model: PreTrainedModel) -> bytes:
    """All weights in the safetensors format. Tensors that share storage (tied embeddings) are written once."""
    from safetensors.torch import save as to_bytes

    return to_bytes(_distinct(model))


def load_weights(model: PreTrainedModel, data: bytes) -> None:
    """Copy ``data``, made by :func:`weights_to_bytes` for the same architecture, into ``model``. All or nothing.

    Raises:
        ValueError: ``data`` is no safetensors file, or its names or shapes are not the model's.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    try:
        given = from_bytes(data)
    except SafetensorError as error:
        raise ValueError(f"{len(data)} bytes of weights are not in the safetensors format: {error}") from error
    own = _distinct(model)
    if odd := sorted(own.keys() ^ given.keys()):
        raise ValueError(f"the weights are of another architecture: {odd[0]!r} and {len(odd) - 1} more names differ")
    for name, tensor in own.items():
        if given[name].shape != tensor.shape:
            raise ValueError(f"weight {name!r} has shape {tuple(given[name].shape)}, the model's {tuple(tensor.shape)}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(given[name])


def _distinct(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    kept: dict[str, torch.Tensor] = {}
    seen: set[tuple[int, tuple[int, ...]]] = set()
    for name, tensor in cast("dict[str, torch.Tensor]", model.state_dict()).items():
        where = (tensor.data_ptr(), tuple(tensor.shape))
        if where not in seen:
            seen.add(where)
            kept[name] = tensor.detach().contiguous()
    return kept
