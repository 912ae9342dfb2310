"""The run store: what was asked, how each episode ended, every turn, every training step, every restart.

:class:`JournalStore` is a blocking class for one thread; records are plain messages. SQLAlchemy is imported with the
first use of the store, not with this package.
"""

from typing import TYPE_CHECKING

from palmette.benchmarks.journal.records import (
    AttemptStarted,
    Committed,
    EpisodeEnded,
    EpisodeKey,
    Event,
    Lease,
    Record,
    Run,
    RunStatus,
    StepTrained,
    TurnSaid,
)

if TYPE_CHECKING:
    from palmette.benchmarks.journal.store import JournalStore

__all__ = [
    "AttemptStarted",
    "Committed",
    "EpisodeEnded",
    "EpisodeKey",
    "Event",
    "JournalStore",
    "Lease",
    "Record",
    "Run",
    "RunStatus",
    "StepTrained",
    "TurnSaid",
]


def __getattr__(name: str) -> object:
    if name == "JournalStore":
        from palmette.benchmarks.journal.store import JournalStore

        return JournalStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
