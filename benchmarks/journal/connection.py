"""Opening the database behind a journal, SQLite in WAL mode or PostgreSQL by URL, and its transactions.

SQLite runs with ``synchronous=FULL``: in WAL mode a commit that returned has been flushed to the disk, so that it
outlives a crash of the machine, not only of the process (https://www.sqlite.org/pragma.html#pragma_synchronous).
PostgreSQL runs with ``synchronous_commit=on`` whatever the server's default is, which means the same.

Both keep one rule: one writer at a time, and a reader sees the journal as it was when its transaction began. SQLite
has that by nature; on PostgreSQL a writer takes an advisory lock of the database first, so that looking up what is
there and then inserting what is not cannot race, and a reader is ``REPEATABLE READ, READ ONLY``.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import URL, Connection, Engine, RootTransaction, create_engine, event, inspect, make_url, select
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from palmette.benchmarks.errors import JournalCorrupt, JournalUnavailable
from palmette.benchmarks.journal import schema

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

LOCK_SECONDS = 10
"""How long a statement waits for another process's transaction before the journal counts as unavailable."""

STATEMENT_SECONDS = 60
"""The longest a statement may take on a PostgreSQL server, and the longest a transaction may lie idle there."""

_WRITES = "palmette_writes"
"""Execution option of a connection whose next transaction will write."""

_WRITER_LOCK = 0x70616C6D65747465
"""Key of the advisory lock that a writer holds on PostgreSQL: ``palmette`` in ASCII."""

# Any scheme of theirs means the one driver that is supported; libpq itself takes the first two.
_POSTGRESQL = ("postgresql", "postgres", "postgresql+psycopg")

# Parameters of libpq that hold a secret: https://www.postgresql.org/docs/current/libpq-connect.html
_SECRETS = ("password", "sslpassword", "oauth_client_secret")


def parse(url: str) -> URL:
    """``url`` as SQLAlchemy has it; a plain path means SQLite, ``postgresql://`` means the psycopg driver.

    Raises:
        JournalUnavailable: neither SQLite nor PostgreSQL, or no URL at all.
    """
    if "://" not in url:
        return URL.create("sqlite", database=url)
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # The text may hold a password: neither it nor the cause is repeated.
        raise JournalUnavailable(
            "the journal's URL cannot be read; give sqlite:///FILE or postgresql://HOST/DB"
        ) from None
    if parsed.drivername in _POSTGRESQL:
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise JournalUnavailable(
            f"a journal cannot live at {shown(parsed)}; give sqlite:///FILE or postgresql://HOST/DATABASE"
        )
    return parsed


def shown(url: URL) -> str:
    """``url`` for people, who may copy it: without passwords, which libpq finds in PGPASSWORD or its password file."""
    if url.drivername in _POSTGRESQL:
        url = url.set(drivername="postgresql")
    # Not set(password=None), which means "as it is".
    return url._replace(password=None).difference_update_query(_SECRETS).render_as_string()


def connect(url: URL, *, create: bool) -> Connection:
    """Open the database, and make the tables in an empty one if ``create``.

    Raises:
        JournalUnavailable: there is none and ``create`` is false, or WAL mode cannot be had.
        JournalCorrupt: the database is something else, or of a newer palmette.
        SQLAlchemyError: everything else; see :func:`palmette.benchmarks.errors.boundary`.
    """
    is_sqlite = url.get_backend_name() == "sqlite"
    if is_sqlite and url.database and url.database != ":memory:" and not create and not Path(url.database).is_file():
        raise JournalUnavailable(f"there is no journal {url.database}; start a run first, or name the right file")
    engine = _engine(url, is_sqlite=is_sqlite)
    connection = engine.connect()
    try:
        there = _is_journal(connection, shown(url), create=create)
        if is_sqlite:
            _use_write_ahead_log(connection)  # not before: a foreign database is left as it was
        if not there:
            _make_tables(connection)
    except BaseException:
        connection.close()
        engine.dispose()
        raise
    return connection


