"""From exceptions to one sentence and an exit code: the only place that knows both.

::

    ConsoleError
    ├── UsageError     what was typed cannot be meant                 exit code 2
    └── Failed         it was meant, and did not work                 exit code 1
        ├── RunBusy      another living process plays this run
        ├── NotRunning   nothing answers on a control socket
        └── DemoFailed   the demo did not show what it is there to show

Errors of the floors below are sorted by :func:`judge`: what names something that does not exist, or brings data that
cannot be used, is usage; everything else is a failure. A traceback is shown only with ``PALMETTE_DEBUG=1``.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from itertools import pairwise

from palmette.console.plain import printable

OK, FAILURE, USAGE = 0, 1, 2
INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""
BROKEN_PIPE = 141


class ConsoleError(Exception):
    """Root of the above; its text is for the person at the terminal."""

    code = FAILURE


class UsageError(ConsoleError):
    """What was typed cannot be meant."""

    code = USAGE


class Failed(ConsoleError):
    """It was meant, and did not work."""


class RunBusy(Failed):
    """Another living process plays this run."""


class NotRunning(Failed):
    """Nothing answers on a control socket."""


class DemoFailed(Failed):
    """The demo ran, and did not show what it is there to show."""


def say(text: str) -> None:
    """One line of ours on standard error."""
    print(f"palmette: {printable(text).strip()}", file=sys.stderr)


def judge(error: BaseException) -> tuple[str, int]:
    """The sentence for ``error`` and the exit code."""
    from palmette.actors import ActorDied, PalmetteError, StartFailed
    from palmette.agents.errors import AgentError, MissingExtra, NoApiKey, UnknownAgent, UnknownModel
    from palmette.benchmarks import errors as benchmarks
    from palmette.machines.errors import MachineError, UnknownImage

    usage = (
        benchmarks.UnknownBenchmark,
        benchmarks.BadOption,
        benchmarks.MissingData,
        benchmarks.UnknownRecording,
        benchmarks.BadData,
        benchmarks.UnknownRun,
        benchmarks.AmbiguousRun,
        UnknownAgent,
        UnknownModel,
        UnknownImage,
    )
    match error:
        case ConsoleError():
            return str(error), error.code
        case NoApiKey() | MissingExtra():
            return str(error), FAILURE
        case ActorDied() | StartFailed():
            return told(error.reason), FAILURE
        case _ if isinstance(error, usage):
            return str(error), USAGE
        case benchmarks.BenchmarkError() | AgentError() | MachineError() | PalmetteError():
            return str(error), FAILURE
        case OSError():
            named = f"{error.filename}: " if error.filename is not None else ""
            return f"{named}{error.strerror or error}; check path and permissions", FAILURE
        case _:
            return (
                f"this is a bug in palmette: {type(error).__name__}: {error}; run it again with PALMETTE_DEBUG=1 and "
                "report the traceback",
                FAILURE,
            )


def told(reason: object) -> str:
    """Why a tree ended: the sentence of an error that was written for people, else the chain that led to the cause."""
    from palmette.actors import Crashed, root_cause
    from palmette.actors.exits import Reason
    from palmette.supervisors import why

    assert isinstance(reason, Reason)
    cause = root_cause(reason)
    if isinstance(cause, Crashed) and cause.error.startswith("palmette.") and cause.text:
        return cause.text
    return f"the run's supervisor gave up: {why(reason)}; `palmette report RUN` shows what happened before"


def _misuse(error: Exception, words: Sequence[str]) -> str:
    """The sentence for what the command line's parser complains about."""
    path = getattr(getattr(error, "ctx", None), "command_path", "palmette")
    sentence = str(getattr(error, "format_message", error.__str__)()).rstrip(".")
    options = getattr(getattr(error, "param", None), "opts", ())
    # The parser names the option and not what was given for it.
    given = [value for word, value in pairwise(words) if word in options]
    given += [word.partition("=")[2] for word in words if word.partition("=")[0] in options and "=" in word]
    value = f" (it was {given[-1]!r})" if given else ""
    return f"{sentence}{value}; `{path} --help` shows how it is written"


@contextmanager
def exit_codes(words: Sequence[str] = ()) -> Generator[None]:
    """Turn whatever leaves the block into a sentence on standard error and ``SystemExit`` with the right code.

    ``words`` are what was typed, for messages that have to name them.
    """
    import typer

    # typer carries a copy of click, older versions depend on it: this class is the same in both.
    click_error = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
    try:
        yield
    except KeyboardInterrupt:
        say("interrupted before anything was started")
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter's own flush at exit must not complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(BROKEN_PIPE) from None
    except Exception as error:  # noqa: BLE001 - the last stop: every error becomes a sentence here
        if isinstance(error, click_error):
            if words:  # without any the help has been printed
                say(_misuse(error, words))
            raise SystemExit(USAGE) from None
        if os.environ.get("PALMETTE_DEBUG", "") not in ("", "0"):
            traceback.print_exc()
        text, code = judge(error)
        say(text)
        raise SystemExit(code) from None
