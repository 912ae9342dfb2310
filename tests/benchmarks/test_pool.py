"""The pool: one episode per key, one result for everybody who asks, and the journal's word is the last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.sums import Sums, new_run, pool_tree, settings_for

from palmette.actors import Actor, ActorDied, System
from palmette.agents.scripted import ScriptedClient
from palmette.agents.tools import Tool
from palmette.benchmarks.episode import EpisodeRequest, EpisodeResult, EpisodeSettings
from palmette.benchmarks.journal import EpisodeEnded, EpisodeKey, JournalStore
from palmette.benchmarks.journal.actor import Journal
from palmette.benchmarks.outcomes import AgentFailed, CriterionScore, InfraFailed, Scored
from palmette.benchmarks.pool import EpisodePool, NoSuchTask
from palmette.benchmarks.task import Task, Transcript
from palmette.benchmarks.under_way import EpisodeOver, name_of
from palmette.machines import Machine
from palmette.supervisors import child

KEY = EpisodeKey("sums/0", 0)


@asynccontextmanager
async def running(settings: EpisodeSettings, journal: str, *, concurrency: int = 4) -> AsyncGenerator[System]:
    async with asyncio.timeout(20), System.start(pool_tree(settings, journal, concurrency=concurrency)) as system:
        yield system


async def ask(system: System, task: str = KEY.task) -> EpisodeResult:
    return await system.whereis("pool", EpisodePool).call(EpisodePool.play, EpisodeRequest(task=task))


class Gate:
    """A judge that waits to be let through, and counts."""

    def __init__(self, score: float = 1.0) -> None:
        self.open, self.reached = asyncio.Event(), asyncio.Event()
        self.score = score
        self.judged = 0

    async def __call__(self, task: Task, transcript: Transcript, machine: Machine | None) -> float:
        self.judged += 1
        self.reached.set()
        await self.open.wait()
        return self.score


async def test_all_who_ask_for_one_episode_get_its_one_result(tmp_path: Path) -> None:
    journal, run = new_run(tmp_path)
    gate = Gate()
    async with running(settings_for(run, Sums(1, judge=gate)), journal) as system:
        asked = [asyncio.ensure_future(ask(system)) for _ in range(5)]
        await gate.reached.wait()
        gate.open.set()
        results = [await one for one in asked]
        again = await ask(system)
    assert gate.judged == 1
    assert all(result is results[0] for result in results)
    assert again.outcome == results[0].outcome
    assert again.transcript is not None
    assert results[0].transcript is not None
    assert again.transcript.turns == results[0].transcript.turns


async def test_a_request_that_waited_for_its_turn_is_not_played_if_it_has_been_played_meanwhile(tmp_path: Path) -> None:
    journal, run = new_run(tmp_path)
    sessions: list[str] = []

    def replies(task: str) -> list[str]:
        sessions.append(task)
        return ["0"]

    settings = settings_for(run, Sums(2), ScriptedClient(replies))
    async with running(settings, journal, concurrency=1) as system:
        await asyncio.gather(*(ask(system, task) for task in ("sums/1", "sums/0", "sums/0", "sums/1", "sums/0")))
    assert sorted(sessions) == ["sums/0", "sums/1"]


async def test_a_task_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    journal, run = new_run(tmp_path)
    async with running(settings_for(run, Sums(1)), journal) as system:
        with pytest.raises(NoSuchTask, match="sums has no task 'sums/9'"):
            await ask(system, "sums/9")


async def test_it_tells_how_it_does_while_everything_is_busy(tmp_path: Path) -> None:
    journal, run = new_run(tmp_path)
    gate = Gate()
    async with running(settings_for(run, Sums(5, judge=gate)), journal, concurrency=2) as system:
        asked = [asyncio.ensure_future(ask(system, f"sums/{number}")) for number in range(5)]
        await gate.reached.wait()
        pool = system.whereis("pool", EpisodePool)
        statistics = await pool.call(EpisodePool.statistics)
        assert (statistics.running, statistics.waiting, statistics.ended.requested) == (2, 3, 0)
        assert await pool.call(EpisodePool.running) == [name_of(EpisodeKey(f"sums/{n}", 0)) for n in (0, 1)]
        gate.open.set()
        await asyncio.gather(*asked)
        statistics = await pool.call(EpisodePool.statistics)
        assert (statistics.running, statistics.waiting, statistics.ended.scored) == (0, 0, 5)


async def test_a_judge_that_dies_after_the_journal_has_its_verdict_cannot_change_it(tmp_path: Path) -> None:
    """First wins: what the pool tells is what the journal has, also when a second judge comes to another verdict."""
    journal, run = new_run(tmp_path)
    scores = iter([0.25, 0.75])
    died: list[str] = []

    async def fickle(task: Task, transcript: Transcript, machine: Machine | None) -> float:
        return next(scores)

    original = EpisodePool.judged.function

    async def dies_first(self: EpisodePool, key: EpisodeKey, ended: EpisodeEnded) -> None:
        if not died:
            died.append("")
            raise EpisodeOver("made up: the evaluator dies before its pool learns of the verdict")
        await original(self, key, ended)

    object.__setattr__(EpisodePool.judged, "function", dies_first)
    try:
        async with running(settings_for(run, Sums(1, judge=fickle)), journal) as system:
            result = await ask(system)
            assert (await system.whereis("pool", EpisodePool).call(EpisodePool.statistics)).ended.reward_sum == 0.25
    finally:
        object.__setattr__(EpisodePool.judged, "function", original)
    assert isinstance(result.outcome, Scored)
    assert result.outcome.reward == 0.25
    with JournalStore(journal) as store:
        assert [episode.outcome for episode in store.episodes(run)] == [result.outcome]


async def test_an_end_of_an_earlier_attempt_is_told_with_the_transcript_of_that_attempt(tmp_path: Path) -> None:
    """The verdict was durable, then all fell: whoever learns from the episode must not be given another attempt's."""
    journal, run = new_run(tmp_path)
    replies = iter(["first", "second"])

    async def break_it(task: Task, transcript: Transcript, machine: Machine | None) -> float:
        if transcript.answer == "first":
            outcome = Scored(reward=0.5, scores=(CriterionScore(name="right", score=0.5),))
            ended = EpisodeEnded(
                run=run, task=task.id, sample=0, attempt=1, outcome=outcome, answer="first",
                started=0.0, finished=1.0, seconds=1.0,
            )  # fmt: skip
            await system.whereis("journal", Journal).call(Journal.end, ended)
            system.ref_at(f"/rollouts/episodes/{name_of(KEY)}/agent", Actor).kill("after the verdict")
            system.ref_at(f"/rollouts/episodes/{name_of(KEY)}/machine", Actor).kill("after the verdict")
            await asyncio.Event().wait()
        return 1.0

    settings = settings_for(run, Sums(1, machine=True, judge=break_it), ScriptedClient(lambda task: [next(replies)]))
    async with running(settings, journal) as system:
        result = await ask(system)
    assert isinstance(result.outcome, Scored)
    assert result.outcome.reward == 0.5
    assert result.attempts == 1
    assert result.transcript is not None
    assert [turn.said.content for turn in result.transcript.turns] == ["first"]


