"""What is asked of a policy and what it answers, as plain data that crosses processes.

Everything here is tokens: text is turned into ids once, by :class:`~palmette.trainers.tokenizer.Codec`, before a
request is made, and back into text after it was answered. This module imports neither torch nor transformers.

::

    ValueError
    └── BadRequest        the request cannot be answered by this policy, now or later
        └── WindowExceeded    prompt and max_tokens together are longer than the policy can look back
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec


class SampleRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Continue ``prompt_ids`` by at most ``max_tokens`` ids."""

    prompt_ids: tuple[int, ...]
    max_tokens: int = 64
    temperature: float = 1.0
    """Divides the logits before sampling; 0 takes the likeliest id."""
    seed: int = 0
    """Equal requests with equal seeds get equal answers, whatever else is in the batch (0 <= seed < 2**64)."""
    stop: tuple[tuple[int, ...], ...] = ()
    """Sampling also ends once the output ends with one of these sequences of ids."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What was sampled."""

    output_ids: tuple[int, ...]
    """The end-of-turn id or the stop sequence is part of it: the policy said that too."""
    logprobs: tuple[float, ...]
    """Natural logarithms, one per output id, under the distribution that was sampled from (temperature included;
    at temperature 0, which is no distribution, under temperature 1)."""
    stop: Literal["stop", "length"]
    policy_version: int


class BadRequest(ValueError):
    """Names the field and its bounds. Only whoever made the request can do something about it."""


class WindowExceeded(BadRequest):
    """The conversation has outgrown the policy's window."""


Generate = Callable[[SampleRequest], Awaitable[Sample]]
"""Anything that answers a request: a batcher in this process, or a call to the actor that serves the policy."""
