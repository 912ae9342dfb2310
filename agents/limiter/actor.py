"""The limiter as an actor: one for each provider and key, known to all agents of a system by its name.

>>> tree = Supervisor.spec(children=[child(Limiter, LimiterSettings(dollars=20.0), name="openai-limiter"), …])

Whoever wants to send a request asks for a permit, and says afterwards how the request ended; :func:`permit
<palmette.agents.limiter.client.permit>` does both. A permit comes back by itself when its owner has died, or when the
request must have ended long ago. Agents on nodes in other processes reach it like any actor.

It sends nothing twice. A request that failed is its agent's exit reason, and the agent's child spec says what follows:
``rules={"retryable": "backoff"}``, where ``Retry-After`` is the backoff's floor.

What it found out and what was spent live as long as it does; a limiter that was restarted begins anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

import msgspec

from palmette.actors import Actor, Down, Ref, ReplyToken, endpoint, time_left
from palmette.agents.limiter.policy import LimiterPolicy
from palmette.agents.limiter.queue import Ask
from palmette.agents.limiter.records import Denied, LimiterSettings, LimiterStatistics, Report

PATIENCE: Final = 600.0
"""Seconds that an ask without a deadline may wait."""
GRACE: Final = 10.0
"""Seconds beyond a request's own deadline after which nobody will report on it any more."""
_LOST: Final = Report(outcome="lost")


class _Wake(msgspec.Struct, frozen=True):
    """Something may have become possible by time alone."""


class _Expired(msgspec.Struct, frozen=True):
    """A permit's request must have ended."""

    ticket: str


class _Holding(msgspec.Struct):
    """What is kept for a ticket from the ask to the report."""

    token: ReplyToken[object]
    seconds: float
    monitor: int | None
    call_off: Callable[[], None] | None = None


class Limiter(Actor):
    """See the module's text."""

    def __init__(self, settings: LimiterSettings | None = None) -> None:
        self._settings = settings or LimiterSettings()
        self._policy = LimiterPolicy(self._settings, self.system.random, self._now())
        self._holdings: dict[str, _Holding] = {}
        self._by_monitor: dict[int, str] = {}
        self._wake: tuple[float, Callable[[], None]] | None = None

    @endpoint
    async def acquire(
        self, ticket: str, holder: str, tokens: int = 0, seconds: float = 60.0, owner: Ref[Actor] | None = None
    ) -> Denied | None:
        """Wait, no longer than the call's deadline, until a request may be sent.

        Args:
            ticket: A name for the request that nobody else uses.
            holder: Who asks. Holders take turns.
            tokens: That the request will probably take.
            seconds: The request's own deadline.
            owner: An actor whose death gives the permit back.
        """
        now, patience = self._now(), time_left()
        monitor = self.monitor(cast("Ref[object]", owner)) if owner is not None else None
        if monitor is not None:
            self._by_monitor[monitor] = ticket
        self._holdings[ticket] = _Holding(self.reply_later(), seconds, monitor)
        self._policy.ask(Ask(ticket, holder, tokens, now + (PATIENCE if patience is None else patience)))
        self._decide()
        return None

    @endpoint
    async def report(self, ticket: str, report: Report) -> None:
        """Tell how a request ended, or that a permit is not wanted any more. The first word counts."""
        self._ended(ticket, report)
        self._decide()

    @endpoint
    async def statistics(self) -> LimiterStatistics:
        """How it stands."""
        return self._policy.statistics(self._now())

    async def receive(self, message: object) -> None:
        match message:
            case _Wake():
                self._wake = None
            case _Expired(ticket):
                self._ended(ticket, _LOST)
            case Down(monitor=monitor):
                self._ended(self._by_monitor[monitor], _LOST)
            case _:
                await super().receive(message)
        self._decide()

    def describe_state(self) -> object:
        return self._policy.statistics(self._now())

    def _ended(self, ticket: str, report: Report) -> None:
        holding = self._holdings.pop(ticket, None)
        if holding is None:
            return
        if holding.call_off is not None:
            holding.call_off()
        if holding.monitor is not None:
            del self._by_monitor[holding.monitor]
            self.demonitor(holding.monitor)
        if self._policy.has_permit(ticket):
            self._policy.ended(ticket, report, self._now())
        else:
            self._policy.withdraw(ticket)

    def _decide(self) -> None:
        """Tell those who can be told now, and come back when time alone changes something."""
        while decisions := self._policy.decide(self._now()):
            for decision in decisions:
                holding = self._holdings[decision.ticket]
                if decision.denied is not None:
                    self._ended(decision.ticket, _LOST)
                    holding.token.reply(decision.denied)
                elif holding.token.is_wanted():
                    holding.call_off = self.send_after(holding.seconds + GRACE, _Expired(decision.ticket))
                    holding.token.reply(None)
                else:
                    self._ended(decision.ticket, Report(outcome="unused"))
        at = self._policy.wake_at(self._now())
        if self._wake is not None and self._wake[0] != at:
            self._wake[1]()
            self._wake = None
        if at is not None and self._wake is None:
            self._wake = (at, self.send_after(max(0.0, at - self._now()), _Wake()))

    def _now(self) -> float:
        return self.system.loop.time()
