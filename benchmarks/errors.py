"""What can go wrong around benchmarks and their journal, and who should catch it.

::

    BenchmarkError
    ├── UnknownBenchmark      no such name in the catalogue            usage: tell the person, exit code 2
    ├── BadOption             a benchmark does not take this option    usage
    ├── MissingData           no data directory, or a file is absent   usage
    ├── UnknownRecording      no recorded answers under this name      usage (also a KeyError)
    ├── BadData               a line of a data file cannot be used     usage; carries file and line
    ├── EvaluatorError        a verdict cannot be had                  the episode becomes ``JudgeFailed``
    └── JournalError          the run store                            whoever owns the journal
        ├── JournalFull           no room left; nothing acknowledged was lost
        ├── JournalUnavailable    locked, read-only, unreachable, not there
        ├── JournalCorrupt        not a journal, or a damaged one
        ├── UnknownRun            no run has this id
        ├── AmbiguousRun          several runs begin with this prefix
        └── LeaseHeld             another holder's lease has not expired

Suites and the store raise plain Python and driver errors inside; :func:`boundary` turns what comes out of a database
into the right leaf. Criteria of users raise whatever they like: the caller of a rubric classifies it.
"""

from __future__ import annotations

import difflib
import sqlite3
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path


class BenchmarkError(Exception):
    """Root of everything below. Its text is one sentence or two for a person: the bad value and the remedy.

    ``retryable`` tells a supervisor whether the same call may do better later.
    """

    retryable: bool = False


def choices(wanted: str, known: Iterable[str]) -> str:
    """``"did you mean 'gsm8k'? There are: …"``: the tail of a message about a name that does not exist."""
    names = sorted(known)
    near = difflib.get_close_matches(wanted.lower(), names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}There {'are' if len(names) != 1 else 'is'}: {', '.join(names) or 'none'}."


class UnknownBenchmark(BenchmarkError):
    """No benchmark has this name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"there is no benchmark {name!r}; {choices(name, known)}")
        self.name = name


class BadOption(BenchmarkError):
    """A benchmark was given an option that it does not take."""


class MissingData(BenchmarkError):
    """A benchmark's files are not where it was told to look, or it was not told where to look."""


class UnknownRecording(BenchmarkError, KeyError):
    """A data set holds no answers under this name."""

    def __init__(self, benchmark: str, field: str, known: Iterable[str]) -> None:
        super().__init__(f"{benchmark} has no recorded answers {field!r}; {choices(field, known)}")
        self.field = field

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError's own would put quotes around the sentence


class BadData(BenchmarkError):
    """A data file holds something that cannot be used."""

    def __init__(self, file: Path, line: int | None, wrong: str, remedy: str) -> None:
        """``line`` counts from 1; ``None`` where the fault is the whole file's."""
        place = str(file) if line is None else f"{file}:{line}"
        super().__init__(f"{place}: {wrong}; {remedy}")
        self.file = file
        self.line = line


class EvaluatorError(BenchmarkError):
    """A criterion cannot come to a verdict, for a reason that says nothing about the agent."""


class JournalError(BenchmarkError):
    """The run store failed."""


class JournalFull(JournalError):
    """No room for more. What was acknowledged before is on disk and readable."""


class JournalUnavailable(JournalError):
    """The store cannot be opened, read or written at the moment."""

    retryable = True


class JournalCorrupt(JournalError):
    """The file is damaged, or it is something else than a journal."""


class UnknownRun(JournalError):
    """No run has this id."""

    def __init__(self, run: str, journal: str) -> None:
        super().__init__(f"no run {run!r} in {journal}; `palmette runs` lists those that exist")
        self.run = run


class AmbiguousRun(JournalError):
    """More than one run begins with this prefix."""

    def __init__(self, prefix: str, runs: Iterable[str]) -> None:
        super().__init__(f"{prefix!r} is the beginning of several runs: {', '.join(runs)}; give more of the id")
        self.prefix = prefix


class LeaseHeld(JournalError):
    """Somebody else owns what was asked for."""

    def __init__(self, name: str, holder: str, seconds: float) -> None:
        super().__init__(
            f"{name!r} is held by {holder} for another {seconds:.0f} s; stop that process, or wait until it expires"
        )
        self.name = name
        self.holder = holder


_FULL = "free some space (or raise the quota or file-size limit) and resume: everything acknowledged is kept"
_LOCKED = "close the other process that writes to it, or give this run a journal of its own"

