"""What a limiter is told, what it answers, and what it shows."""

from __future__ import annotations

from typing import Literal

import msgspec

from palmette.agents.errors import ConfigurationError

Outcome = Literal["ok", "overloaded", "failed", "refused", "unused", "lost"]
"""How a permitted request ended. ``overloaded``: the provider has too much to do (429, 503, 529); ``failed``:
unreachable, another 5xx, or no answer in time; ``refused``: the provider is well and says no; ``unused``: it was never
sent; ``lost``: its holder died, or never said."""
BreakerState = Literal["closed", "open", "half_open"]
DenialReason = Literal["budget", "breaker", "wait"]


class LimiterSettings(msgspec.Struct, frozen=True, kw_only=True):
    """For one provider and key. What is ``None`` is not limited, except by what the provider answers."""

    max_concurrency: int = 256
    """Requests under way at once, at most; how many it really is, is found out (see
    :mod:`~palmette.agents.limiter.window`)."""
    start_concurrency: int = 8
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    """Of prompts and replies together, as providers count them."""
    tolerated: float = 0.08
    """The share of failing requests that is not taken for overload: every provider has some."""
    breaker_failures: int = 10
    """Failures in a row, with no success between them, that open the breaker."""
    breaker_seconds: float = 2.0
    """How long it stays open at first; twice as long after every probe that failed, up to a minute."""
    jitter: float = 0.1
    """Share by which a wait may be longer than the provider asked for, so that not all come back at once."""
    dollars: float | None = None
    """What may be spent. Needs an endpoint that tells what it takes, or a client that was given ``prices``."""
    tokens: int | None = None
    """How many may be used, of prompts and replies together."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value: float | None = getattr(self, name)
            if value is not None and not (value >= 0 if name in {"tolerated", "jitter"} else value > 0):
                raise ConfigurationError(f"{name} must be greater than 0, got {value}")
        if self.start_concurrency > self.max_concurrency:
            raise ConfigurationError(
                f"start_concurrency ({self.start_concurrency}) must not exceed max_concurrency ({self.max_concurrency})"
            )


class Denied(msgspec.Struct, frozen=True, kw_only=True):
    """No permit."""

    reason: DenialReason
    """``budget``: it is used up; ``breaker``: the provider is down; ``wait``: the asker's patience is shorter than the
    wait."""
    text: str
    retry_after: float | None = None
    """Seconds until it may be otherwise, where that is known."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How a request ended."""

    outcome: Outcome
    retry_after: float | None = None
    """Seconds, where the provider named some."""
    tokens: int = 0
    """Of prompt and reply."""
    dollars: float | None = None
    """``None`` where the price is not known."""


class LimiterStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A look at a limiter."""

    concurrency: float
    """Requests that may be under way now."""
    under_way: int
    waiting: int
    breaker: BreakerState
    paused: float
    """Seconds until the provider, which asked to be left alone, is asked again."""
    granted: int
    denied: int
    ended: dict[Outcome, int]
    tokens: int
    """Used so far."""
    dollars: float
    """Spent so far, where told."""
