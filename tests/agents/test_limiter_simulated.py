"""Two hundred agents, one limiter and a provider with limits and faults, on simulated time."""

from __future__ import annotations

import asyncio

import pytest
from provider_in_simulation import Faults, Provider, start_agents, tree

from palmette.actors import System, simulation
from palmette.agents.limiter import Limiter, LimiterSettings, LimiterStatistics
from palmette.supervisors import DynamicSupervisor, child

AGENTS = 200
SETTLED = 30.0
"""Seconds after which the limiter has found out what the provider takes."""
SOME_FAULTS = Faults(too_many=0.01, overloaded=0.01, timeout=0.01)


def _play(
    provider: Provider, settings: LimiterSettings, *, seed: int, seconds: float = 120.0
) -> tuple[float, LimiterStatistics]:
    """When the agents had been started, and how the limiter stood in the end."""

    async def main() -> tuple[float, LimiterStatistics]:
        async with System.start(tree(child(Limiter, settings, name="limiter"))) as system:
            await start_agents(system, provider, AGENTS)
            began = asyncio.get_running_loop().time()
            await asyncio.sleep(seconds)
            return began, await system.whereis("limiter", Limiter).call(Limiter.statistics)

    return simulation.run(main, seed=seed).value


@pytest.mark.parametrize(("rate", "seed"), [(10.0, 1), (30.0, 2), (100.0, 1)])
def test_two_hundred_agents_reach_nine_tenths_of_an_unknown_limit(rate: float, seed: int) -> None:
    """Through 429s with and without Retry-After, 529s and timeouts, and with at most a tenth of requests refused."""
    provider = Provider(rate, seed=seed, faults=SOME_FAULTS, whole_seconds=seed % 2 == 0)
    began, _ = _play(provider, LimiterSettings(), seed=seed)
    assert provider.throughput(began + SETTLED, began + 120.0) >= 0.9 * rate
    assert provider.refused_share <= 0.1


def test_a_limit_that_is_known_is_kept_from_the_first_second_on() -> None:
    """A provider of the same limit refuses next to nothing."""
    provider = Provider(30.0, seed=1)
    began, _ = _play(provider, LimiterSettings(requests_per_minute=29.5 * 60, start_concurrency=60), seed=1)
    assert provider.throughput(began + 5.0, began + 120.0) >= 0.9 * 30.0
    assert provider.refused_share <= 0.01


def test_a_limit_that_grows_is_found_out() -> None:
    """A provider that is given four times the capacity is used."""
    provider = Provider(20.0, seed=4)

    async def main() -> float:
        async with System.start(tree(child(Limiter, LimiterSettings(), name="limiter"))) as system:
            await start_agents(system, provider, AGENTS)
            await asyncio.sleep(60)
            provider.rate = 80.0
            await asyncio.sleep(120)
            now = asyncio.get_running_loop().time()
            return provider.throughput(now - 30, now)

    assert simulation.run(main, seed=4).value >= 0.9 * 80.0


@pytest.mark.parametrize("settings", [LimiterSettings(dollars=3.0), LimiterSettings(tokens=30000)])
def test_a_budget_is_overspent_by_at_most_one_request_of_each_agent(settings: LimiterSettings) -> None:
    """And it is spent: agents stop when it is used up, not before."""
    provider = Provider(1000.0, seed=1, faults=SOME_FAULTS)
    _, statistics = _play(provider, settings, seed=1)
    assert 3.0 <= round(statistics.dollars, 6) <= 3.0 + 0.01 * AGENTS
    assert statistics.under_way == 0
    assert provider.answers["ok"] <= 300 + AGENTS


def test_a_provider_that_is_down_is_left_alone_and_found_again() -> None:
    """An outage of a minute costs a few probes, and not a request of every agent again and again."""
    provider = Provider(50.0, seed=1)

    async def main() -> tuple[int, float]:
        async with System.start(tree(child(Limiter, LimiterSettings(), name="limiter"))) as system:
            await start_agents(system, provider, AGENTS)
            await asyncio.sleep(30)
            provider.faults = Faults(timeout=1.0)
            await asyncio.sleep(60)  # until all that was under way has timed out
            before = provider.answers.total()
            await asyncio.sleep(120)
            probes = provider.answers.total() - before
            provider.faults = Faults()
            await asyncio.sleep(120)
            now = asyncio.get_running_loop().time()
            return probes, provider.throughput(now - 20, now)

    probes, throughput = simulation.run(main, seed=1).value
    assert probes <= 20
    assert throughput >= 0.9 * 50.0


def test_permits_of_agents_that_are_killed_come_back() -> None:
    """With every agent dead, nothing is under way and nobody waits."""

    async def main() -> LimiterStatistics:
        async with System.start(tree(child(Limiter, LimiterSettings(), name="limiter"))) as system:
            await start_agents(system, Provider(50.0, seed=1), 50)
            await asyncio.sleep(10)
            agents = system.whereis("agents", DynamicSupervisor)
            for info in await agents.call(DynamicSupervisor.which_children):
                await agents.call(DynamicSupervisor.terminate_child, info.name)
            return await system.whereis("limiter", Limiter).call(Limiter.statistics)

    statistics = simulation.run(main, seed=1).value
    assert (statistics.under_way, statistics.waiting) == (0, 0)
    assert statistics.ended["ok"] > 100
