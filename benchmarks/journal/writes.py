"""Writing a batch of records inside one transaction.

What is there already is looked up first and left out, rather than left to the database's own conflict clauses: the
same code serves every database, and the journal has one owner. Should two owners race on PostgreSQL all the same, a
unique constraint stops the second and its whole batch is rolled back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from sqlalchemy import Column, Connection, delete, insert, select, tuple_

from palmette.benchmarks.journal import schema
from palmette.benchmarks.journal.packing import pack
from palmette.benchmarks.journal.records import (
    AttemptStarted,
    Committed,
    EpisodeEnded,
    EpisodeKey,
    Event,
    Record,
    StepTrained,
    TurnSaid,
)
from palmette.benchmarks.journal.tokens import AttemptKey, Chains, Link, shorten
from palmette.benchmarks.outcomes import Scored, kind

Cell = str | int | float | bytes | None
Links = dict[AttemptKey, Link | None]
T = TypeVar("T")

CHUNK = 500
"""Keys per look-up: a statement's parameters are limited (32,766 on SQLite)."""


def write(connection: Connection, batch: Sequence[Record], chains: Chains) -> tuple[Committed, Links]:
    """Write ``batch``; once the transaction is committed the links are to be handed to ``chains.update``."""
    blobs: dict[str, bytes] = {}
    attempts = _attempts(connection, [record for record in batch if isinstance(record, AttemptStarted)])
    said = [record for record in batch if isinstance(record, TurnSaid)]
    turns, links = _turns(connection, said, chains, blobs)
    ended_now = [record for record in batch if isinstance(record, EpisodeEnded)]
    episodes, ended, duplicates = _episodes(connection, ended_now, blobs, links)
    events = _events(connection, [record for record in batch if isinstance(record, Event)])
    _insert_blobs(connection, blobs)
    steps = _steps(connection, [record for record in batch if isinstance(record, StepTrained)])
    written = attempts + turns + episodes + events + steps
    return Committed(records=written, ended=tuple(ended), duplicates=tuple(duplicates)), links


