"""What was acknowledged survives a full disk, a killed writer, a lock and damage, and the error says which it was."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.sql import sql

from palmette.benchmarks import Scored
from palmette.benchmarks.errors import JournalCorrupt, JournalFull, JournalUnavailable
from palmette.benchmarks.journal import EpisodeEnded, EpisodeKey, JournalStore, connection

WRITER = Path(__file__).with_name("journal_writer.py")


def ended(run: str, number: int) -> EpisodeEnded:
    return EpisodeEnded(
        run=run, task=f"t/{number}", sample=0, attempt=0, outcome=Scored(reward=1.0), answer=f"{number} " * 300,
        started=1.0, finished=2.0, seconds=1.0,
    )  # fmt: skip


def fill(store: JournalStore, run: str, start: int = 0, *, size: int = 1) -> tuple[int, Exception]:
    """Commit batches of ``size`` until it fails; how many episodes were acknowledged, and the error."""
    for number in range(start, 100_000, size):
        try:
            store.commit([ended(run, one) for one in range(number, number + size)])
        except (JournalFull, JournalUnavailable) as error:
            return number, error
    raise AssertionError("the disk never became full")


def check(url: str, run: str, acknowledged: int) -> None:
    """Everything acknowledged is there, once and whole, and what is there beyond it continues the count."""
    with JournalStore(url, create=False) as store:
        episodes = store.episodes(run)
        assert sorted(int(episode.task[2:]) for episode in episodes) == list(range(len(episodes)))
        assert len(episodes) >= acknowledged
        assert all(episode.answer == ended(run, int(episode.task[2:])).answer for episode in episodes)
    if "postgresql" not in url:
        assert sql(url, "PRAGMA integrity_check") == [("ok",)]


def writer(url: str, run: str, *more: str) -> subprocess.Popen[str]:
    """A process that commits until something ends it."""
    environment = {**os.environ, "PALMETTE_JOURNAL": url}
    command = [sys.executable, str(WRITER), run, *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


@contextmanager
def small_file_system(place: Path, size: str) -> Generator[Path]:
    """A file system of ``size`` at ``place``, which is made for it and removed afterwards."""
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)],
        capture_output=True, check=False, timeout=30,
    ) if os.geteuid() == 0 else None  # fmt: skip
    try:
        if mounted is None or mounted.returncode != 0:
            pytest.skip("mounting a small file system needs root")
        try:
            yield place
        finally:
            subprocess.run(["umount", "--lazy", str(place)], check=True, timeout=30)
    finally:
        place.rmdir()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB."""
    with small_file_system(tmp_path / "disk", "400k") as place:
        yield place


def test_a_full_disk_is_named_and_loses_nothing_and_work_goes_on_once_there_is_room(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 120_000)
    store = JournalStore(str(small_disk / "runs.db"))
    run = store.create_run("trail", {}).id
    acknowledged, error = fill(store, run)
    assert isinstance(error, JournalFull)
    assert "the disk is full" in str(error)
    assert "free some space" in str(error)
    assert store.tally(run).scored == acknowledged > 10
    ballast.unlink()
    more, _ = fill(store, run, acknowledged)
    assert more > acknowledged
    store.close()
    check(f"{small_disk}/runs.db", run, more)


def test_a_database_that_may_not_grow_is_full(tmp_path: Path) -> None:
    store = JournalStore(f"{tmp_path}/runs.db")
    run = store.create_run("trail", {}).id
    store._connection.connection.execute("PRAGMA max_page_count=60")  # pyright: ignore
    acknowledged, error = fill(store, run)
    assert isinstance(error, JournalFull)
    store.close()
    check(f"{tmp_path}/runs.db", run, acknowledged)


def test_a_limit_on_file_size_is_an_error_that_loses_nothing(tmp_path: Path) -> None:
    file = tmp_path / "runs.db"
    with JournalStore(str(file)) as store:
        run = store.create_run("trail", {}).id
    with writer(str(file), run, "300000") as process:
        *batches, error = process.communicate(timeout=60)[0].splitlines()
    assert error.startswith("JournalUnavailable journal ")
    assert "file-size limits" in error
    assert len(batches) > 5
    check(str(file), run, int(batches[-1].split()[2]))


@pytest.mark.parametrize("batches", [1, 30, 90])
def test_a_writer_killed_between_any_two_steps_loses_nothing_that_it_acknowledged(
    journal_url: str, batches: int
) -> None:
    with JournalStore(journal_url) as store:
        run = store.create_run("trail", {}).id
    with writer(journal_url, run) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(batches)]
        process.kill()  # it is somewhere in a later commit by now
        lines += [line for line in process.stdout if line.endswith("\n")]
    acknowledged = int(lines[-1].split()[2])
    assert acknowledged >= batches
    check(journal_url, run, acknowledged)
    with JournalStore(journal_url) as store:  # the dead one's lock is no obstacle
        assert store.commit([ended(run, 100_000)]).records == 1


def test_a_lock_that_is_not_given_back_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LOCK_SECONDS", 0.05)
    with JournalStore(f"{tmp_path}/runs.db") as store:
        run = store.create_run("trail", {}).id
        other = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalUnavailable, match=r"locked by another process .* a journal of its own") as caught:
            store.commit([ended(run, 0)])
        assert caught.value.retryable
        assert store.finished(run) == set()  # readers are not kept out
        other.execute("ROLLBACK")
        other.close()
        assert store.commit([ended(run, 0)]).ended == ((run, EpisodeKey("t/0", 0)),)


def test_a_batch_that_was_rolled_back_leaves_no_trace_in_the_store(tmp_path: Path) -> None:
    with JournalStore(f"{tmp_path}/runs.db") as store:
        run = store.create_run("trail", {}).id
        store._connection.connection.execute("PRAGMA query_only=1")  # pyright: ignore
        with pytest.raises(JournalUnavailable, match="it is read-only"):
            store.commit([ended(run, 0), ended(run, 1)])
        store._connection.connection.execute("PRAGMA query_only=0")  # pyright: ignore
        assert store.finished(run) == set()
        assert store.commit([ended(run, 0), ended(run, 1)]).records == 2


def test_a_directory_that_is_not_there_and_a_file_that_is_something_else_are_named(tmp_path: Path) -> None:
    with pytest.raises(JournalUnavailable, match=r"it cannot be opened .* check that its directory exists"):
        JournalStore(f"{tmp_path}/none/runs.db")
    (tmp_path / "notes.txt").write_text("no database, but long enough to have a header of 16 bytes" * 20)
    with pytest.raises(JournalCorrupt, match="not an SQLite database"):
        JournalStore(f"{tmp_path}/notes.txt")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "runs.db"
    with JournalStore(str(file)) as store:
        run = store.create_run("trail", {}).id
        store.commit([ended(run, number) for number in range(200)])
    whole = bytearray(file.read_bytes())
    for page in range(2, len(whole) // 4096):
        whole[page * 4096 : page * 4096 + 100] = os.urandom(100)
    file.write_bytes(whole)
    with pytest.raises(JournalCorrupt, match="damaged"), JournalStore(str(file)) as store:
        store.episodes(run)
