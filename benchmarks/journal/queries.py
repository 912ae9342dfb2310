"""Reading the journal. Every function takes a connection with a transaction open: one consistent picture per call."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import cast

from sqlalchemy import Connection, Row, func, select

from palmette.benchmarks.errors import AmbiguousRun, JournalCorrupt, UnknownRun
from palmette.benchmarks.journal import schema
from palmette.benchmarks.journal.packing import references, unpack
from palmette.benchmarks.journal.records import EpisodeEnded, EpisodeKey, Event, Lease, Run, RunStatus, StepTrained
from palmette.benchmarks.journal.tokens import lengthen
from palmette.benchmarks.journal.writes import chunks
from palmette.benchmarks.outcomes import Outcome, Tally
from palmette.benchmarks.task import Turn

# A union is no `type` to a type checker, though msgspec takes it for one.
OUTCOME = cast("type[Outcome]", Outcome)


def run_named(connection: Connection, name: str, journal: str) -> Run:
    """The run whose id is ``name``, or the only one whose id begins with it.

    Raises:
        UnknownRun, AmbiguousRun
    """
    at = schema.runs.c
    if not name or not (name.isascii() and name.isprintable()):
        raise UnknownRun(name, journal)  # PostgreSQL would not even take the question
    rows = connection.execute(select(schema.runs).where(at.id == name)).all()
    if not rows:
        # Not LIKE: that ignores case on SQLite and minds it on PostgreSQL.
        found = select(schema.runs).where(func.substr(at.id, 1, len(name)) == name).order_by(at.id).limit(5)
        rows = connection.execute(found).all()
    if not rows:
        raise UnknownRun(name, journal)
    if len(rows) > 1:
        raise AmbiguousRun(name, [row.id for row in rows])
    return _run(rows[0])


def all_runs(connection: Connection) -> list[Run]:
    """Newest first."""
    at = schema.runs.c
    return [_run(row) for row in connection.execute(select(schema.runs).order_by(at.created.desc(), at.id))]


def missing_runs(connection: Connection, names: Iterable[str]) -> list[str]:
    """Which of ``names`` are the id of no run."""
    wanted = sorted(set(names))
    there = {row.id for row in connection.execute(select(schema.runs.c.id).where(schema.runs.c.id.in_(wanted)))}
    return [name for name in wanted if name not in there]


def finished(connection: Connection, run: str) -> set[EpisodeKey]:
    at = schema.episodes.c
    return {
        EpisodeKey(row.task, row.sample) for row in connection.execute(select(at.task, at.sample).where(at.run == run))
    }


def attempts(connection: Connection, run: str) -> dict[EpisodeKey, int]:
    at = schema.attempts.c
    highest = select(at.task, at.sample, func.max(at.attempt)).where(at.run == run).group_by(at.task, at.sample)
    return {EpisodeKey(task, sample): attempt for task, sample, attempt in connection.execute(highest)}


def tally(connection: Connection, run: str) -> Tally:
    at = schema.episodes.c
    count = select(at.kind, func.count(), func.sum(at.reward)).where(at.run == run).group_by(at.kind)
    counts: dict[str, int] = {}
    reward = 0.0
    for kind, number, total in connection.execute(count):
        counts[kind] = number
        reward += total or 0.0
    return Tally(**counts, reward_sum=reward)


def episodes(connection: Connection, run: str, key: EpisodeKey | None = None) -> list[EpisodeEnded]:
    """All that have ended, in the order in which they did, or the one at ``key``."""
    at = schema.episodes.c
    wanted = [at.run == run] if key is None else [at.run == run, at.task == key.task, at.sample == key.sample]
    rows = connection.execute(select(schema.episodes).where(*wanted).order_by(at.id)).all()
    blobs = _blobs(connection, (text for row in rows for text in (row.outcome, row.answer)))
    return [
        EpisodeEnded(
            run=row.run, task=row.task, sample=row.sample, attempt=row.attempt,
            outcome=unpack(row.outcome, OUTCOME, blobs),
            answer=unpack(row.answer, str, blobs) if row.answer != "null" else None,
            started=row.started, finished=row.finished, seconds=row.seconds,
        )
        for row in rows
    ]  # fmt: skip


def turns(connection: Connection, run: str, task: str, sample: int, attempt: int | None) -> list[Turn]:
    """Of ``attempt``; of the one that ended the episode if ``None``, or the latest of one that has not ended."""
    at = schema.turns.c
    if attempt is None:
        end = schema.episodes.c
        ended = select(end.attempt).where(end.run == run, end.task == task, end.sample == sample)
        latest = select(func.max(at.attempt)).where(at.run == run, at.task == task, at.sample == sample)
        attempt = connection.execute(ended).scalar()
        if attempt is None:
            attempt = connection.execute(latest).scalar()
    if attempt is None:
        return []
    mine = (at.run == run, at.task == task, at.sample == sample, at.attempt == attempt)
    rows = connection.execute(select(at.kept, at.body).where(*mine).order_by(at.turn)).all()
    blobs = _blobs(connection, (row.body for row in rows))
    return list(lengthen((unpack(row.body, Turn, blobs), row.kept) for row in rows))


def steps(connection: Connection, run: str) -> list[StepTrained]:
    at, row_at = schema.steps.c, schema.step_rows.c
    used = select(schema.step_rows).where(row_at.run == run).order_by(row_at.step, row_at.place)
    rows = {
        step: tuple(EpisodeKey(row.task, row.sample) for row in of_step)
        for step, of_step in groupby(connection.execute(used), key=lambda row: row.step)
    }
    return [
        StepTrained(
            run=run, step=row.step, at=row.at, metrics=unpack(row.metrics, dict[str, float]),
            rows=rows.get(row.step, ()),
        )
        for row in connection.execute(select(schema.steps).where(at.run == run).order_by(at.step))
    ]  # fmt: skip


def unscored_rows(connection: Connection, run: str) -> list[EpisodeKey]:
    used, end = schema.step_rows.c, schema.episodes.c
    same = (end.run == used.run) & (end.task == used.task) & (end.sample == used.sample) & (end.kind == "scored")
    joined = schema.step_rows.outerjoin(schema.episodes, same)
    lost = select(used.task, used.sample).select_from(joined).where(used.run == run, end.id.is_(None)).distinct()
    return [EpisodeKey(row.task, row.sample) for row in connection.execute(lost.order_by(used.task, used.sample))]


def events(connection: Connection, run: str) -> list[Event]:
    at = schema.events.c
    return [
        Event(
            id=row.id, run=row.run, at=row.at, kind=row.kind,
            supervisor=row.supervisor, child=row.child, reason=row.reason,
        )
        for row in connection.execute(select(schema.events).where(at.run == run).order_by(at.order))
    ]  # fmt: skip


def leases(connection: Connection, run: str | None) -> list[Lease]:
    found = select(schema.leases).order_by(schema.leases.c.name)
    if run is not None:
        found = found.where(schema.leases.c.run == run)
    return [lease(row) for row in connection.execute(found)]


def lease(row: Row[tuple[object, ...]]) -> Lease:
    """A row of the leases table as a message."""
    return Lease(name=row.name, holder=row.holder, expires=row.expires, run=row.run, detail=row.detail)


def _run(row: Row[tuple[object, ...]]) -> Run:
    config = unpack(row.config, dict[str, object])
    status: RunStatus = row.status
    return Run(id=row.id, created=row.created, benchmark=row.benchmark, config=config, status=status)


def _blobs(connection: Connection, texts: Iterable[str]) -> dict[str, bytes]:
    wanted = references(texts)
    found: dict[str, bytes] = {}
    for chunk in chunks(wanted):
        rows = connection.execute(select(schema.blobs).where(schema.blobs.c.hash.in_(chunk)))
        found.update({row.hash: row.data for row in rows})
    if len(found) < len(wanted):
        raise JournalCorrupt(f"{len(wanted) - len(found)} texts of this run are missing; restore a copy of the journal")
    return found
