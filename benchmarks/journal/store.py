"""The journal's store: one blocking object with one database connection, for one thread.

    store = JournalStore("sqlite:///runs.db")
    run = store.create_run("gsm8k", {"agent": "reference"})
    store.commit([EpisodeEnded(run=run.id, task="gsm8k/0", …)])   # durable when it returns
    store.finished(run.id)                                        # {EpisodeKey("gsm8k/0", 0)}

A commit that returned is on the disk. One that raised may be repeated, in the same store once the cause is gone or in a
new one: it left nothing behind, or all of it, where a server was lost between committing and saying so. Many records in
one commit cost one flush to the disk: collect them.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection, delete, insert, select, update

from palmette.benchmarks.errors import JournalError, LeaseHeld, UnknownRun, boundary
from palmette.benchmarks.journal import queries, schema
from palmette.benchmarks.journal.connection import begin, connect, parse, shown
from palmette.benchmarks.journal.packing import pack
from palmette.benchmarks.journal.records import (
    Committed,
    EpisodeEnded,
    EpisodeKey,
    Event,
    Lease,
    Record,
    Run,
    RunStatus,
    StepTrained,
)
from palmette.benchmarks.journal.tokens import Chains
from palmette.benchmarks.journal.writes import write
from palmette.benchmarks.outcomes import Tally
from palmette.benchmarks.task import Turn

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class JournalStore:
    """See the module's text. Every method may raise :class:`JournalFull`, :class:`JournalUnavailable` or
    :class:`JournalCorrupt`; what it raises besides is stated with it."""

    def __init__(self, url: str, *, create: bool = True) -> None:
        """Open the journal at ``url``: ``sqlite:///FILE``, a plain path, or ``postgresql://…``.

        Without ``create`` a journal that is not there yet is an error: for those who only read.
        """
        parsed = parse(url)
        self.name = shown(parsed) if "://" in url else url
        """The URL without its password, for messages."""
        self._chains = Chains()
        self._known: set[str] = set()
        self._closed = False
        with boundary(self.name):
            self._connection = connect(parsed, create=create)

    def create_run(self, benchmark: str, config: Mapping[str, object], *, run_id: str | None = None) -> Run:
        """Enter a new run with status ``running``. ``config`` must be JSON and hold no secret.

        Raises:
            ValueError: ``run_id`` is no plain name of at most 64 characters, or it is taken.
        """
        name = secrets.token_hex(6) if run_id is None else run_id
        if not _RUN_ID.fullmatch(name):
            raise ValueError(f"a run's id is up to 64 letters, digits, dashes and underscores, got {name!r}")
        run = Run(id=name, created=time.time(), benchmark=benchmark, config=dict(config), status="running")
        row = {"id": name, "created": run.created, "benchmark": benchmark, "status": run.status}
        row["config"] = pack(run.config)
        with self._writing() as connection:
            if not queries.missing_runs(connection, [name]):
                raise ValueError(f"there is a run {name!r} already; leave run_id out to be given a fresh one")
            connection.execute(insert(schema.runs), [row])
        self._known.add(name)
        return run

    def get_run(self, name: str) -> Run:
        """The run with this id, or the only one whose id begins with ``name``.

        Raises:
            UnknownRun, AmbiguousRun
        """
        with self._reading() as connection:
            return queries.run_named(connection, name, self.name)

    def list_runs(self) -> list[Run]:
        """All runs, the newest first."""
        with self._reading() as connection:
            return queries.all_runs(connection)

    def set_status(self, run: str, status: RunStatus) -> None:
        """Enter how a run stands. Raises UnknownRun."""
        with self._writing() as connection:
            result = connection.execute(update(schema.runs).where(schema.runs.c.id == run).values(status=status))
            if result.rowcount == 0:
                raise UnknownRun(run, self.name)

    def commit(self, batch: Sequence[Record]) -> Committed:
        """Write all of ``batch`` or, on an error, none of it (or all, if only a server's answer was lost). Records that
        are there already are left as they are.

        Raises:
            UnknownRun: a record belongs to a run that was never created.
        """
        strangers = {record.run for record in batch} - self._known
        with self._writing() as connection:
            for name in queries.missing_runs(connection, strangers) if strangers else ():
                raise UnknownRun(name, self.name)
            committed, links = write(connection, batch, self._chains)
        # Only now: a batch that was rolled back must leave no trace in memory either.
        self._known |= strangers
        self._chains.update(links.items())
        return committed

    def finished(self, run: str) -> set[EpisodeKey]:
        """The episodes that have ended, in whatever way: `resume` runs the others."""
        with self._reading() as connection:
            return queries.finished(connection, run)

    def attempts(self, run: str) -> dict[EpisodeKey, int]:
        """The highest attempt that was started on each episode."""
        with self._reading() as connection:
            return queries.attempts(connection, run)

    def tally(self, run: str) -> Tally:
        """How many episodes ended how."""
        with self._reading() as connection:
            return queries.tally(connection, run)

    def episodes(self, run: str) -> list[EpisodeEnded]:
        """In the order in which they ended."""
        with self._reading() as connection:
            return queries.episodes(connection, run)

    def episode(self, run: str, key: EpisodeKey) -> EpisodeEnded | None:
        """How one episode ended, if it has."""
        with self._reading() as connection:
            return next(iter(queries.episodes(connection, run, key)), None)

    def turns(self, run: str, task: str, sample: int, *, attempt: int | None = None) -> list[Turn]:
        """The transcript of an attempt, in order; by default of the one that ended the episode, or the latest."""
        with self._reading() as connection:
            return queries.turns(connection, run, task, sample, attempt)

    def steps(self, run: str) -> list[StepTrained]:
        """Training steps, in order."""
        with self._reading() as connection:
            return queries.steps(connection, run)

    def unscored_rows(self, run: str) -> list[EpisodeKey]:
        """Episodes that a training step used although they did not end ``Scored``: an honest run has none."""
        with self._reading() as connection:
            return queries.unscored_rows(connection, run)

    def events(self, run: str) -> list[Event]:
        """Restarts and the like, in the order in which they were committed."""
        with self._reading() as connection:
            return queries.events(connection, run)

    def acquire_lease(
        self,
        name: str,
        *,
        holder: str,
        seconds: float,
        run: str | None = None,
        detail: str = "",
        now: float | None = None,
    ) -> Lease:
        """Take or renew the lease ``name`` for ``seconds`` from ``now`` (the clock's time by default).

        A lease that another holder let lapse is taken over.

        Raises:
            LeaseHeld: another holder's has not expired.
        """
        moment = time.time() if now is None else now
        taken = Lease(name=name, holder=holder, expires=moment + seconds, run=run, detail=detail)
        row = {"name": name, "holder": holder, "expires": taken.expires, "run": run, "detail": detail}
        mine = schema.leases.c.name == name
        with self._writing() as connection:
            there = connection.execute(select(schema.leases).where(mine).with_for_update()).first()
            if there is not None:
                held = queries.lease(there)
                if held.holder != holder and held.expires > moment:
                    raise LeaseHeld(name, held.holder, held.expires - moment)
                connection.execute(delete(schema.leases).where(mine))
            connection.execute(insert(schema.leases), [row])
        return taken

    def release_lease(self, name: str, *, holder: str) -> bool:
        """Give a lease back; whether it was ``holder``'s to give."""
        with self._writing() as connection:
            mine = (schema.leases.c.name == name, schema.leases.c.holder == holder)
            return connection.execute(delete(schema.leases).where(*mine)).rowcount > 0

    def leases(self, *, run: str | None = None) -> list[Lease]:
        """All leases, lapsed ones too, or those of one run."""
        with self._reading() as connection:
            return queries.leases(connection, run)

    def close(self) -> None:
        """Close the connection. Closing twice is fine; everything else raises :class:`JournalError` afterwards."""
        if not self._closed:
            self._closed = True
            with boundary(self.name):
                self._connection.close()
                self._connection.engine.dispose()

    def __enter__(self) -> JournalStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _reading(self) -> Generator[Connection]:
        yield from self._transaction(writes=False)

    @contextmanager
    def _writing(self) -> Generator[Connection]:
        yield from self._transaction(writes=True)

    def _transaction(self, *, writes: bool) -> Generator[Connection]:
        if self._closed:
            raise JournalError(f"journal {self.name} is closed; open a new JournalStore")
        with boundary(self.name), begin(self._connection, writes=writes):
            yield self._connection
