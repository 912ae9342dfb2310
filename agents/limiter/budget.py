"""What may be spent in all, in dollars or tokens.

What a request costs is known when it has ended, so the last ones go over. By at most one request of each agent: no
agent has two under way while there is a budget (the queue sees to that), and none begins one when it is used up.
"""

from __future__ import annotations


class Budget:
    """``None`` is no bound."""

    def __init__(self, *, dollars: float | None, tokens: int | None) -> None:
        self._max_dollars = dollars
        self._max_tokens = tokens
        self.dollars = 0.0
        self.tokens = 0
        self._dearest = (0, 0.0)
        self._is_blind = False

    @property
    def is_set(self) -> bool:
        return self._max_dollars is not None or self._max_tokens is not None

    def spend(self, tokens: int, dollars: float | None) -> None:
        """A request has ended, and this is what it took."""
        if dollars is None and tokens and self._max_dollars is not None:
            self._is_blind = True
        paid = dollars or 0.0
        self.tokens += tokens
        self.dollars += paid
        self._dearest = (max(tokens, self._dearest[0]), max(paid, self._dearest[1]))

    def spend_unknown(self) -> None:
        """A request has ended, and nobody knows what it took: it counts as the dearest so far."""
        tokens, dollars = self._dearest
        self.tokens += tokens
        self.dollars += dollars

    def exhausted(self) -> str | None:
        """Why nothing more may be spent; ``None`` while it may."""
        if self._is_blind:
            return "dollars are limited, and the endpoint does not tell what it takes: give the client its prices"
        if self._max_dollars is not None and self.dollars >= self._max_dollars:
            return f"the budget of ${self._max_dollars:g} is used up (${self.dollars:.4g} spent)"
        if self._max_tokens is not None and self.tokens >= self._max_tokens:
            return f"the budget of {self._max_tokens} tokens is used up ({self.tokens} used)"
        return None