async def test_attempts_that_a_fallen_pool_handed_out_are_not_handed_out_again(tmp_path: Path) -> None:
    """Their turns may be in the journal already, or on their way: two attempts of one number would mix."""
    journal, run = new_run(tmp_path)
    gate = Gate()
    replies = iter(["of the first", "of the second"])
    settings = settings_for(run, Sums(1, judge=gate), ScriptedClient(lambda task: [next(replies)]))
    async with running(settings, journal) as system:
        asked = asyncio.ensure_future(ask(system))
        await gate.reached.wait()
        system.whereis("pool", EpisodePool).kill("by the test")
        with pytest.raises(ActorDied):
            await asked
        await system.wait_for("pool", EpisodePool)  # and with it the end of the judge that waits at the gate
        gate.open.set()
        result = await ask(system)
    assert result.attempts == 2
    with JournalStore(journal) as store:
        turns = [store.turns(run, *KEY, attempt=attempt) for attempt in (1, 2)]
    assert [[turn.said.content for turn in said] for said in turns] == [["of the first"], ["of the second"]]


async def test_what_comes_late_is_refused_and_harms_nobody(tmp_path: Path) -> None:
    journal, run = new_run(tmp_path)
    gate = Gate()
    async with running(settings_for(run, Sums(1, judge=gate)), journal) as system:
        pool = system.whereis("pool", EpisodePool)
        with pytest.raises(EpisodeOver):
            await pool.call(EpisodePool.begin, KEY, None)
        asked = asyncio.ensure_future(ask(system))
        await gate.reached.wait()
        with pytest.raises(EpisodeOver, match="at attempt 1; this is of attempt 0"):
            await pool.call(EpisodePool.answered, KEY, 0, Transcript(answer="too late"))
        gate.open.set()
        await asked
        for late in (pool.call(EpisodePool.wait_answered, KEY), pool.call(EpisodePool.answered, KEY, 1, Transcript())):
            with pytest.raises(EpisodeOver):
                await late
        assert pool.incarnation == 1


async def test_a_benchmark_whose_tools_raise_fails_its_agents_and_not_the_pool(tmp_path: Path) -> None:
    class Broken(Sums):
        def tools(self, task: Task, machine: Machine | None) -> Sequence[Tool]:
            if task.id == "sums/0":
                raise LookupError("no tool for this")
            return super().tools(task, machine)

    journal, run = new_run(tmp_path)
    async with running(settings_for(run, Broken(2)), journal) as system:
        outcomes = [(await ask(system, task)).outcome for task in ("sums/0", "sums/1")]
        assert system.whereis("pool", EpisodePool).incarnation == 1
    assert outcomes[0] == AgentFailed(reason="BenchmarkBroken: sums.tools() raised LookupError: no tool for this")
    assert isinstance(outcomes[1], Scored)


async def test_an_episode_whose_supervisor_is_killed_is_infrastructure(tmp_path: Path) -> None:
    journal, run = new_run(tmp_path)
    gate = Gate()
    async with running(settings_for(run, Sums(1, judge=gate)), journal) as system:
        asked = asyncio.ensure_future(ask(system))
        await gate.reached.wait()
        system.ref_at(f"/rollouts/episodes/{name_of(KEY)}", Actor).kill("by the test")
        assert (await asked).outcome == InfraFailed(reason="killed (by the test)")


def test_an_episodes_name_is_readable_and_unique_and_fit_for_a_path() -> None:
    assert name_of(EpisodeKey("trail-7", 3)) == "trail-7+3"
    keys = [EpisodeKey(task, 0) for task in ("a/b", "a-b", "a b", "ä", "x" * 99 + "/1", "x" * 99 + "/2")]
    names = [name_of(key) for key in keys]
    assert len(set(names)) == len(names)
    for name in names:
        child(Actor, name=name)
