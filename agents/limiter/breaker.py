"""The circuit breaker: a provider that is down is left alone, and asked by one request at a time whether it is back.

After Nygard, "Release It!" (2007), and its three states: *closed*, all may pass; *open*, nobody; *half-open*, one.
"""

from __future__ import annotations

from palmette.agents.limiter.records import BreakerState

MAX_SECONDS = 60.0
"""The longest that it stays open at a time."""


class Breaker:
    """Of one provider.

    Args:
        failures: In a row, that open it.
        seconds: How long it stays open at first.
    """

    def __init__(self, *, failures: int, seconds: float) -> None:
        self._failures = failures
        self._first = seconds
        self._seconds = seconds
        self._in_a_row = 0
        self._open_until: float | None = None
        self._probe: str | None = None

    def state(self, now: float) -> BreakerState:
        if self._open_until is None:
            return "closed"
        return "open" if now < self._open_until else "half_open"

    def ready_at(self, now: float) -> float | None:
        """When one more may pass; ``None``: when the probe has ended."""
        if self._open_until is None:
            return now
        return max(now, self._open_until) if self._probe is None else None

    def passed(self, ticket: str) -> None:
        """Somebody was let through."""
        if self._open_until is not None:
            self._probe = ticket

    def ended(self, ticket: str, *, well: bool | None, now: float, stretch: float) -> None:
        """A request has ended; ``None``: in a way that tells nothing.

        What was let through before it opened opens it no further, but a success closes it.

        Args:
            ticket: Which one.
            well: Whether the provider lives.
            now: The time.
            stretch: Drawn from [1, 1 + jitter]: by how much longer it stays open.
        """
        is_probe = ticket == self._probe
        if is_probe:
            self._probe = None
        if well is None:
            return
        if well:
            self._in_a_row, self._open_until, self._seconds = 0, None, self._first
            return
        self._in_a_row += 1
        if is_probe:
            self._seconds = min(MAX_SECONDS, 2 * self._seconds)
            self._open_until = now + self._seconds * stretch
        elif self._open_until is None and self._in_a_row >= self._failures:
            self._open_until = now + self._seconds * stretch