# https://www.sqlite.org/rescode.html, by the primary code (the low byte of an extended one).
_SQLITE: dict[int, tuple[type[JournalError], str, str]] = {
    13: (JournalFull, "the disk is full", _FULL),
    5: (JournalUnavailable, "it stayed locked by another process", _LOCKED),
    6: (JournalUnavailable, "it stayed locked by another connection", _LOCKED),
    8: (JournalUnavailable, "it is read-only", "make the file and its directory writable"),
    3: (JournalUnavailable, "access is denied", "make the file and its directory readable and writable"),
    10: (JournalUnavailable, "reading or writing it failed", "check the disk, its quota and file-size limits"),
    14: (JournalUnavailable, "it cannot be opened", "check that its directory exists and is writable"),
    11: (JournalCorrupt, "it is damaged", "restore a copy, or name another file to start afresh"),
    26: (JournalCorrupt, "it is not an SQLite database", "name another file"),
}

# https://www.postgresql.org/docs/current/errcodes-appendix.html, by class; one exact code before its class.
_SQLSTATE: dict[str, tuple[type[JournalError], str, str]] = {
    "53100": (JournalFull, "the server's disk is full", _FULL),
    "53": (JournalUnavailable, "the server has no resources left", "free some, then resume"),
    "08": (JournalUnavailable, "the connection was lost", "check that the server is up, then resume"),
    "57": (JournalUnavailable, "the server ended the statement", "check that the server is up, then resume"),
    "55": (JournalUnavailable, "it stayed locked by another connection", _LOCKED),
    "25006": (JournalUnavailable, "it is read-only", "name the primary server, and a user who may write"),
    "25": (JournalUnavailable, "the server ended the transaction", "check the load of both machines, then resume"),
    "42501": (JournalUnavailable, "access is denied", "grant the user CREATE on the schema and all on its tables"),
    "42P01": (JournalCorrupt, "a table is missing", "restore a copy, or name another database to start afresh"),
    "XX001": (JournalCorrupt, "it is damaged", "restore a copy, or name another database to start afresh"),
    "XX002": (JournalCorrupt, "it is damaged", "restore a copy, or name another database to start afresh"),
    "58": (JournalUnavailable, "reading or writing failed on the server", "check its disks, then resume"),
    "28": (JournalUnavailable, "the server refuses the login", "check user and password in the URL"),
    "3D": (JournalUnavailable, "there is no such database", "create it, or correct the URL"),
}

# What libpq itself says has no SQLSTATE: the server did not answer, or no longer does.
_UNREACHABLE: tuple[type[JournalError], str, str] = (
    JournalUnavailable,
    "the server cannot be reached",
    "check that it is up, and the host, user and password in the URL, then resume",
)

_OTHER: tuple[type[JournalError], str, str] = (JournalUnavailable, "the database failed", "see the cause for details")


def _classify(error: BaseException) -> tuple[type[JournalError], str, str]:
    if isinstance(error, sqlite3.Error):
        # Absent where Python's own sqlite3 module complains, for example about a closed connection.
        code = getattr(error, "sqlite_errorcode", None)
        return _SQLITE.get(code & 0xFF, _OTHER) if isinstance(code, int) else _OTHER
    state = getattr(error, "sqlstate", None)
    if isinstance(state, str):
        return _SQLSTATE.get(state) or _SQLSTATE.get(state[:2], _OTHER)
    # By name: the driver is an optional dependency.
    return _UNREACHABLE if type(error).__name__ == "OperationalError" else _OTHER


@contextmanager
def boundary(journal: str) -> Generator[None]:
    """Turn whatever a database or the file system raises in the block into a :class:`JournalError`.

    ``journal`` names the store in the message; it must hold no password. Errors that are not the database's pass.

    Raises:
        JournalFull, JournalUnavailable, JournalCorrupt: see the tree at the top of this module.
    """
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    try:
        yield
    except DBAPIError as error:
        cause: BaseException = error.orig if error.orig is not None else error
        kind, wrong, remedy = _classify(cause)
        raise kind(f"journal {journal}: {wrong} ({_one_line(cause)}); {remedy}") from cause
    except sqlite3.Error as error:
        kind, wrong, remedy = _classify(error)
        raise kind(f"journal {journal}: {wrong} ({_one_line(error)}); {remedy}") from error
    except SQLAlchemyError as error:
        raise JournalUnavailable(f"journal {journal}: {_one_line(error)}; check the URL") from error
    except ModuleNotFoundError as error:
        raise JournalUnavailable(
            f"journal {journal}: the database driver {error.name!r} is not installed; "
            "run `pip install 'palmette[postgres]'` for PostgreSQL, or use sqlite:///FILE"
        ) from error
    except OSError as error:
        raise JournalUnavailable(f"journal {journal}: {error.strerror or error}; check path and permissions") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
