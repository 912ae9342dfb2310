"""What an agent heard and said, turn by turn.

Turns are deltas: the whole conversation before turn *k* is the concatenation of ``heard`` and ``said`` of the turns
before it, so that a long episode costs what was said and not its square.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from palmette.agents.conversation import Message, Tokens, Usage


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a transcript: the messages that were new to the model, and its reply. Stored as a delta."""

    index: int
    heard: tuple[Message, ...]
    """What was added to the conversation since the last reply."""
    said: Message
    usage: Usage = Usage()
    tokens: Tokens | None = None
    seconds: float = 0.0
    """How long the model took to reply."""


class Transcript(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent did in an episode."""

    answer: str | None = None
    """The agent's final answer; ``None`` when it gave none."""
    stop: Literal["answered", "turns", "truncated"] = "answered"
    """``turns``: the task's own allowance is used up; ``truncated``: a limit of the harness was hit."""
    reason: str = ""
    turns: tuple[Turn, ...] = ()