def chunks(items: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """``items`` in lists of at most ``size``."""
    chunk: list[T] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _there(
    connection: Connection, columns: Sequence[Column[str] | Column[int]], keys: Iterable[tuple[Cell, ...]]
) -> set[tuple[Cell, ...]]:
    """Which of ``keys`` stand in ``columns`` already."""
    found: set[tuple[Cell, ...]] = set()
    for chunk in chunks(dict.fromkeys(keys)):
        found.update(tuple(row) for row in connection.execute(select(*columns).where(tuple_(*columns).in_(chunk))))
    return found


def _attempts(connection: Connection, records: Sequence[AttemptStarted]) -> int:
    at = schema.attempts.c
    fresh = {(record.run, record.task, record.sample, record.attempt): record.at for record in reversed(records)}
    there = _there(connection, [at.run, at.task, at.sample, at.attempt], fresh)
    rows: list[Mapping[str, Cell]] = [
        {"run": key[0], "task": key[1], "sample": key[2], "attempt": key[3], "at": when}
        for key, when in fresh.items()
        if key not in there
    ]
    if rows:
        connection.execute(insert(schema.attempts), rows)
    return len(rows)


def _turns(
    connection: Connection, records: Sequence[TurnSaid], chains: Chains, blobs: dict[str, bytes]
) -> tuple[int, Links]:
    at = schema.turns.c
    keys = [(record.run, record.task, record.sample, record.attempt, record.turn.index) for record in records]
    there = _there(connection, [at.run, at.task, at.sample, at.attempt, at.turn], keys)
    links: Links = {}
    rows: list[Mapping[str, Cell]] = []
    for key, record in zip(keys, records, strict=True):
        attempt = AttemptKey(*key[:4])
        if key in there:
            # What is stored may differ from what was sent again: the next turn must not lean on this one.
            links[attempt] = None
            continue
        there.add(key)
        before = links[attempt] if attempt in links else chains.get(attempt)
        turn, kept, links[attempt] = shorten(record.turn, before)
        rows.append(
            {
                "run": record.run, "task": record.task, "sample": record.sample, "attempt": record.attempt,
                "turn": turn.index, "kept": kept, "body": pack(turn, blobs),
            }
        )  # fmt: skip
    if rows:
        connection.execute(insert(schema.turns), rows)
    return len(rows), links


def _episodes(
    connection: Connection, records: Sequence[EpisodeEnded], blobs: dict[str, bytes], links: Links
) -> tuple[int, list[tuple[str, EpisodeKey]], list[tuple[str, EpisodeKey]]]:
    at = schema.episodes.c
    keys = [(record.run, record.task, record.sample) for record in records]
    there = _there(connection, [at.run, at.task, at.sample], keys)
    rows: list[Mapping[str, Cell]] = []
    ended: list[tuple[str, EpisodeKey]] = []
    duplicates: list[tuple[str, EpisodeKey]] = []
    for key, record in zip(keys, records, strict=True):
        links[AttemptKey(*key, record.attempt)] = None
        named = (record.run, EpisodeKey(record.task, record.sample))
        if key in there:
            duplicates.append(named)
            continue
        there.add(key)
        ended.append(named)
        rows.append(
            {
                "run": record.run, "task": record.task, "sample": record.sample, "attempt": record.attempt,
                "kind": kind(record.outcome), "outcome": pack(record.outcome, blobs),
                "reward": record.outcome.reward if isinstance(record.outcome, Scored) else None,
                "answer": pack(record.answer, blobs),
                "started": record.started, "finished": record.finished, "seconds": record.seconds,
            }
        )  # fmt: skip
    if rows:
        connection.execute(insert(schema.episodes), rows)
    return len(rows), ended, duplicates


def _events(connection: Connection, records: Sequence[Event]) -> int:
    fresh: dict[str, Event] = {}
    for record in records:
        fresh.setdefault(record.id, record)
    there = _there(connection, [schema.events.c.id], [(key,) for key in fresh])
    rows: list[Mapping[str, Cell]] = [
        {
            "id": record.id, "run": record.run, "at": record.at, "kind": _plain(record.kind),
            "supervisor": _plain(record.supervisor), "child": _plain(record.child), "reason": _plain(record.reason),
        }
        for record in fresh.values()
        if (record.id,) not in there
    ]  # fmt: skip
    if rows:
        connection.execute(insert(schema.events), rows)
    return len(rows)


def _plain(text: str) -> str:
    """``text`` as every database takes it: a crash may carry any characters."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def _insert_blobs(connection: Connection, blobs: Mapping[str, bytes]) -> None:
    there = _there(connection, [schema.blobs.c.hash], [(digest,) for digest in blobs])
    rows: list[Mapping[str, Cell]] = [
        {"hash": digest, "data": data} for digest, data in blobs.items() if (digest,) not in there
    ]
    if rows:
        connection.execute(insert(schema.blobs), rows)


def _steps(connection: Connection, records: Sequence[StepTrained]) -> int:
    latest = {(record.run, record.step): record for record in records}
    for record in latest.values():
        for table in (schema.steps, schema.step_rows):
            connection.execute(delete(table).where(table.c.run == record.run, table.c.step == record.step))
        step: Mapping[str, Cell] = {
            "run": record.run, "step": record.step, "at": record.at, "metrics": pack(record.metrics),
        }  # fmt: skip
        connection.execute(insert(schema.steps), [step])
        rows: list[Mapping[str, Cell]] = [
            {"run": record.run, "step": record.step, "place": place, "task": key.task, "sample": key.sample}
            for place, key in enumerate(record.rows)
        ]
        if rows:
            connection.execute(insert(schema.step_rows), rows)
    return len(latest)
