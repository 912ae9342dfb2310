"""Sampling from a policy in batches: blocking, single-threaded, exact.

:class:`PolicyEngine` answers many :class:`~palmette.trainers.sampling.SampleRequest` s in one go. An answer depends on
its own request and on the weights only: every request brings a seed, each position of its output consumes one uniform
number of that seed's stream, and the number picks an id by inversion of the cumulative distribution. So a request
gets the same answer alone, in a batch, or in a batch in another order (up to ties within rounding error, about one
in a million ids). One number per id instead of one per vocabulary entry keeps this cheap for large vocabularies,
which Gumbel-max sampling is not.

Log-probabilities are those of the distribution that was sampled from; they equal what a plain forward pass over the
finished sequence computes. Everything here blocks: put it behind :class:`~palmette.trainers.batching.Batcher`.
"""

# The annotations of Hugging Face's libraries are partial.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import msgspec
import numpy as np

from palmette.trainers import policy
from palmette.trainers.sampling import BadRequest, Sample, SampleRequest, WindowExceeded
from palmette.trainers.tokenizer import Codec

if TYPE_CHECKING:
    import torch


class EngineStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine has done since it was made."""

    policy_version: int
    batches: int
    samples: int
    prompt_tokens: int
    output_tokens: int
    busy_seconds: float
    """Wall-clock time spent inside :meth:`PolicyEngine.generate`."""


class _Row:
    """A request while it is being answered."""

    def __init__(self, request: SampleRequest) -> None:
        self.request = request
        self.uniforms = np.random.Generator(np.random.Philox(key=request.seed)).random(request.max_tokens)
        self.output: list[int] = []
        self.logprobs: list[float] = []
        self.stop: Literal["stop", "length"] | None = None

    def take(self, token: int, logprob: float, eos_ids: frozenset[int]) -> None:
        self.output.append(token)
        self.logprobs.append(logprob)
        if token in eos_ids or any(tuple(self.output[-len(end) :]) == end for end in self.request.stop):
            self.stop = "stop"
        elif len(self.output) == self.request.max_tokens:
            self.stop = "length"


class PolicyEngine:
    """The policy in the directory ``path``, loaded and ready.

    ``threads`` is PyTorch's thread count for the whole process: a second thread makes a small model slower, and far
    slower on a busy machine. ``version`` is the number of optimiser steps behind the directory's weights.
    """

    def __init__(self, path: str | Path, *, version: int = 0, device: str = "cpu", threads: int = 1) -> None:
        import torch

        torch.set_num_threads(threads)
        self.codec = Codec.load(path)
        self._model = policy.load_model(path, device=device)
        self._device = torch.device(device)
        self._version = version
        self._vocabulary = int(self._model.config.vocab_size)
        self._window = int(self._model.config.max_position_embeddings)
        self._eos_ids = frozenset(
            {self.codec.eos_id, *_ids(getattr(self._model.generation_config, "eos_token_id", None))}
        )
        self._batches = self._samples = self._prompt_tokens = self._output_tokens = 0
        self._busy = 0.0

    @property
    def policy_version(self) -> int:
        return self._version

    def check(self, request: SampleRequest) -> None:
        """Refuse a request that cannot be answered, before it joins a batch with others.

        Raises:
            BadRequest: naming the field and its bounds; WindowExceeded where the window is too short.
        """
        if not request.prompt_ids:
            raise BadRequest("prompt_ids is empty; a prompt has at least one id")
        if not all(0 <= token < self._vocabulary for token in request.prompt_ids):
            bad = next(token for token in request.prompt_ids if not 0 <= token < self._vocabulary)
            raise BadRequest(f"prompt_ids holds {bad}; this policy's ids are 0 to {self._vocabulary - 1}")
        if request.max_tokens < 1:
            raise BadRequest(f"max_tokens must be at least 1, got {request.max_tokens}")
        if len(request.prompt_ids) + request.max_tokens > self._window:
            raise WindowExceeded(
                f"{len(request.prompt_ids)} prompt ids and max_tokens {request.max_tokens} exceed this policy's "
                f"window of {self._window} ids; shorten the conversation or lower max_tokens"
            )
        if not 0.0 <= request.temperature < float("inf"):
            raise BadRequest(f"temperature must be at least 0 and finite, got {request.temperature}")
        if not 0 <= request.seed < 1 << 64:
            raise BadRequest(f"seed must be between 0 and 2**64 - 1, got {request.seed}")
        if not all(request.stop):
            raise BadRequest("stop holds an empty sequence, which would end every answer before it began")

    def generate(self, requests: Sequence[SampleRequest]) -> list[Sample]:
        """Answer ``requests``, in order.

        Raises:
            BadRequest: a request is bad (see :meth:`check`); none is answered then.
        """
        import torch

        for request in requests:
            self.check(request)
        if not requests:
            return []
        began = time.perf_counter()
        rows = [_Row(request) for request in requests]
        with torch.inference_mode():
            self._run(rows)
        self._batches += 1
        self._samples += len(rows)
        self._prompt_tokens += sum(len(request.prompt_ids) for request in requests)
        self._output_tokens += sum(len(row.output) for row in rows)
        self._busy += time.perf_counter() - began
        return [
            Sample(
                output_ids=tuple(row.output),
                logprobs=tuple(row.logprobs),
                stop=row.stop or "length",
                policy_version=self._version,
            )
            for row in rows
        ]

    def load_weights(self, data: bytes, version: int) -> None:
        """Take over new weights, all or nothing; samples are marked with ``version`` from now on.

        Raises:
            ValueError: ``data`` does not fit this policy; the old weights stay.
        """
        policy.load_weights(self._model, data)
        self._version = version

    def statistics(self) -> EngineStatistics:
        return EngineStatistics(
            policy_version=self._version,
            batches=self._batches,
            samples=self._samples,
            prompt_tokens=self._prompt_tokens,
            output_tokens=self._output_tokens,
            busy_seconds=self._busy,
        )

    def _run(self, rows: list[_Row]) -> None:
        """One batch: a left-padded prefill, then one forward pass per position over a key-value cache."""
        import torch
        from transformers import DynamicCache

        width = max(len(row.request.prompt_ids) for row in rows)
        pads = [width - len(row.request.prompt_ids) for row in rows]
        ids = torch.tensor(
            [[self.codec.pad_id] * pad + list(row.request.prompt_ids) for row, pad in zip(rows, pads, strict=True)],
            device=self._device,
        )
        mask = torch.tensor([[0] * pad + [1] * (width - pad) for pad in pads], device=self._device)
        # A padded place must not shift the positions of what follows it: the first real id is at position 0.
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        cache = DynamicCache(config=self._model.config)
        while True:
            logits = self._model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            tokens, logprobs = self._choose(logits, rows)
            for row, token, logprob in zip(rows, tokens, logprobs, strict=True):
                if row.stop is None:
                    row.take(token, logprob, self._eos_ids)
            alive = [index for index, row in enumerate(rows) if row.stop is None]
            if not alive:
                return
            if 2 * len(alive) <= len(rows):
                # Half the batch is done: go on without it. Rarer compaction wastes passes, more often wastes copies.
                rows, tokens = [rows[i] for i in alive], [tokens[i] for i in alive]
                keep = torch.tensor(alive, device=self._device)
                cache.batch_select_indices(keep)
                mask, positions = mask[keep], positions[keep]
            ids = torch.tensor([[token] for token in tokens], device=self._device)
            mask = torch.cat([mask, mask.new_ones((len(rows), 1))], dim=1)
            positions = positions[:, -1:] + 1

    def _choose(self, logits: torch.Tensor, rows: list[_Row]) -> tuple[list[int], list[float]]:
        """One id per row and its log-probability. Rows that are done get one too; nobody looks at it."""
        import torch

        temperature = torch.tensor([[row.request.temperature or 1.0] for row in rows], device=self._device)
        greedy = torch.tensor([row.request.temperature == 0.0 for row in rows], device=self._device)
        uniform = torch.tensor(
            [[row.uniforms[min(len(row.output), row.request.max_tokens - 1)]] for row in rows],
            dtype=torch.float64,
            device=self._device,
        )
        logprobs = torch.log_softmax(logits.float() / temperature, dim=-1)
        cumulative = logprobs.double().exp().cumsum(-1)
        # Scaled by the last entry, which rounding leaves a little beside 1; `right` skips ids of probability zero.
        drawn = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True).squeeze(1)
        chosen = torch.where(greedy, logprobs.argmax(-1), drawn.clamp(max=self._vocabulary - 1))
        taken = logprobs.gather(1, chosen.unsqueeze(1)).squeeze(1)
        return cast("list[int]", chosen.tolist()), cast("list[float]", taken.tolist())


def _ids(value: int | list[int] | None) -> list[int]:
    return [] if value is None else [value] if isinstance(value, int) else value
