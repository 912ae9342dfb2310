"""What is said between an agent and a model, as plain data.

A *conversation* is a list of :class:`Message`. A :class:`ModelClient` opens one :class:`Session` per episode; the
session answers each growing conversation with a :class:`Completion`. A session may keep state of its own: the policy
server's session remembers the token ids that were sampled, so that no text is ever tokenised a second time.

>>> from palmette.agents.conversation import Message
>>> Message(role="user", content="find 3").role
'user'
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

Role = Literal["system", "user", "assistant", "tool"]
StopReason = Literal["stop", "tool_calls", "length"]


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A model's wish to have a tool run."""

    id: str
    name: str
    arguments: str
    """JSON, exactly as the model wrote it; it may be malformed."""


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One entry of a conversation."""

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    """On a ``tool`` message: the call that it answers."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a completion cost."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    """US dollars; ``None`` where the price is not known."""


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """A model turn as it was sampled (DESIGN §1.6: never re-tokenised)."""

    prompt_ids: tuple[int, ...]
    """All ids that the model was conditioned on, earlier turns included."""
    output_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Natural-log probability of each output id under the sampling policy."""
    policy_version: int
    """The number of optimiser steps behind the weights that sampled this turn."""


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """A model's answer to a conversation."""

    message: Message
    stop: StopReason = "stop"
    usage: Usage = Usage()
    model: str = ""
    tokens: Tokens | None = None
    """``None`` from servers that do not tell."""


class ToolSchema(msgspec.Struct, frozen=True, kw_only=True):
    """A tool as a model is told of it."""

    name: str
    description: str
    parameters: dict[str, object]
    """A JSON Schema of type ``object``."""


class Session(Protocol):
    """One episode's line to a model."""

    async def complete(
        self,
        conversation: Sequence[Message],
        *,
        tools: Sequence[ToolSchema] = (),
        max_tokens: int | None = None,
        timeout: float,
    ) -> Completion:
        """Answer ``conversation``, which begins with everything that this session was given before.

        Raises:
            ModelUnavailable: the endpoint cannot be reached, refuses for load, or timed out (seconds).
            ModelRefused: the endpoint understood the request and says no (bad key, unknown model, bad request).
        """
        ...


class ModelClient(Protocol):
    """A source of sessions. Safe to share between episodes."""

    def session(self, task_id: str, *, seed: int) -> Session:
        """A fresh session for one episode of ``task_id``; equal seeds sample equal answers where the model can."""
        ...

    async def close(self) -> None:
        """Give back connections. Closing twice is fine."""
        ...
