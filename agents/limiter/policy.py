"""Who may ask the provider, and when: all rules of a limiter in one place, without a clock or a loop of its own.

The actor tells what happens and when (:meth:`LimiterPolicy.ask`, :meth:`~LimiterPolicy.ended`), and then takes what
follows from it (:meth:`~LimiterPolicy.decide`), until nothing more does before :meth:`~LimiterPolicy.wake_at`.
"""

from __future__ import annotations

import random
from collections import Counter

import msgspec

from palmette.agents.limiter.breaker import Breaker
from palmette.agents.limiter.budget import Budget
from palmette.agents.limiter.queue import Ask, FairQueue
from palmette.agents.limiter.rate import Rate
from palmette.agents.limiter.records import DenialReason, Denied, LimiterSettings, LimiterStatistics, Outcome, Report
from palmette.agents.limiter.window import Window

_LIVES: dict[Outcome, bool | None] = {
    "ok": True,
    "refused": True,
    "overloaded": None,
    "failed": False,
    "unused": None,
    "lost": None,
}
"""What an outcome says of the provider being up."""


class _Permit(msgspec.Struct, frozen=True):
    ask: Ask
    epoch: int


class Decision(msgspec.Struct, frozen=True):
    """For one ticket: a permit, or none and why."""

    ticket: str
    denied: Denied | None = None


class LimiterPolicy:
    """Of one provider and key. All times are seconds on one clock of the caller's."""

    def __init__(self, settings: LimiterSettings, rng: random.Random, now: float) -> None:
        self._rng = rng
        self._jitter = settings.jitter
        self._budget = Budget(dollars=settings.dollars, tokens=settings.tokens)
        self._queue = FairQueue(one_each=self._budget.is_set)
        self._window = Window(
            start=settings.start_concurrency, maximum=settings.max_concurrency, tolerated=settings.tolerated
        )
        self._breaker = Breaker(failures=settings.breaker_failures, seconds=settings.breaker_seconds)
        self._requests = _rate(settings.requests_per_minute, now)
        self._tokens = _rate(settings.tokens_per_minute, now)
        self._permits: dict[str, _Permit] = {}
        self._not_before = now
        self._granted = 0
        self._denied = 0
        self._ended: Counter[Outcome] = Counter()

    def ask(self, ask: Ask) -> None:
        """Somebody wants a permit."""
        self._queue.add(ask)

    def withdraw(self, ticket: str) -> None:
        """Somebody who waits has gone."""
        self._queue.remove(ticket)

    def has_permit(self, ticket: str) -> bool:
        return ticket in self._permits

    def ended(self, ticket: str, report: Report, now: float) -> None:
        """A permitted request has ended. Only the first word about it counts."""
        permit = self._permits.pop(ticket, None)
        if permit is None:
            return
        self._queue.done(permit.ask.holder)
        outcome = report.outcome
        self._ended[outcome] += 1
        if self._tokens is not None and outcome != "lost":
            self._tokens.take(report.tokens - permit.ask.tokens, now)
        if outcome == "lost":
            self._budget.spend_unknown()
        else:
            self._budget.spend(report.tokens, report.dollars)
        if report.retry_after is not None:
            self._not_before = max(self._not_before, now + report.retry_after * self._stretch())
        lives = False if outcome == "overloaded" and self._window.is_least else _LIVES[outcome]
        self._breaker.ended(ticket, well=lives, now=now, stretch=self._stretch())
        if outcome in {"ok", "refused", "overloaded", "failed"}:
            well = outcome in {"ok", "refused"}
            self._window.ended(permit.epoch, well=well, under_way=len(self._permits) + 1)

    def decide(self, now: float) -> list[Decision]:
        """Grant what may be granted now, and deny what cannot be in time."""
        made = [self._deny(ask, "wait", f"no permit within its {self._limit()}") for ask in self._queue.overdue(now)]
        while (ask := self._queue.peek()) is not None:
            used_up = self._budget.exhausted()
            if used_up is not None:
                made.append(self._deny(self._queue.take(), "budget", used_up))
                self._queue.done(ask.holder)
                continue
            if len(self._permits) + 1 > max(1.0, self._window.size):
                break
            ready = self._ready_at(ask, now)
            if ready is None:
                break
            if ready > now:
                made += self._hopeless(ready, now)
                break
            made.append(self._grant(self._queue.take(), now))
        return made

    def wake_at(self, now: float) -> float | None:
        """When to :meth:`decide` again, if nothing happens before; ``None``: not at all."""
        ask = self._queue.peek()
        deadline = self._queue.next_deadline()
        if ask is None or len(self._permits) + 1 > max(1.0, self._window.size):
            return deadline
        ready = self._ready_at(ask, now)
        return min((at for at in (ready, deadline) if at is not None), default=None)

    def statistics(self, now: float) -> LimiterStatistics:
        return LimiterStatistics(
            concurrency=self._window.size,
            under_way=len(self._permits),
            waiting=len(self._queue),
            breaker=self._breaker.state(now),
            paused=max(0.0, self._not_before - now),
            granted=self._granted,
            denied=self._denied,
            ended=dict(self._ended),
            tokens=self._budget.tokens,
            dollars=self._budget.dollars,
        )

    def _ready_at(self, ask: Ask, now: float) -> float | None:
        """When time alone stands no more in the way of ``ask``; ``None`` while a probe is under way."""
        ready = self._breaker.ready_at(now)
        if ready is None:
            return None
        ready = max(ready, self._not_before)
        if self._requests is not None:
            ready = max(ready, self._requests.ready_at(1, now))
        if self._tokens is not None:
            ready = max(ready, self._tokens.ready_at(ask.tokens, now))
        return ready

    def _grant(self, ask: Ask, now: float) -> Decision:
        if self._requests is not None:
            self._requests.take(1, now)
        if self._tokens is not None:
            self._tokens.take(ask.tokens, now)
        self._breaker.passed(ask.ticket)
        self._permits[ask.ticket] = _Permit(ask, self._window.epoch)
        self._granted += 1
        return Decision(ask.ticket)

    def _hopeless(self, ready: float, now: float) -> list[Decision]:
        """Tell those whose patience ends before anybody can pass, instead of letting them wait for nothing."""
        is_down = self._breaker.state(now) == "open"
        text = f"the provider is {'down' if is_down else 'not asked'} for another {ready - now:.3g} s"
        return [
            self._deny(
                ask, "breaker" if is_down else "wait", f"{text}, and the request cannot wait so long", ready - now
            )
            for ask in self._queue.before(ready)
        ]

    def _deny(self, ask: Ask, reason: DenialReason, text: str, retry_after: float | None = None) -> Decision:
        self._denied += 1
        return Decision(ask.ticket, Denied(reason=reason, text=text, retry_after=retry_after))

    def _limit(self) -> str:
        return f"deadline, with {len(self._permits)} requests under way of at most {self._window.size:.0f}"

    def _stretch(self) -> float:
        return 1.0 + self._rng.random() * self._jitter


def _rate(per_minute: float | None, now: float) -> Rate | None:
    return None if per_minute is None else Rate(per_minute, now)
