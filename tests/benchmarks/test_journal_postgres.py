"""What only a server can do to a journal: die, fill up, be misconfigured, keep somebody waiting."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from support.postgres_server import PASSWORD, PostgresServer
from test_journal_faults import check, ended, fill, small_file_system, writer

from palmette.benchmarks.errors import JournalError, JournalFull, JournalUnavailable
from palmette.benchmarks.journal import AttemptStarted, EpisodeKey, JournalStore, connection

_LOCKED = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'palmette'"
_FLUSHED = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = 'palmette'"


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_server_killed_under_a_writer_has_all_that_it_acknowledged(mortal_postgres: PostgresServer) -> None:
    with JournalStore(mortal_postgres.url()) as store:
        run = store.create_run("trail", {}).id
    with writer(mortal_postgres.url(), run) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(20)]
        mortal_postgres.kill()  # in the midst of a later commit
        *more, error = process.stdout.read().splitlines()
        assert process.wait(20) == 0
    assert error.startswith("JournalUnavailable journal postgresql://palmette@")
    assert PASSWORD not in error
    mortal_postgres.start()
    check(mortal_postgres.url(), run, int([*lines, *more][-1].split()[2]))


def test_a_server_killed_between_the_commit_and_its_answer_is_told_again_and_counts_once(
    mortal_postgres: PostgresServer,
) -> None:
    with JournalStore(mortal_postgres.url()) as store, ThreadPoolExecutor(1) as thread:
        run = store.create_run("trail", {}).id
        # A commit is flushed, and then waits for a standby that does not exist: it is there, and nobody knows.
        mortal_postgres.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        mortal_postgres.execute("SELECT pg_reload_conf()")
        until(lambda: mortal_postgres.execute("SHOW synchronous_standby_names") == [("nobody",)])
        batch = [ended(run, 0), ended(run, 1)]
        commit = thread.submit(store.commit, batch)
        until(lambda: mortal_postgres.execute(_FLUSHED) == [(1,)])
        mortal_postgres.kill()
        with pytest.raises(JournalUnavailable, match="the server cannot be reached") as caught:
            commit.result(20)
        assert caught.value.retryable
        with pytest.raises(JournalUnavailable):  # and it stays so while there is none
            store.commit(batch)
        mortal_postgres.start(synchronous_standby_names="")
        here = tuple((run, EpisodeKey(f"t/{number}", 0)) for number in range(2))
        told = store.commit([*batch, ended(run, 2)])  # the same store: it connects anew
        assert (told.duplicates, told.ended) == (here, ((run, EpisodeKey("t/2", 0)),))
    check(mortal_postgres.url(), run, 3)


def test_a_server_killed_before_the_commit_has_none_of_it(mortal_postgres: PostgresServer) -> None:
    with JournalStore(mortal_postgres.url()) as store, ThreadPoolExecutor(1) as thread:
        run = store.create_run("trail", {}).id
        store.commit([ended(run, 0)])
        batch = [AttemptStarted(run=run, task="t/1", sample=0, attempt=0, at=1.0), ended(run, 1)]
        # The attempt is written, the end is not: somebody lets nobody write to that table.
        with psycopg.connect(mortal_postgres.url()) as other:
            other.execute("LOCK TABLE episodes IN SHARE MODE")
            commit = thread.submit(store.commit, batch)
            until(lambda: mortal_postgres.execute(_LOCKED) == [(1,)])
            mortal_postgres.kill()
            with pytest.raises(JournalUnavailable):
                commit.result(20)
            other.close()
        mortal_postgres.start()
        assert (store.attempts(run), store.finished(run)) == ({}, {EpisodeKey("t/0", 0)})
        assert store.commit(batch).records == 2


def test_a_writer_that_does_not_let_go_is_named_and_readers_are_not_kept_out(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres_server.new_schema()
    monkeypatch.setattr(connection, "LOCK_SECONDS", 0.05)
    with JournalStore(url) as store:
        run = store.create_run("trail", {}).id
        with psycopg.connect(url) as other:
            other.execute("SELECT pg_advisory_xact_lock(%s)", [0x70616C6D65747465])
            with pytest.raises(JournalUnavailable, match=r"locked by another connection .* a journal of its own"):
                store.commit([ended(run, 0)])
            assert store.finished(run) == set()
        other.close()
        assert store.commit([ended(run, 0)]).ended == ((run, EpisodeKey("t/0", 0)),)


def test_a_reader_sees_one_moment_while_others_write(postgres_server: PostgresServer) -> None:
    url = postgres_server.new_schema()
    with JournalStore(url) as store, JournalStore(url) as other:
        run = store.create_run("trail", {}).id
        with store._reading() as reading:  # pyright: ignore[reportPrivateUsage]
            count = "SELECT count(*) FROM episodes"
            before = reading.exec_driver_sql(count).scalar()
            other.commit([ended(run, 0)])
            assert (before, reading.exec_driver_sql(count).scalar()) == (0, 0)
        assert store.tally(run).requested == 1


def test_durability_is_not_left_to_the_server_and_what_the_url_asks_for_is_kept(
    postgres_server: PostgresServer,
) -> None:
    url = postgres_server.new_database()
    name = url.partition("?")[0].rpartition("/")[2]
    postgres_server.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    asked = {"work_mem": "-c work_mem=5MB", "statement_timeout": "-c statement_timeout=7s"}
    url += "&options=" + " ".join(asked.values()).replace("=", "%3D").replace(" ", "%20") + "&application_name=mine"
    expected = {
        "synchronous_commit": "on", "fsync": "on", "work_mem": "5MB", "statement_timeout": "7s",
        "idle_in_transaction_session_timeout": "1min", "application_name": "mine", "client_encoding": "UTF8",
    }  # fmt: skip
    with JournalStore(url) as store, store._reading() as reading:  # pyright: ignore[reportPrivateUsage]
        assert {name: reading.exec_driver_sql(f"SHOW {name}").scalar() for name in expected} == expected


def test_a_database_that_cannot_hold_every_text_is_refused_at_once(postgres_server: PostgresServer) -> None:
    url = postgres_server.new_database("ENCODING 'SQL_ASCII' TEMPLATE template0")
    with pytest.raises(JournalUnavailable, match=r"has encoding SQL_ASCII.* ENCODING 'UTF8'"):
        JournalStore(url)


def test_names_are_sorted_alike_whatever_the_language_of_the_server(postgres_server: PostgresServer) -> None:
    url = postgres_server.new_database("LOCALE_PROVIDER icu ICU_LOCALE 'en' TEMPLATE template0")
    with JournalStore(url) as store:
        for name in ("b", "B", "a", "A"):
            store.create_run("trail", {}, run_id=f"x{name}")
        with pytest.raises(JournalError, match="several runs: xA, xB, xa, xb;"):
            store.get_run("x")


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_every_way_to_write_the_scheme_is_understood(postgres_server: PostgresServer, scheme: str) -> None:
    url = postgres_server.new_schema()
    with JournalStore(url.replace("postgresql", scheme, 1)) as store:
        assert store.list_runs() == []
        assert store.name.startswith("postgresql://palmette@/postgres?")


def test_what_is_wrong_with_a_url_is_said_without_the_password(postgres_server: PostgresServer) -> None:
    good = postgres_server.url()
    for bad, wrong in {
        good.replace(PASSWORD, "mistyped-secret"): "password authentication failed",
        f"{good.replace(f':{PASSWORD}@', '@')}&password=mistyped-secret": "password authentication failed",
        good.replace("/postgres?", "/nowhere?"): '"nowhere" does not exist',
        good + "-not": "No such file or directory",
        f"{good}&nonsense=1": "nonsense",
    }.items():
        with pytest.raises(JournalUnavailable, match=wrong) as caught:
            JournalStore(bad)
        told = f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"
        assert PASSWORD not in told
        assert "mistyped" not in told


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with small_file_system(Path("/tmp") / f"palmette-disk-{tmp_path.name}", "12m") as place:
        yield place


def test_a_full_server_is_named_and_loses_nothing_and_work_goes_on_once_there_is_room(
    mortal_postgres: PostgresServer, small_disk: Path
) -> None:
    mortal_postgres.adopt(small_disk)
    mortal_postgres.execute(f"CREATE TABLESPACE small LOCATION '{small_disk}'")
    url = mortal_postgres.new_database("TABLESPACE small") + "&options=-c%20work_mem%3D64MB"  # sorting needs room too
    with JournalStore(url) as store:
        run = store.create_run("trail", {}).id
        ballast = small_disk / "ballast"
        ballast.write_bytes(b"x" * 2_000_000)
        acknowledged, error = fill(store, run, size=300)
        assert isinstance(error, JournalFull)
        assert "the server's disk is full" in str(error)
        assert store.tally(run).scored == acknowledged
        ballast.unlink()
        more, _ = fill(store, run, acknowledged, size=300)
        assert more > acknowledged
    check(url, run, more)
