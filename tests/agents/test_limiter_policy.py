"""The limiter's rules, piece by piece and all together, on a clock of the test's own."""

from __future__ import annotations

import random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from palmette.agents.errors import ConfigurationError
from palmette.agents.limiter.breaker import Breaker
from palmette.agents.limiter.policy import LimiterPolicy
from palmette.agents.limiter.queue import Ask, FairQueue
from palmette.agents.limiter.rate import Rate
from palmette.agents.limiter.records import LimiterSettings, Outcome, Report
from palmette.agents.limiter.window import Window


def _policy(**settings: float) -> LimiterPolicy:
    return LimiterPolicy(LimiterSettings(**settings), random.Random(1), 0.0)  # pyright: ignore[reportArgumentType]


def _ask(policy: LimiterPolicy, *tickets: str, patience: float = 1000.0, tokens: int = 0) -> None:
    for ticket in tickets:
        policy.ask(Ask(ticket, ticket[0], tokens, patience))


def _granted(policy: LimiterPolicy, now: float) -> list[str]:
    return [decision.ticket for decision in policy.decide(now) if decision.denied is None]


def test_a_window_narrows_once_for_a_burst_of_refusals() -> None:
    """What was under way before it narrowed says nothing about the narrower one."""
    window = Window(start=40, maximum=100, tolerated=0.05)
    for _ in range(40):
        window.ended(0, well=False, under_way=40)
    assert (window.size, window.epoch) == (20.0, 1)


def test_a_window_that_is_not_full_does_not_widen() -> None:
    window = Window(start=40, maximum=100, tolerated=0.05)
    for _ in range(500):
        window.ended(0, well=True, under_way=3)
    assert window.size == 40


def test_failures_below_the_tolerated_share_do_not_narrow_the_window() -> None:
    window = Window(start=40, maximum=100, tolerated=0.08)
    for number in range(2000):
        window.ended(0, well=number % 20 != 0, under_way=int(window.size))
    assert window.size == 100


def test_a_rate_lets_a_second_through_at_once_and_then_its_own_pace() -> None:
    rate = Rate(600, 0.0)
    taken = 0
    for tick in range(1001):  # ten seconds
        now = tick / 100
        while rate.ready_at(1, now) <= now:
            rate.take(1, now)
            taken += 1
    assert taken == 110


def test_a_rate_that_was_overdrawn_waits_until_it_is_paid_back() -> None:
    rate = Rate(60, 0.0)
    rate.take(11, 0.0)
    assert rate.ready_at(1, 0.0) == pytest.approx(11.0)  # pyright: ignore[reportUnknownMemberType]


def test_a_breaker_lets_one_probe_through_and_opens_longer_when_it_fails() -> None:
    breaker = Breaker(failures=2, seconds=4.0)
    for ticket in ("a", "b"):
        breaker.passed(ticket)
        breaker.ended(ticket, well=False, now=0.0, stretch=1.0)
    assert (breaker.state(1.0), breaker.ready_at(1.0), breaker.state(4.0)) == ("open", 4.0, "half_open")
    breaker.passed("probe")
    assert breaker.ready_at(4.0) is None
    breaker.ended("probe", well=False, now=5.0, stretch=1.0)
    assert breaker.ready_at(5.0) == 13.0
    breaker.passed("second probe")
    breaker.ended("second probe", well=True, now=14.0, stretch=1.0)
    assert breaker.state(14.0) == "closed"


def test_a_probe_that_came_to_nothing_makes_room_for_the_next() -> None:
    breaker = Breaker(failures=1, seconds=1.0)
    breaker.ended("a", well=False, now=0.0, stretch=1.0)
    breaker.passed("probe")
    breaker.ended("probe", well=None, now=2.0, stretch=1.0)
    assert breaker.ready_at(2.0) == 2.0


def test_holders_take_turns_however_much_one_of_them_wants() -> None:
    queue = FairQueue(one_each=False)
    for ticket in ("a1", "a2", "a3", "b1", "c1", "c2"):
        queue.add(Ask(ticket, ticket[0], 0, 1.0))
    assert [queue.take().ticket for _ in range(6)] == ["a1", "b1", "c1", "a2", "c2", "a3"]


