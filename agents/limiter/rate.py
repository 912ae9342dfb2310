"""So much per minute: a bucket that fills steadily and may be overdrawn by what was not known beforehand."""

from __future__ import annotations


class Rate:
    """A token bucket. One second's worth may be taken at once.

    Args:
        per_minute: What flows in, in requests or tokens.
        now: Seconds, on any clock that does not go back.
    """

    def __init__(self, per_minute: float, now: float) -> None:
        self._per_second = per_minute / 60.0
        self._room = max(1.0, self._per_second)
        self._level = self._room
        self._at = now

    def ready_at(self, amount: float, now: float) -> float:
        """When ``amount`` may be taken; more than the bucket holds, when it is full."""
        missing = min(amount, self._room) - self._filled(now)
        return now if missing <= 1e-9 else now + missing / self._per_second

    def take(self, amount: float, now: float) -> None:
        """Take it out now. A negative amount is given back."""
        self._level = min(self._room, self._filled(now) - amount)

    def _filled(self, now: float) -> float:
        self._level = min(self._room, self._level + (now - self._at) * self._per_second)
        self._at = now
        return self._level
