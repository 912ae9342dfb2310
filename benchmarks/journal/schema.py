"""The journal's tables. Text that is JSON stands in ``Text`` columns: the same on SQLite and PostgreSQL, and readable
with any SQL shell. Bump :data:`VERSION` with every change that an older palmette could not read."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

VERSION = 1

metadata = MetaData()

TEXT = Text().with_variant(Text(collation="C"), "postgresql")
"""Sorted by code point, as SQLite does, and not by the rules of whatever language the server is set to."""

about = Table("palmette", metadata, Column("version", Integer, primary_key=True))
"""One row; it also tells a journal from any other database."""


def _run() -> Column[str]:
    return Column("run", TEXT, ForeignKey("runs.id"), nullable=False)


def _key() -> list[Column[str] | Column[int]]:
    return [_run(), Column("task", TEXT, nullable=False), Column("sample", Integer, nullable=False)]


runs = Table(
    "runs",
    metadata,
    Column("id", TEXT, primary_key=True),
    Column("created", Float, nullable=False),
    Column("benchmark", TEXT, nullable=False),
    Column("config", TEXT, nullable=False),
    Column("status", TEXT, nullable=False),
)

attempts = Table(
    "attempts",
    metadata,
    *_key(),
    Column("attempt", Integer, nullable=False),
    Column("at", Float, nullable=False),
    UniqueConstraint("run", "task", "sample", "attempt"),
)

turns = Table(
    "turns",
    metadata,
    *_key(),
    Column("attempt", Integer, nullable=False),
    Column("turn", Integer, nullable=False),
    Column("kept", Integer, nullable=False),  # token ids shared with the turn before; see tokens.py
    Column("body", TEXT, nullable=False),
    UniqueConstraint("run", "task", "sample", "attempt", "turn"),
)

episodes = Table(
    "episodes",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),  # the order of ending
    *_key(),
    Column("attempt", Integer, nullable=False),
    Column("kind", TEXT, nullable=False),
    Column("outcome", TEXT, nullable=False),
    Column("reward", Float),
    Column("answer", TEXT, nullable=False),
    Column("started", Float, nullable=False),
    Column("finished", Float, nullable=False),
    Column("seconds", Float, nullable=False),
    UniqueConstraint("run", "task", "sample"),  # a task ends exactly once
)

blobs = Table(
    "blobs",
    metadata,
    Column("hash", TEXT, primary_key=True),  # SHA-256, hexadecimal
    Column("data", LargeBinary, nullable=False),
)

steps = Table(
    "steps",
    metadata,
    _run(),
    Column("step", Integer, nullable=False),
    Column("at", Float, nullable=False),
    Column("metrics", TEXT, nullable=False),
    UniqueConstraint("run", "step"),
)

step_rows = Table(
    "step_rows",
    metadata,
    _run(),
    Column("step", Integer, nullable=False),
    Column("place", Integer, nullable=False),  # position in the step's batch; an episode may stand in it twice
    Column("task", TEXT, nullable=False),
    Column("sample", Integer, nullable=False),
    UniqueConstraint("run", "step", "place"),
)

events = Table(
    "events",
    metadata,
    Column("order", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("id", TEXT, nullable=False, unique=True),
    _run(),
    Column("at", Float, nullable=False),
    Column("kind", TEXT, nullable=False),
    Column("supervisor", TEXT, nullable=False),
    Column("child", TEXT, nullable=False),
    Column("reason", TEXT, nullable=False),
    Index("events_of_run", "run"),
)

leases = Table(
    "leases",
    metadata,
    Column("name", TEXT, primary_key=True),
    Column("holder", TEXT, nullable=False),
    Column("expires", Float, nullable=False),
    Column("run", TEXT),
    Column("detail", TEXT, nullable=False),
)