def test_retry_after_is_a_floor_for_everybody_and_the_jitter_is_on_top() -> None:
    policy = _policy()
    _ask(policy, "a")
    assert _granted(policy, 0.0) == ["a"]
    policy.ended("a", Report(outcome="overloaded", retry_after=10.0), 1.0)
    _ask(policy, "b")
    assert _granted(policy, 10.999) == []
    at = policy.wake_at(1.0)
    assert at is not None
    assert 11.0 <= at <= 12.0
    assert _granted(policy, at) == ["b"]


def test_who_cannot_wait_so_long_is_told_at_once_and_told_how_long() -> None:
    policy = _policy()
    _ask(policy, "a")
    policy.decide(0.0)
    policy.ended("a", Report(outcome="overloaded", retry_after=10.0), 0.0)
    _ask(policy, "b", patience=5.0)
    (decision,) = policy.decide(0.0)
    assert decision.denied is not None
    assert decision.denied.retry_after is not None
    assert decision.denied.retry_after >= 10.0


def test_dollars_that_nobody_tells_of_end_a_budget_of_dollars() -> None:
    policy = _policy(dollars=1.0)
    _ask(policy, "a")
    policy.decide(0.0)
    policy.ended("a", Report(outcome="ok", tokens=10), 0.0)
    _ask(policy, "b")
    (decision,) = policy.decide(0.0)
    assert decision.denied is not None
    assert "prices" in decision.denied.text


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="requests_per_minute must be greater than 0, got -1"):
        LimiterSettings(requests_per_minute=-1)
    with pytest.raises(ConfigurationError, match="start_concurrency"):
        LimiterSettings(max_concurrency=4)


_OUTCOMES: list[Outcome] = ["ok", "overloaded", "failed", "refused", "unused", "lost"]


class LimiterMachine(RuleBasedStateMachine):
    """Anything may happen, at any time; some things hold whatever does."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.settings = LimiterSettings(max_concurrency=12, tokens=1000, tokens_per_minute=60000, breaker_failures=3)
        self.policy = LimiterPolicy(self.settings, random.Random(7), 0.0)
        self.waiting: dict[str, tuple[str, float]] = {}
        self.permits: dict[str, str] = {}
        self.count = 0
        self.spent_at_grant = 0

    @rule(holder=st.sampled_from("abcd"), patience=st.floats(0.5, 50), tokens=st.integers(0, 400))
    def ask(self, holder: str, patience: float, tokens: int) -> None:
        self.count += 1
        ticket = f"{holder}{self.count}"
        self.waiting[ticket] = (holder, self.now + patience)
        self.policy.ask(Ask(ticket, holder, tokens, self.now + patience))

    @precondition(lambda self: self.permits)
    @rule(
        data=st.data(),
        outcome=st.sampled_from(_OUTCOMES),
        tokens=st.integers(0, 300),
        retry_after=st.none() | st.floats(0, 5),
    )
    def end(self, data: st.DataObject, outcome: Outcome, tokens: int, retry_after: float | None) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.permits)))
        del self.permits[ticket]
        self.policy.ended(ticket, Report(outcome=outcome, tokens=tokens, retry_after=retry_after), self.now)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.waiting)))
        del self.waiting[ticket]
        self.policy.withdraw(ticket)

    @rule()
    def wait(self) -> None:
        at = self.policy.wake_at(self.now)
        if at is not None:
            self.now = max(self.now, at)

    @rule(seconds=st.floats(0, 20))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def decide(self) -> None:
        used = self.policy.statistics(self.now).tokens
        for decision in self.policy.decide(self.now):
            holder, _ = self.waiting.pop(decision.ticket)
            if decision.denied is None:
                assert used < 1000, "granted beyond the budget"
                assert holder not in self.permits.values(), "a second request of one holder under a budget"
                self.permits[decision.ticket] = holder
        assert all(deadline > self.now for _, deadline in self.waiting.values()), "somebody waits beyond its deadline"
        assert self.policy.decide(self.now) == [], "one more look brought more"
        at = self.policy.wake_at(self.now)
        assert not self.waiting or at is not None, "somebody waits, and nobody will come back to it"
        assert at is None or at > self.now or self.permits

    @invariant()
    def counts_fit(self) -> None:
        statistics = self.policy.statistics(self.now)
        assert statistics.under_way == len(self.permits) <= 12
        assert statistics.waiting == len(self.waiting)
        assert 1.0 <= statistics.concurrency <= 12.0


TestLimiterMachine = LimiterMachine.TestCase
