"""The journal's owner: the one actor that writes to the run store.

The store blocks, so it lives in one thread of its own; while a commit is under way further records gather, and go
into the next one together (group commit). A reply means *durable*: a process killed right after it finds the record
again. A store that fails crashes the journal with what the store said, for its supervisor to judge.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec

from palmette.actors import Actor, ExitRecord, Reason, describe, endpoint, is_graceful
from palmette.benchmarks.journal.records import (
    Committed,
    EpisodeEnded,
    EpisodeKey,
    Event,
    Record,
    Run,
    RunStatus,
    StepTrained,
)
from palmette.benchmarks.journal.restarts import Restarts, incarnation_in
from palmette.benchmarks.journal.store import JournalStore
from palmette.benchmarks.outcomes import Tally
from palmette.benchmarks.task import Turn

T = TypeVar("T")


class JournalStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """How the group commit does."""

    records: int
    commits: int
    waiting: int


class Journal(Actor):
    """The journal of one store, writing for run ``run``. What is read has in it all that was taken before."""

    def __init__(self, url: str, run: str) -> None:
        self._url = url
        self._run = run
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._store: JournalStore | None = None
        self._records: list[Record] = []
        self._next: asyncio.Future[Committed] | None = None
        """The commit that will hold what is taken now, where somebody waits for it."""
        self._committing = False
        self._restarts = Restarts()
        self._counts = {"records": 0, "commits": 0}

    async def started(self) -> None:
        self._store = await self._blocking(lambda: JournalStore(self._url))
        for record in self.system.exits:
            if record.path == self.path:
                self._saw(record)  # its own ends, which nobody delivers to it
        self.system.watch_exits(self.ref)

    async def stopping(self, reason: Reason) -> None:
        try:
            if self._store is not None:
                # A store that has just failed is not written to again: its error is the one to hear.
                if is_graceful(reason) and (self._records or self._note_restarts()):
                    await self._write()
                await self._blocking(self._store.close)
        finally:
            self._thread.shutdown(wait=False)

    async def receive(self, message: object) -> None:
        if isinstance(message, ExitRecord):
            self._saw(message)
            if self._records:
                self._commit_soon()
        else:
            await super().receive(message)

    def _saw(self, record: ExitRecord) -> None:
        for replaced in self._restarts.saw(record):
            self._note("restart", replaced)
        if not is_graceful(record.reason):
            self._note("exit", record)

    def _note_restarts(self) -> bool:
        """Note the restarts that show by now; whether there were any."""
        replaced = self._restarts.settled(incarnation_in(self.system))
        for record in replaced:
            self._note("restart", record)
        return bool(replaced)

    def _note(self, kind: str, record: ExitRecord) -> None:
        supervisor, _, child = record.path.rpartition("/")
        # A journal that restarts reads some records a second time: the same record makes the same event.
        identity = f"{self._run} {kind} {record.path}#{record.incarnation} {record.at!r}"
        self._records.append(
            Event(
                run=self._run,
                at=record.at,
                kind=kind,
                supervisor=supervisor or "/",
                child=child,
                reason=describe(record.reason),
                id=hashlib.sha256(identity.encode()).hexdigest()[:32],
            )
        )

    # --- writing -------------------------------------------------------------------------------------------------

    @endpoint
    async def commit(self, records: list[Record]) -> None:
        """Write records and return once they are durable."""
        self._records += records
        return self.answer_later(self._flushed())

    @endpoint
    async def end(self, ended: EpisodeEnded) -> EpisodeEnded:
        """Make an episode's end durable and return the one that stands: the first, if it had ended before."""
        self._records.append(ended)
        return self.answer_later(self._standing(ended))

    @endpoint
    async def append(self, record: Record) -> None:
        """Take a record that the next commit carries along; cast it."""
        self._records.append(record)

    @endpoint
    async def set_status(self, status: RunStatus) -> None:
        """The run's status, durable."""
        await self._read(lambda store: store.set_status(self._run, status))

    async def _standing(self, ended: EpisodeEnded) -> EpisodeEnded:
        committed = await self._durable()
        key = EpisodeKey(ended.task, ended.sample)
        if (ended.run, key) not in committed.duplicates:
            return ended
        store = self._opened()
        first = await self._blocking(lambda: store.episode(ended.run, key))
        assert first is not None, "what is a duplicate is there already"
        return first

    async def _flushed(self) -> None:
        await self._durable()

    async def _durable(self) -> Committed:
        """Wait for the commit that holds what was taken so far."""
        if self._next is None:
            self._next = self.system.loop.create_future()
        self._commit_soon()
        return await asyncio.shield(self._next)

    def _commit_soon(self) -> None:
        if not self._committing:
            self._committing = True
            self.start_task(self._commit())

    async def _commit(self) -> None:
        while self._records or self._next is not None:
            waiting, self._next = self._next, None
            committed = await self._write()
            if waiting is not None:
                waiting.set_result(committed)
        self._committing = False

    async def _write(self) -> Committed:
        self._note_restarts()
        store, batch = self._opened(), self._records
        self._records = []
        committed = await self._blocking(lambda: store.commit(batch))
        self._counts["records"] += len(batch)
        self._counts["commits"] += 1
        return committed

    # --- reading -------------------------------------------------------------------------------------------------

    @endpoint
    async def run(self) -> Run:
        """The run that is written to."""
        return await self._read(lambda store: store.get_run(self._run))

    @endpoint
    async def finished(self) -> list[EpisodeKey]:
        """The episodes that have ended."""
        return sorted(await self._read(lambda store: store.finished(self._run)))

    @endpoint
    async def attempts(self) -> list[tuple[EpisodeKey, int]]:
        """The number of the last attempt at each episode that was begun."""
        return sorted((await self._read(lambda store: store.attempts(self._run))).items())

    @endpoint
    async def tally(self) -> Tally:
        """How many episodes ended how."""
        return await self._read(lambda store: store.tally(self._run))

    @endpoint
    async def episodes(self) -> list[EpisodeEnded]:
        """All ends."""
        return await self._read(lambda store: store.episodes(self._run))

    @endpoint
    async def turns(self, key: EpisodeKey, attempt: int) -> list[Turn]:
        """What was said in one attempt at an episode."""
        return await self._read(lambda store: store.turns(self._run, key.task, key.sample, attempt=attempt))

    @endpoint
    async def steps(self) -> list[StepTrained]:
        """The optimiser steps so far."""
        return await self._read(lambda store: store.steps(self._run))

    @endpoint
    async def events(self) -> list[Event]:
        """What befell the tree of the run."""
        return await self._read(lambda store: store.events(self._run))

    @endpoint
    async def statistics(self) -> JournalStatistics:
        """How the group commit does."""
        return JournalStatistics(
            records=self._counts["records"], commits=self._counts["commits"], waiting=len(self._records)
        )

    def _opened(self) -> JournalStore:
        assert self._store is not None, "the journal is open between started() and stopping()"
        return self._store

    async def _read(self, work: Callable[[JournalStore], T]) -> T:
        # Two agents with one attempt number would mix their turns: a number counts as taken from its record on.
        if self._records:
            await self._durable()
        store = self._opened()
        return await self._blocking(lambda: work(store))

    async def _blocking(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
