"""Why an actor ended, as plain data that crosses processes.

::

    Reason
    ├── Normal        it had nothing left to do                       graceful
    ├── Shutdown      it was asked to end, or its work is complete    graceful
    ├── Declined      it did not want to start                        graceful
    ├── Killed        it was ended without a say
    ├── Crashed       its code raised
    ├── MaxRestarts   a supervisor spent its restart budget; ``cause`` is the last straw
    ├── Unreachable   the node it lived on was lost
    └── NoProcess     there was nothing at that address

Reasons replace pickled exceptions: a crash carries the exception's type name, its text and its traceback as text,
whether it said ``retryable``, and a ``cause`` where it named one. Code that wants to branch on a reason matches these
classes.

>>> is_graceful(Shutdown("completed"))
True
>>> describe(reason_of(ValueError("step must be >= 0")))
'ValueError: step must be >= 0'
"""

from __future__ import annotations

import asyncio
import traceback
from typing import Final

import msgspec


class Normal(msgspec.Struct, frozen=True, tag="normal"):
    """Nothing left to do."""


class Shutdown(msgspec.Struct, frozen=True, tag="shutdown"):
    """Asked to end, or complete."""

    detail: str = ""


class Declined(msgspec.Struct, frozen=True, tag="declined"):
    """It did not want to start: its ``started`` raised ``Decline``. OTP's ``ignore``."""

    detail: str = ""


class Killed(msgspec.Struct, frozen=True, tag="killed"):
    """Ended without a say: cancelled past its shutdown time, or its process died without a word."""

    detail: str = ""


class Crashed(msgspec.Struct, frozen=True, tag="crashed"):
    """The actor's code raised."""

    error: str
    """The exception class, as ``module.QualifiedName``."""
    text: str
    traceback: str = ""
    retryable: bool = False
    """The exception's own word that trying again may help (its ``retryable`` attribute)."""
    retry_after: float | None = None
    """Seconds that the failing side asked us to wait, where it did."""
    cause: str = ""
    """One word for what lies behind it, where the exception knows one (its ``cause`` attribute), for those who count or
    branch: ``"out_of_memory"``."""


class Unreachable(msgspec.Struct, frozen=True, tag="unreachable"):
    """The node was lost; whether the actor still runs there is not known."""

    node: str
    detail: str = ""


class NoProcess(msgspec.Struct, frozen=True, tag="noprocess"):
    """Nothing lives at that address (any more)."""

    address: str


class MaxRestarts(msgspec.Struct, frozen=True, tag="max_restarts"):
    """A supervisor gave up. Abnormal for its parent, unlike OTP's ``shutdown`` (DESIGN §5, difference 2)."""

    child: str
    cause: Reason
    restarts: int
    """Restarts within ``seconds`` before the last straw: all of the supervisor's, as the budget is shared."""
    seconds: float
    """The window; 0 where a rule said ``escalate`` and nothing was counted."""


Reason = Normal | Shutdown | Declined | Killed | Crashed | MaxRestarts | Unreachable | NoProcess


_GRACEFUL: Final = (Normal, Shutdown, Declined)  # a tuple: the union would be built anew at every end


def is_graceful(reason: Reason) -> bool:
    """Whether ``reason`` is one that a transient child is not restarted for: Normal or Shutdown (or Declined)."""
    return isinstance(reason, _GRACEFUL)


def root_cause(reason: Reason) -> Reason:
    """The reason at the bottom of a chain of spent restart budgets."""
    while isinstance(reason, MaxRestarts):
        reason = reason.cause
    return reason


def describe(reason: Reason) -> str:
    """One line for people."""
    match reason:
        case Normal():
            return "normal"
        case Shutdown(detail):
            return f"shutdown ({detail})" if detail else "shutdown"
        case Declined(detail):
            return f"declined to start ({detail})" if detail else "declined to start"
        case Killed(detail):
            return f"killed ({detail})" if detail else "killed"
        case Crashed(error=name, text=text):
            return f"{name.rpartition('.')[2]}: {text}" if text else name.rpartition(".")[2]
        case MaxRestarts(child=child, cause=cause, restarts=restarts, seconds=seconds):
            if not seconds:
                return f"{child!r} escalated: {describe(cause)}"
            return f"{child!r} was restarted {restarts} times within {seconds:g} s; last: {describe(cause)}"
        case Unreachable(node, detail):
            return f"node {node} is unreachable" + (f" ({detail})" if detail else "")
        case NoProcess(address):
            return f"no process at {address}"


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001 - an exception that cannot say its text is still an exit reason
        return f"(no text: {type(error).__name__}.__str__ raised {type(failure).__name__})"


def reason_of(error: BaseException) -> Reason:
    """Classify an exception that left an actor's code.

    ``SystemExit`` and ``KeyboardInterrupt`` are crashes like any other: one actor's ``sys.exit()`` must not end the
    program behind its supervisors' backs.
    """
    if isinstance(error, asyncio.CancelledError):
        return Killed("cancelled")
    after = getattr(error, "retry_after", None)
    cause = getattr(error, "cause", None)
    return Crashed(
        error=f"{type(error).__module__}.{type(error).__qualname__}",
        text=_text_of(error),
        traceback="".join(traceback.format_exception(error, limit=-12)),
        retryable=bool(getattr(error, "retryable", False)),
        retry_after=float(after) if isinstance(after, int | float) else None,
        cause=cause if isinstance(cause, str) else "",
    )
