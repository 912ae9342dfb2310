"""The limiter as an actor, and the model client that asks it."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

import pytest

from palmette.actors import Actor, Ref, System, deadline, endpoint, simulation
from palmette.agents import (
    BudgetSpent,
    Completion,
    Message,
    ModelRefused,
    ModelUnavailable,
    ScriptedClient,
    Usage,
)
from palmette.agents.limiter import LimitedClient, Limiter, LimiterSettings, LimiterStatistics, Report, permit
from palmette.supervisors import DynamicSupervisor, Supervisor, child

QUESTION = [Message(role="user", content="?")]
ANSWER = Completion(
    message=Message(role="assistant", content="yes"), usage=Usage(input_tokens=5, output_tokens=2, cost=0.5)
)


def _system(settings: LimiterSettings | None = None) -> AbstractAsyncContextManager[System]:
    return System.start(Supervisor.spec(children=[child(Limiter, settings, name="limiter")]))


async def _statistics(limiter: Ref[Limiter]) -> LimiterStatistics:
    return await limiter.call(Limiter.statistics)


def test_a_session_reports_how_each_of_its_requests_ended() -> None:
    """What was used, what it cost, what failed and how."""

    async def main() -> LimiterStatistics:
        async with _system() as system:
            limiter = system.whereis("limiter", Limiter)
            replies = [
                ANSWER, ModelUnavailable("busy", overloaded=True), ModelUnavailable("gone"), ModelRefused("no"), ANSWER,
            ]  # fmt: skip
            session = LimitedClient(ScriptedClient(lambda _: replies), limiter).session("t", seed=0)
            for reply in replies:
                if isinstance(reply, Exception):
                    with pytest.raises(type(reply)):
                        await session.complete(QUESTION, timeout=5)
                else:
                    assert await session.complete(QUESTION, timeout=5) == reply
            return await _statistics(limiter)

    statistics = simulation.run(main).value
    assert statistics.ended == {"ok": 2, "overloaded": 1, "failed": 1, "refused": 1}
    assert (statistics.tokens, statistics.dollars, statistics.under_way) == (14, 1.0, 0)


def test_a_spent_budget_is_an_error_that_asking_again_does_not_change() -> None:
    """And the model is not asked."""

    async def main() -> None:
        async with _system(LimiterSettings(dollars=0.4)) as system:
            client = LimitedClient(ScriptedClient(lambda _: [ANSWER]), system.whereis("limiter", Limiter))
            await client.session("t", seed=0).complete(QUESTION, timeout=5)
            with pytest.raises(BudgetSpent, match=r"\$0.4 is used up \(\$0.5 spent\)") as caught:
                await client.session("t", seed=0).complete(QUESTION, timeout=5)
            assert not caught.value.retryable

    simulation.run(main)


def test_a_request_that_was_called_off_leaves_nothing_in_the_limiter() -> None:
    """While it waits for its permit, and while it is under way."""

    async def main() -> LimiterStatistics:
        async with _system(LimiterSettings(max_concurrency=1, start_concurrency=1)) as system:
            limiter = system.whereis("limiter", Limiter)

            async def hold() -> None:
                async with permit(limiter, holder="x", timeout=100):
                    await asyncio.sleep(50)

            tasks = [asyncio.create_task(hold()) for _ in range(2)]
            await asyncio.sleep(1)
            statistics = await _statistics(limiter)
            assert (statistics.under_way, statistics.waiting) == (1, 1)
            for task in reversed(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            return await _statistics(limiter)

    statistics = simulation.run(main).value
    assert (statistics.under_way, statistics.waiting, statistics.ended["lost"]) == (0, 0, 1)


def test_a_permit_that_nobody_reports_on_comes_back_after_its_requests_deadline() -> None:
    """The holder is no actor that could be watched."""

    async def main() -> None:
        async with _system(LimiterSettings(max_concurrency=1, start_concurrency=1)) as system:
            limiter = system.whereis("limiter", Limiter)
            assert await limiter.call(Limiter.acquire, "t1", "x", seconds=20.0) is None
            began = asyncio.get_running_loop().time()
            with deadline(100):
                assert await limiter.call(Limiter.acquire, "t2", "y") is None
            assert 20.0 <= asyncio.get_running_loop().time() - began <= 40.0

    simulation.run(main)


def test_a_wait_that_is_too_long_is_an_unavailable_model() -> None:
    """So that the agent's supervisor decides, as for any other outage."""

    async def main() -> None:
        async with _system(LimiterSettings(max_concurrency=1, start_concurrency=1)) as system:
            limiter = system.whereis("limiter", Limiter)
            async with permit(limiter, holder="x", timeout=1000):
                with pytest.raises(ModelUnavailable, match="no permit for a request"):
                    async with permit(limiter, holder="y", timeout=3):
                        raise AssertionError("no permit was to be had")
            async with permit(limiter, holder="y", timeout=3) as request:
                request.ended(Report(outcome="ok"))

    simulation.run(main)


class Elsewhere(Actor):
    """An agent in a process of its own."""

    def __init__(self, limiter: Ref[Limiter]) -> None:
        self._limiter = limiter

    @endpoint
    async def ask(self, tokens: int) -> None:
        """One request."""
        async with permit(self._limiter, holder=self.path, timeout=30, owner=self.ref) as request:
            request.ended(Report(outcome="ok", tokens=tokens))

    @endpoint
    async def hold(self) -> None:
        """A request that does not end."""
        await self._limiter.call(Limiter.acquire, "held", self.path, owner=self.ref)


async def test_an_agent_in_another_process_uses_the_same_limiter_and_its_death_gives_the_permit_back() -> None:
    """The node is killed while its request is under way."""
    one = LimiterSettings(max_concurrency=1, start_concurrency=1)
    tree = Supervisor.spec(children=[child(Limiter, one, name="limiter"), DynamicSupervisor.spec(name="agents")])
    async with System.start(tree) as system:
        limiter = system.whereis("limiter", Limiter)
        path = await system.whereis("agents", DynamicSupervisor).call(
            DynamicSupervisor.start_child,
            child(Elsewhere, limiter, name="elsewhere", isolation="process", restart="temporary"),
        )
        elsewhere = system.ref_at(path, Elsewhere)
        await elsewhere.call(Elsewhere.ask, 12)
        await elsewhere.call(Elsewhere.hold)
        statistics = await _statistics(limiter)
        assert (statistics.under_way, statistics.tokens) == (1, 12)
        elsewhere.kill()
        async with permit(limiter, holder="next", timeout=30) as request:  # there is but one
            request.ended(Report(outcome="ok"))
        assert (await _statistics(limiter)).ended == {"ok": 2, "lost": 1}