def begin(connection: Connection, *, writes: bool) -> RootTransaction:
    """Begin a transaction, a writer's or a reader's. A connection that was lost is made anew."""
    if connection.dialect.name == "postgresql":
        # A writer sees what others committed before it had the lock, hence not REPEATABLE READ.
        level = "READ COMMITTED" if writes else "REPEATABLE READ"
        connection.execution_options(isolation_level=level, postgresql_readonly=not writes)
    connection.execution_options(**{_WRITES: writes})
    return connection.begin()


def _engine(url: URL, *, is_sqlite: bool) -> Engine:
    if not is_sqlite:
        # What it would warn of is raised as well, and a warning would write across the live view.
        logging.getLogger("psycopg").setLevel(logging.ERROR)
        engine = create_engine(_with_deadlines(url), poolclass=NullPool, hide_parameters=True)
        event.listen(engine, "connect", _check_encoding)
        event.listen(engine, "begin", _begin_postgresql)
        return engine
    # The store is one thread's, but not always the thread that closes it.
    arguments = {"timeout": LOCK_SECONDS, "check_same_thread": False}
    engine = create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=arguments)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _with_deadlines(url: URL) -> URL:
    """``url`` with what palmette needs of a session; what the person wrote stands, and its options come last."""
    session = {
        "synchronous_commit": "on",
        "statement_timeout": f"{STATEMENT_SECONDS}s",
        "idle_in_transaction_session_timeout": f"{STATEMENT_SECONDS}s",
        "lock_timeout": f"{round(1000 * LOCK_SECONDS)}ms",
    }
    given = url.query.get("options", "")
    options = [f"-c {name}={value}" for name, value in session.items()]
    options += [given] if isinstance(given, str) else given
    network = {
        "connect_timeout": str(max(2, LOCK_SECONDS)),
        "keepalives_idle": "10",
        "keepalives_interval": "5",
        "keepalives_count": "3",
        "tcp_user_timeout": f"{1000 * STATEMENT_SECONDS}",
        "application_name": "palmette",
        "client_encoding": "utf8",
    }
    return url.set(query={**network, **url.query, "options": " ".join(options)})


def _check_encoding(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("SHOW server_encoding")
    row = cursor.fetchone()
    cursor.close()
    connection.rollback()
    if row is None or row[0] != "UTF8":
        raise JournalUnavailable(
            f"the database has encoding {row and row[0]}, which cannot hold every text; "
            "make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )


def _begin_postgresql(connection: Connection) -> None:
    if connection.get_execution_options().get(_WRITES, False):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITER_LOCK})")


def _prepare_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    # Python's sqlite3 would begin transactions behind SQLAlchemy's back, and never with IMMEDIATE.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes the lock at once: one that starts as a reader cannot wait for it, it fails when it is taken.
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _use_write_ahead_log(connection: Connection) -> None:
    # Past SQLAlchemy: it would begin a transaction first, and the mode cannot change inside one.
    cursor = connection.connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    mode = cursor.fetchone()
    cursor.close()
    if mode is None or mode[0] not in ("wal", "memory"):
        raise JournalUnavailable(
            f"SQLite has no write-ahead log there (it offers mode {mode and mode[0]}); put the journal on a local disk"
        )


def _is_journal(connection: Connection, name: str, *, create: bool) -> bool:
    """Whether the tables are there; ``False`` for an empty database."""
    with begin(connection, writes=False):
        tables = inspect(connection).get_table_names()
    if not tables:
        if not create:
            raise JournalUnavailable(f"{name} holds no journal yet; start a run first, or name the right one")
        return False
    if schema.about.name not in tables:
        raise JournalCorrupt(f"{name} is a database, but no journal of palmette; name another one")
    with begin(connection, writes=False):
        version = connection.execute(select(schema.about.c.version)).scalar()
    if version != schema.VERSION:
        raise JournalCorrupt(
            f"{name} has format {version}, this palmette knows {schema.VERSION}; "
            "use the palmette that wrote it, or name another journal"
        )
    return True


def _make_tables(connection: Connection) -> None:
    with begin(connection, writes=True):
        schema.metadata.create_all(connection)  # only what is missing: somebody else may have come first
        if connection.execute(select(schema.about.c.version)).first() is None:
            connection.execute(schema.about.insert().values(version=schema.VERSION))
