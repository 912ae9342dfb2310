"""A run asks its provider no more than the provider can bear, whatever its concurrency."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.openai_server import OpenAIServer, Reaction, Request, says, status
from support.sums import Sums, ended, new_run

from palmette.actors import System
from palmette.agents import OpenAIClient
from palmette.agents.limiter import Limiter, LimiterStatistics
from palmette.benchmarks.episode import EpisodeRequest
from palmette.benchmarks.run import Prepared, RunConfig, run_tree

EPISODES = 80
PER_SECOND = 40


class Provider:
    """Bears so many requests per second, and says 429 to all others; ``What is N?`` is answered by ``N``."""

    def __init__(self) -> None:
        self.refused = 0
        self._room = 1.0
        self._at = time.monotonic()

    def __call__(self, request: Request) -> Reaction:
        now = time.monotonic()
        self._room = min(1.0 + PER_SECOND / 10, self._room + (now - self._at) * PER_SECOND)
        self._at = now
        if self._room < 1.0:
            self.refused += 1
            return status(429, "slow down", retry_after="0.2")
        self._room -= 1.0
        question: str = request.body["messages"][-1]["content"]
        return says(question.removeprefix("What is ").removesuffix("?"))


@pytest.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer(rule=Provider()) as one:
        yield one


async def test_a_storm_of_429_fails_no_episode(server: OpenAIServer, tmp_path: Path) -> None:
    """64 agents at once ask a provider that bears 40 requests a second; the limiter finds out, and lets most wait."""
    benchmark = Sums(EPISODES)
    client = OpenAIClient("m", base_url=server.base_url)
    plan = tuple(EpisodeRequest(task=task.id) for task in benchmark.tasks())
    config = RunConfig(benchmark="sums", agent="react", concurrency=64)
    journal, run = new_run(tmp_path)
    prepared = Prepared(config=config, benchmark=benchmark, client=client, plan=plan)
    asked: LimiterStatistics | None = None
    async with asyncio.timeout(60), System.start(run_tree(prepared, run=run, journal=journal)) as system:
        await server.asked(EPISODES // 2)
        asked = await system.whereis("limiter", Limiter).call(Limiter.statistics)
        await system.wait_ended()
        statistics = system.statistics()
    await client.close()
    played = ended(run, journal, statistics, [])
    assert (played.tally.requested, played.tally.scored, played.tally.reward_sum) == (EPISODES, EPISODES, EPISODES)
    assert isinstance(server.rule, Provider)
    print(f"{len(server.requests)} requests, {server.rule.refused} refused; {asked}")
    assert len(server.requests) == EPISODES + server.rule.refused, "no answer was asked for twice"
    assert server.rule.refused < 2 * EPISODES
