"""Who is next: each holder in its turn, however many requests it has waiting."""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque

import msgspec


class Ask(msgspec.Struct, frozen=True):
    """A wish for a permit."""

    ticket: str
    holder: str
    tokens: int
    """That the request will probably take."""
    deadline: float
    """When its asker has no more use for it."""


class FairQueue:
    """Holders take turns; within a holder the first comes first.

    Args:
        one_each: Whether a holder whose ask was taken is passed over until :meth:`done`.
    """

    def __init__(self, *, one_each: bool) -> None:
        self._one_each = one_each
        self._asks: dict[str, Ask] = {}
        self._of: dict[str, deque[str]] = {}
        self._turns: OrderedDict[str, None] = OrderedDict()
        """Holders with something waiting that may have it; the first is next."""
        self._busy: set[str] = set()
        self._deadlines: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._asks)

    def add(self, ask: Ask) -> None:
        self._asks[ask.ticket] = ask
        self._of.setdefault(ask.holder, deque()).append(ask.ticket)
        if ask.holder not in self._busy:
            self._turns.setdefault(ask.holder)
        heapq.heappush(self._deadlines, (ask.deadline, ask.ticket))

    def peek(self) -> Ask | None:
        """Whose turn it is."""
        while self._turns:
            holder = next(iter(self._turns))
            waiting = self._of[holder]
            while waiting and waiting[0] not in self._asks:  # removed
                waiting.popleft()
            if waiting:
                return self._asks[waiting[0]]
            del self._turns[holder], self._of[holder]
        return None

    def take(self) -> Ask:
        """Take out whose turn it is; its holder goes to the end of the row."""
        ask = self.peek()
        if ask is None:
            raise LookupError("nobody is waiting")
        del self._asks[ask.ticket]
        self._of[ask.holder].popleft()
        if self._one_each:
            self._busy.add(ask.holder)
            del self._turns[ask.holder]
        else:
            self._turns.move_to_end(ask.holder)
        return ask

    def done(self, holder: str) -> None:
        """What was taken for ``holder`` has ended."""
        if holder in self._busy:
            self._busy.remove(holder)
            if self._of.get(holder):
                self._turns[holder] = None
            else:
                self._of.pop(holder, None)

    def remove(self, ticket: str) -> Ask | None:
        """Take somebody out of the row; ``None`` where nobody of that ticket waits."""
        return self._asks.pop(ticket, None)

    def overdue(self, now: float) -> list[Ask]:
        """Take out those whose deadline has come."""
        late: list[Ask] = []
        while self._deadlines and (self._deadlines[0][0] <= now or self._deadlines[0][1] not in self._asks):
            ask = self.remove(heapq.heappop(self._deadlines)[1])
            if ask is not None:
                late.append(ask)
        return late

    def before(self, instant: float) -> list[Ask]:
        """Take out those whose deadline comes before ``instant``."""
        return self.overdue(instant - 1e-9)

    def next_deadline(self) -> float | None:
        while self._deadlines and self._deadlines[0][1] not in self._asks:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None
