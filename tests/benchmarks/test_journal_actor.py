"""The journal's owner: what it acknowledges is durable, what it is told twice counts once, and it fails aloud."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.sums import new_run, until

from palmette.actors import ActorDied, Crashed, System, describe
from palmette.agents.conversation import Message
from palmette.benchmarks.errors import JournalFull, JournalUnavailable
from palmette.benchmarks.journal import (
    AttemptStarted,
    EpisodeEnded,
    EpisodeKey,
    Event,
    JournalStore,
    Record,
    TurnSaid,
    connection,
)
from palmette.benchmarks.journal.actor import Journal
from palmette.benchmarks.journal.records import Committed
from palmette.benchmarks.outcomes import Scored
from palmette.benchmarks.run import journal_spec
from palmette.benchmarks.task import Turn
from palmette.supervisors import Supervisor


@asynccontextmanager
async def running(url: str, run: str) -> AsyncGenerator[System]:
    async with asyncio.timeout(20), System.start(Supervisor.spec(children=[journal_spec(url, run)])) as system:
        yield system


def end(run: str, number: int, reward: float = 1.0) -> EpisodeEnded:
    return EpisodeEnded(
        run=run, task=f"t/{number}", sample=0, attempt=1, outcome=Scored(reward=reward), answer="a",
        started=1.0, finished=2.0, seconds=1.0,
    )  # fmt: skip


async def test_what_is_acknowledged_is_seen_by_another_connection_at_once(tmp_path: Path) -> None:
    url, run = new_run(tmp_path)
    async with running(url, run) as system:
        journal = system.whereis("journal", Journal)
        for number in range(10):
            await journal.call(Journal.end, end(run, number))
            with JournalStore(url, create=False) as other:
                assert len(other.finished(run)) == number + 1


async def test_what_gathers_during_a_commit_goes_into_the_next_one_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, run = new_run(tmp_path)
    commit, sizes, gate = JournalStore.commit, list[int](), threading.Event()

    def slow(store: JournalStore, batch: Sequence[Record]) -> Committed:
        sizes.append(len(batch))
        if len(sizes) == 1:
            assert gate.wait(10)
        return commit(store, batch)

    monkeypatch.setattr(JournalStore, "commit", slow)
    async with running(url, run) as system:
        journal = system.whereis("journal", Journal)
        first = asyncio.ensure_future(journal.call(Journal.end, end(run, 0)))

        async def committing() -> bool:
            return len(sizes) == 1

        async def waiting() -> bool:
            return (await journal.call(Journal.statistics)).waiting == 100

        await until(committing)
        others = [asyncio.ensure_future(journal.call(Journal.end, end(run, number))) for number in range(1, 101)]
        await until(waiting)
        assert not any(one.done() for one in (first, *others)), "nothing is acknowledged before it is durable"
        gate.set()
        await asyncio.gather(first, *others)
        statistics = await journal.call(Journal.statistics)
    assert sizes == [1, 100]
    assert (statistics.records, statistics.commits, statistics.waiting) == (101, 2, 0)


async def test_the_first_end_of_an_episode_stands_and_is_what_everybody_is_told(tmp_path: Path) -> None:
    url, run = new_run(tmp_path)
    async with running(url, run) as system:
        journal = system.whereis("journal", Journal)
        # In one batch, and in a later one.
        together = await asyncio.gather(*(journal.call(Journal.end, end(run, 0, reward)) for reward in (0.5, 0.1, 0.9)))
        later = await journal.call(Journal.end, end(run, 0, 0.3))
        assert [ended.outcome for ended in (*together, later)] == [Scored(reward=0.5)] * 4
        assert (await journal.call(Journal.tally)).requested == 1


async def test_what_is_read_has_in_it_what_was_taken_before(tmp_path: Path) -> None:
    url, run = new_run(tmp_path)
    turn = Turn(index=0, heard=(Message(role="user", content="?"),), said=Message(role="assistant", content="!"))
    async with running(url, run) as system:
        journal = system.whereis("journal", Journal)
        journal.cast(Journal.append, AttemptStarted(run=run, task="t", sample=0, attempt=3, at=1.0))
        assert await journal.call(Journal.attempts) == [(EpisodeKey("t", 0), 3)]
        journal.cast(Journal.append, TurnSaid(run=run, task="t", sample=0, attempt=3, turn=turn))
        assert await journal.call(Journal.turns, EpisodeKey("t", 0), 3) == [turn]
        journal.cast(Journal.append, Event(run=run, at=1.0, kind="kill", child="policy"))
        assert [event.child for event in await journal.call(Journal.events)] == ["policy"]


async def test_what_was_only_taken_is_written_when_the_journal_is_closed(tmp_path: Path) -> None:
    url, run = new_run(tmp_path)
    async with running(url, run) as system:
        journal = system.whereis("journal", Journal)
        journal.cast(Journal.append, end(run, 0))
        await journal.call(Journal.statistics)
    with JournalStore(url) as store:
        assert store.finished(run) == {EpisodeKey("t/0", 0)}


async def test_a_full_disk_crashes_it_with_that_and_those_who_wait_learn_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, run = new_run(tmp_path)

    def full(store: JournalStore, batch: Sequence[Record]) -> Committed:
        raise JournalFull("the disk is full")

    async def fill() -> None:
        async with running(url, run) as system:
            journal = system.whereis("journal", Journal)
            await journal.call(Journal.end, end(run, 0))
            monkeypatch.setattr(JournalStore, "commit", full)
            ends = [journal.call(Journal.end, end(run, number)) for number in range(1, 4)]
            for answer in await asyncio.gather(*ends, return_exceptions=True):
                assert isinstance(answer, ActorDied)
                assert describe(answer.reason) == "JournalFull: the disk is full"
            await system.wait_ended()

    with pytest.raises(ActorDied):
        await fill()
    monkeypatch.undo()
    with JournalStore(url) as store:
        assert store.finished(run) == {EpisodeKey("t/0", 0)}


async def test_a_lock_that_passes_is_waited_out_by_its_supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LOCK_SECONDS", 0.02)
    url, run = new_run(tmp_path)
    async with running(url, run) as system:
        journal = system.whereis("journal", Journal)
        other = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ActorDied, match="locked by another process") as caught:
            await journal.call(Journal.end, end(run, 0))
        assert isinstance(caught.value.reason, Crashed)
        assert caught.value.reason.error.endswith(JournalUnavailable.__name__)
        other.execute("ROLLBACK")
        other.close()
        await system.wait_for("journal", Journal)
        await journal.call(Journal.end, end(run, 0))


async def test_a_journal_that_is_killed_in_the_middle_of_a_commit_comes_back_and_takes_it_again(tmp_path: Path) -> None:
    url, run = new_run(tmp_path)
    async with running(url, run) as system:
        journal = system.whereis("journal", Journal)
        for number in range(3):
            waiting = asyncio.ensure_future(journal.call(Journal.end, end(run, number)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            journal.kill("by the test")
            with pytest.raises(ActorDied):
                await waiting
            await system.wait_for("journal", Journal)
            assert (await journal.call(Journal.end, end(run, number))).task == f"t/{number}"
        events = await journal.call(Journal.events)
    assert [event.reason for event in events if event.kind == "exit"] == ["killed (by the test)"] * 3


async def test_crashes_and_the_restarts_that_followed_are_in_it(tmp_path: Path) -> None:
    url, run = new_run(tmp_path)
    async with running(url, run) as system:
        journal = system.whereis("journal", Journal)
        journal.kill("by the test")
        await system.wait_for("journal", Journal)
        await journal.call(Journal.commit, [end(run, 0)])
        kinds = [(event.kind, event.child) for event in await journal.call(Journal.events)]
    assert sorted(kinds) == [("exit", "journal"), ("restart", "journal")]
