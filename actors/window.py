"""How many pieces of large frames are under way on a link: enough to keep it busy, and few enough that nothing queues.

What a sender's kernel, the network and a receiver's kernel would keep by themselves is megabytes, and whatever small
frame is sent next waits behind it. So the receiver says what it has taken in, and the sender goes by how long that
takes, after TCP Vegas (Brakmo and Peterson, 1995): where a piece comes back in about the shortest time that was seen,
none queues, and there may be more under way; where it takes twice as long, there are too many. Between two processes
of a host that settles at a few pieces, across an ocean at megabytes.
"""

from __future__ import annotations

from collections import deque
from typing import Final

LEAST: Final = 2
"""Pieces: one is taken in while another is under way."""
MOST: Final = 512


class Window:
    """See the module's text. Times are seconds on any one clock."""

    __slots__ = ("_changed", "_grows_fast", "_sent", "_shortest", "size")

    def __init__(self) -> None:
        self.size = LEAST
        self._sent: deque[float] = deque()
        """When the pieces under way were."""
        self._shortest = float("inf")
        self._changed = 0.0
        """When the size was: pieces that were sent before do not tell of it."""
        self._grows_fast = True

    def room(self) -> int:
        """Pieces that may be sent now."""
        return max(0, self.size - len(self._sent))

    def sent(self, pieces: int, now: float) -> None:
        """So many more are under way."""
        self._sent.extend([now] * pieces)

    def taken(self, pieces: int, now: float) -> None:
        """The other side has so many more.

        Raises:
            ValueError: it says that it has more than there were.
        """
        if not 0 < pieces <= len(self._sent):
            raise ValueError(f"{pieces} pieces were taken in, and {len(self._sent)} were under way")
        for _ in range(pieces):
            sent = self._sent.popleft()
            self._shortest = min(now - sent, self._shortest)
            if sent >= self._changed:
                self._changed = now
                self._resize(now - sent < 2 * self._shortest)

    def _resize(self, may_grow: bool) -> None:
        if may_grow:
            self.size = min(self.size * 2 if self._grows_fast else self.size + max(1, self.size // 8), MOST)
        else:
            self._grows_fast = False
            self.size = max(self.size * 3 // 4, LEAST)
