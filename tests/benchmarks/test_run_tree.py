"""A run whose parts are killed at arbitrary moments ends like one that was left alone."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from support.interference import Dawdling, Interfered
from support.sums import Played, Sums, ended, new_run, play, pool_tree, settings_for, solver, until

from palmette.actors import Actor, ActorDied, Crashed, Ref, System, describe, root_cause
from palmette.agents.errors import ModelRefused, ModelUnavailable
from palmette.agents.scripted import ScriptedClient
from palmette.benchmarks.benchmark import Benchmark
from palmette.benchmarks.episode import EpisodeRequest, EpisodeResult, EpisodeSettings
from palmette.benchmarks.errors import JournalFull
from palmette.benchmarks.journal import EpisodeEnded, JournalStore, Record
from palmette.benchmarks.journal.records import Committed
from palmette.benchmarks.pool import EpisodePool
from palmette.benchmarks.run import Prepared, RunConfig, plan_tree, prepare, run_tree, seed_of
from palmette.benchmarks.task import Task, Transcript
from palmette.machines import Machine


async def partly_right(task: Task, transcript: Transcript, machine: Machine | None) -> float:
    """A score of its own for each task, read from the sandbox where there is one."""
    answer = transcript.answer if machine is None else (await machine.get("answer")).decode()
    assert answer == task.grader.answer
    return int(task.grader.answer) % 7 / 7


def faults(seed: int, *, parts: int, pillars: int) -> Callable[[System], Awaitable[None]]:
    """Kill so many parts of episodes, and so many of the actors that all rests on, at moments drawn from ``seed``."""
    draw = random.Random(seed)
    plan = ["part"] * parts + [draw.choice(["/rollouts/pool", "/rollouts/episodes", "/runner", "/journal"])] * pillars
    draw.shuffle(plan)
    spared: set[str] = set()

    async def inject(system: System) -> None:
        for what in plan:
            for _ in range(draw.randrange(150)):
                await asyncio.sleep(0)
            if what == "part":
                there = [
                    path
                    for path in system.slots
                    if path.rpartition("/")[2] in ("agent", "evaluator", "machine")
                    and path.rpartition("/")[0] not in spared
                ]
                if not there:
                    continue
                what = draw.choice(sorted(there))
                spared.add(what.rpartition("/")[0])  # once per episode: its own budget is not what is tested here
            system.ref_at(what, Actor).kill(f"by seed {seed}")

    return inject


@pytest.mark.parametrize("machine", [False, True])
@pytest.mark.parametrize("seed", range(8))
async def test_whatever_is_killed_each_task_ends_once_and_scores_as_if_nothing_had_been(
    tmp_path: Path, seed: int, machine: bool
) -> None:
    benchmark = Sums(50, machine=machine, judge=partly_right)
    journal, run = new_run(tmp_path)
    settings = settings_for(run, benchmark, Interfered(solver(machine=machine), Dawdling()))
    disturbed = await play(settings, journal, meanwhile=faults(seed, parts=8, pillars=2))
    assert disturbed.scores == {(f"sums/{number}", 0): number % 7 / 7 for number in range(50)}
    assert disturbed.tally.requested == 50


@pytest.mark.parametrize("pillar", ["/rollouts/pool", "/rollouts/episodes", "/rollouts", "/runner", "/journal"])
async def test_each_pillar_may_fall_when_half_is_done(tmp_path: Path, pillar: str) -> None:
    async def fell(system: System) -> None:
        await until(lambda: scored(system.whereis("pool", EpisodePool), 20))
        system.whereis(pillar, Actor).kill("by the test")

    journal, run = new_run(tmp_path)
    settings = settings_for(run, Sums(40, judge=partly_right), Interfered(solver(), Dawdling()))
    played = await play(settings, journal, meanwhile=fell)
    assert played.tally.scored == 40
    assert any(f"{pillar}#1" in crash for crash in played.crashes)


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_a_run_that_is_broken_off_records_nothing_wrong_and_a_second_tree_plays_only_the_rest(
    tmp_path: Path, how: str
) -> None:
    journal, run = new_run(tmp_path)
    sessions: list[str] = []

    def replies(task: str) -> list[str]:
        sessions.append(task)
        return [task.partition("/")[2]]

    settings = settings_for(run, Sums(40, judge=partly_right), Interfered(ScriptedClient(replies), Dawdling()))
    plan = [EpisodeRequest(task=task.id) for task in settings.benchmark.tasks()]

    async def half() -> None:
        async with System.start(plan_tree(settings, plan, concurrency=8, journal=journal), kill_grace=0.2) as system:
            pool = system.whereis("pool", EpisodePool)
            await until(lambda: scored(pool, 15))
            if how == "killed":
                system.ref_at("/", Actor).kill("by the test")
                await asyncio.sleep(10)

    if how == "killed":
        with pytest.raises(ActorDied, match="by the test"):
            await half()
    else:
        await half()
    with JournalStore(journal) as store:
        before = store.tally(run)
    assert 15 <= before.scored == before.requested < 40
    sessions.clear()
    played = await play(settings, journal)
    assert played.scores == {(f"sums/{number}", 0): number % 7 / 7 for number in range(40)}
    assert len(sessions) == 40 - before.scored


async def scored(pool: Ref[EpisodePool], number: int) -> bool:
    return (await pool.call(EpisodePool.statistics)).ended.scored >= number


async def aborted(settings: EpisodeSettings, journal: str, **options: int) -> str:
    """The sentence that a run gives up with."""
    with pytest.raises(ActorDied) as caught:
        await play(settings, journal, **options)  # pyright: ignore[reportArgumentType]
    cause = root_cause(caught.value.reason)
    assert isinstance(cause, Crashed)
    return describe(cause)


async def test_a_model_that_refuses_everybody_ends_the_run_with_its_sentence_and_records_nothing(
    tmp_path: Path,
) -> None:
    journal, run = new_run(tmp_path)
    refusing = ScriptedClient(lambda task: [ModelRefused("the endpoint refuses the API key (401)")])
    settings = settings_for(run, Sums(20), refusing)
    assert await aborted(settings, journal) == "RunAborted: the endpoint refuses the API key (401)"
    with JournalStore(journal) as store:
        assert store.tally(run).requested == 0
    assert (await play(settings_for(run, Sums(20)), journal)).tally.scored == 20  # with the right key


async def test_a_model_that_never_answered_ends_the_run_too(tmp_path: Path) -> None:
    journal, run = new_run(tmp_path)
    away = ScriptedClient(lambda task: [ModelUnavailable("cannot reach http://127.0.0.1:9")])
    sentence = await aborted(settings_for(run, Sums(3), away), journal)
    assert sentence == "RunAborted: cannot reach http://127.0.0.1:9"
    with JournalStore(journal) as store:
        assert store.tally(run).requested == 0


async def test_a_full_journal_ends_the_run_with_its_sentence_and_keeps_what_was_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, run = new_run(tmp_path)
    told: list[EpisodeResult] = []
    commit, commits = JournalStore.commit, 0

    def full(store: JournalStore, batch: Sequence[Record]) -> Committed:
        nonlocal commits
        commits += any(isinstance(record, EpisodeEnded) for record in batch)
        if commits > 3:
            raise JournalFull("journal runs.db: the disk is full; free some space and resume")
        return commit(store, batch)

    monkeypatch.setattr(JournalStore, "commit", full)

    async def listen(system: System) -> None:
        pool = system.whereis("pool", EpisodePool)
        for task in settings.benchmark.tasks():
            told.append(await pool.call(EpisodePool.play, EpisodeRequest(task=task.id)))

    settings = settings_for(run, Sums(30))
    tree = pool_tree(settings, journal, concurrency=2)

    async def fill() -> None:
        async with System.start(tree, kill_grace=0.2) as system:
            with contextlib.suppress(ActorDied):
                await listen(system)
            await system.wait_ended()

    with pytest.raises(ActorDied) as caught:
        await fill()
    cause = root_cause(caught.value.reason)
    assert describe(cause) == "JournalFull: journal runs.db: the disk is full; free some space and resume"
    monkeypatch.undo()
    with JournalStore(journal) as store:
        assert {(result.task, 0) for result in told} == store.finished(run) != set()
    assert (await play(settings, journal)).tally.scored == 30


async def test_no_more_episodes_run_at_a_time_than_asked_for(tmp_path: Path) -> None:
    now = most = 0

    async def counting(task: Task, transcript: Transcript, machine: Machine | None) -> float:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await three.wait()  # nobody goes on before three are at it
        now -= 1
        return 1.0

    three = asyncio.Barrier(3)
    journal, run = new_run(tmp_path)
    played = await play(settings_for(run, Sums(39, judge=counting)), journal, concurrency=3)
    assert (played.tally.scored, most) == (39, 3)


async def test_a_thousand_episodes_leave_nothing(tmp_path: Path) -> None:
    journal, run = new_run(tmp_path)
    widest = 0

    async def look(system: System) -> None:
        nonlocal widest
        while True:
            widest = max(widest, len(system.slots), len(asyncio.all_tasks()))
            await asyncio.sleep(0.01)

    played = await play(settings_for(run, Sums(500)), journal, samples=2, concurrency=16, meanwhile=look)
    assert played.tally.scored == 1000
    assert 16 < widest < 300
    assert played.statistics.crashes == 0


async def test_an_episode_that_ended_is_in_the_journal_once_with_the_turns_of_its_attempt(tmp_path: Path) -> None:
    journal, run = new_run(tmp_path)
    await play(settings_for(run, Sums(3, machine=True)), journal)
    with JournalStore(journal) as store:
        for number in range(3):
            turns = store.turns(run, f"sums/{number}", 0)
            assert [len(turn.heard) for turn in turns] == [1, 1]
            assert turns[1].heard[0].content == "written"
        assert store.attempts(run) == dict.fromkeys(store.finished(run), 1)


def test_an_episodes_seed_depends_on_its_identity_alone() -> None:
    assert seed_of(1, "t", 0) == seed_of(1, "t", 0)
    assert len({seed_of(s, t, n) for s in (1, 2) for t in ("a", "b") for n in (0, 1)}) == 8


async def test_a_prepared_run_of_trail_scores_full_marks_with_the_reference(tmp_path: Path) -> None:
    config = RunConfig(benchmark="trail", options={"count": 12}, agent="reference", samples=2, concurrency=6)
    prepared = prepare(config)
    assert isinstance(prepared, Prepared)
    journal, run = new_run(tmp_path)
    async with asyncio.timeout(30), System.start(run_tree(prepared, run=run, journal=journal)) as system:
        await system.wait_ended()
        statistics = system.statistics()
    played: Played = ended(run, journal, statistics, [])
    assert played.tally.reward_sum == played.tally.scored == 24
    with JournalStore(journal) as store:
        assert store.get_run(run).status == "completed"
    benchmark: Benchmark = prepared.benchmark
    assert len(benchmark.tasks()) == 12
