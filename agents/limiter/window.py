"""How many requests may be under way: additive increase, multiplicative decrease.

As TCP finds out what a network carries (Chiu and Jain, "Analysis of the increase and decrease algorithms for congestion
avoidance in computer networks", 1989), with changes for providers of models. Failures are counted over periods, because
a share of them comes at any load and must not drive the window to nothing. It narrows by a tenth only, since a refused
request costs little here and an unused slot costs throughput. After that it is back near the size of the trouble within
a few periods, as CUBIC is (RFC 9438), and passes it by one a period. And where half as much again is well, the
provider has changed, and the window widens as fast as in the beginning.
"""

from __future__ import annotations

_PERIOD = 2.0
"""Sizes of the window: so many outcomes make a period."""
_LEAST = 40
"""Outcomes of the shortest period."""
_NARROW = 0.9
_NARROW_MUCH = 0.5
"""After trouble while it widened fast."""
_BEYOND = 1.5


class Window:
    """The window of one provider."""

    def __init__(self, *, start: float, maximum: float, tolerated: float) -> None:
        self.size = float(start)
        self.epoch = 0
        """Counts the narrowings. What was granted in an earlier epoch says nothing about the present size."""
        self._maximum = float(maximum)
        self._tolerated = tolerated
        self._trouble_at: float | None = None
        self._good = self._bad = 0

    @property
    def is_least(self) -> bool:
        """Whether it cannot become narrower."""
        return self.size <= 1.0

    def ended(self, epoch: int, *, well: bool, under_way: int) -> None:
        """A request of ``epoch`` has ended; ``under_way`` of them were, this one included."""
        if epoch != self.epoch:
            return None
        period = max(float(_LEAST), _PERIOD * self.size)
        if well:
            self._good += 1
            # A window that is not full proves nothing about a wider one.
            if self._is_searching() and under_way >= 0.8 * self.size:
                self._widen()
        else:
            self._bad += 1
            if self._bad > self._tolerated * period:
                return self._narrow()
        if self._good + self._bad >= period:
            if under_way >= 0.8 * self.size and not self._is_searching():
                self._widen(max(1.0, ((self._trouble_at or 0.0) - self.size) / 2))
            self._good = self._bad = 0
        return None

    def _is_searching(self) -> bool:
        return self._trouble_at is None or self.size > _BEYOND * self._trouble_at

    def _widen(self, by: float = 1.0) -> None:
        self.size = min(self._maximum, self.size + by)

    def _narrow(self) -> None:
        share = _NARROW_MUCH if self._is_searching() else _NARROW
        self._trouble_at = self.size
        self.size = max(1.0, self.size * share)
        self._good = self._bad = 0
        self.epoch += 1
