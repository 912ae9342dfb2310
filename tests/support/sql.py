"""Asking a journal's database past palmette."""

from __future__ import annotations

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from palmette.benchmarks.journal.connection import parse


def sql(url: str, statement: str) -> list[tuple[object, ...]]:
    """Execute ``statement`` in a connection and a transaction of its own, and give the rows there are."""
    engine = create_engine(parse(url), poolclass=NullPool)
    with engine.begin() as connection:
        result = connection.exec_driver_sql(statement)
        rows = [tuple(row) for row in result] if result.returns_rows else []
    engine.dispose()
    return rows
