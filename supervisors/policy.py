"""When to restart, how often, and after what delay: the three questions of a restart, each in a small piece.

*When* is a table of one function per restart type. *How often* is a :class:`Budget`: ``max_restarts`` within a sliding
window of ``max_seconds``, on an exact clock, both ends inclusive (OTP truncates to whole seconds). *After what delay*
is :class:`Backoff`, which OTP does not have.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Literal

import msgspec

from palmette.actors.exits import Crashed, Reason, is_graceful
from palmette.supervisors.errors import BadSpec

Restart = Literal["permanent", "transient", "temporary"]
Directive = Literal["restart", "backoff", "stop", "escalate"]
"""What a rule orders: a counted restart; a restart after backoff (the spec's, or the default one) that does not spend
the budget; to let the child stay ended; to give up at once."""
Verdict = Literal["restart", "backoff", "finished", "escalate"]


def _permanent(reason: Reason) -> Verdict:
    return "restart"


def _transient(reason: Reason) -> Verdict:
    return "finished" if is_graceful(reason) else "restart"


def _temporary(reason: Reason) -> Verdict:
    return "finished"


VERDICTS: dict[Restart, Callable[[Reason], Verdict]] = {
    "permanent": _permanent,
    "transient": _transient,
    "temporary": _temporary,
}


def names_of(reason: Reason) -> tuple[str, ...]:
    """What a rule may call a reason, the most specific first."""
    tag = str(reason.__struct_config__.tag)
    if isinstance(reason, Crashed):
        short = reason.error.rpartition(".")[2]
        return (reason.error, short, "retryable", tag) if reason.retryable else (reason.error, short, tag)
    return (tag,)


def judge(restart: Restart, rules: dict[str, Directive], reason: Reason) -> Verdict:
    """What to do about a child that ended with ``reason``."""
    verdict = VERDICTS[restart](reason)
    if verdict == "finished":
        return verdict
    for name in names_of(reason):
        directive = rules.get(name)
        if directive is not None:
            return "finished" if directive == "stop" else directive
    return verdict


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """Delay before the n-th restart in a row: ``min(max, min·factorⁿ)``, then up to ``jitter`` of it on top.

    Jitter is added after the cap and never subtracted, so that a server's ``Retry-After`` stays a floor (Akka's
    formula). The count starts again once a child has lived for ``reset_after`` seconds.
    """

    min: float = 0.1
    max: float = 30.0
    factor: float = 2.0
    jitter: float = 0.2
    reset_after: float = 60.0
    give_up_after: float = 600.0
    """Restarts that do not spend the budget (rule ``backoff``) end this many seconds after the first of a row."""

    def __post_init__(self) -> None:
        if not (0 <= self.min <= self.max and self.factor >= 1 and self.jitter >= 0):
            raise BadSpec(f"a backoff needs 0 <= min <= max, factor >= 1 and jitter >= 0; got {self!r}")
        if not (self.reset_after >= 0 and self.give_up_after >= 0):
            raise BadSpec(f"a backoff needs reset_after >= 0 and give_up_after >= 0 seconds; got {self!r}")

    def delay(self, restarts: int, rng: random.Random, floor: float = 0.0) -> float:
        """Seconds to wait before restart number ``restarts`` (from 0), at least ``floor``."""
        # The exponent is capped before the power is taken: 2.0 ** 5000 overflows.
        grown = self.min * self.factor ** min(restarts, 64)
        return max(min(self.max, grown), floor) * (1.0 + rng.random() * self.jitter)


class Budget:
    """Sliding-window restart intensity."""

    __slots__ = ("_stamps", "max_restarts", "max_seconds")

    def __init__(self, max_restarts: int, max_seconds: float) -> None:
        self.check(max_restarts, max_seconds)
        self.max_restarts = max_restarts
        self.max_seconds = max_seconds
        self._stamps: deque[float] | None = None  # made with the first restart: most supervisors see none

    @staticmethod
    def check(max_restarts: int, max_seconds: float) -> None:
        """Raise BadSpec where this is no budget."""
        if max_restarts < 0 or not max_seconds > 0:
            raise BadSpec(f"max_restarts >= 0 within max_seconds > 0, got {max_restarts} within {max_seconds}")

    def spend(self, now: float) -> bool:
        """Count one restart; false when that is one too many. Failed attempts count, manual ones are not brought."""
        if self._stamps is None:
            self._stamps = deque()
        while self._stamps and self._stamps[0] < now - self.max_seconds:
            self._stamps.popleft()
        self._stamps.append(now)
        return len(self._stamps) <= self.max_restarts
