"""Deadlines travel with calls: what an actor does on behalf of a caller may not outlast the caller's patience.

``with deadline(5.0):`` bounds every call made inside to 5 seconds from now, or less where an outer deadline is
tighter. Inside an endpoint the caller's own deadline is already in force. All times are those of the running event
loop, so they hold on a virtual clock too.

An actor whose work on a request is cut short by *that request's* deadline does not crash: nobody waits any more, and an
impatient caller must not end a server. A deadline that the actor set itself is its own affair, and crashes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

DEFAULT_CALL_SECONDS = 60.0
"""For a call that nothing else bounds. OTP's 5 s is short for callees that talk to models."""

_DEADLINE: ContextVar[float | None] = ContextVar("palmette_deadline", default=None)

get_deadline = _DEADLINE.get
set_deadline = _DEADLINE.set


@contextmanager
def deadline(seconds: float) -> Generator[None]:
    """Bound the calls made in this block to ``seconds`` from now."""
    if not seconds >= 0:
        raise ValueError(f"a deadline lies ahead: seconds must be >= 0, got {seconds}")
    mine = asyncio.get_running_loop().time() + seconds
    outer = _DEADLINE.get()
    token = _DEADLINE.set(mine if outer is None else min(mine, outer))
    try:
        yield
    finally:
        _DEADLINE.reset(token)


def time_left() -> float | None:
    """Seconds until the deadline in force, at least 0; ``None`` where there is none."""
    at = _DEADLINE.get()
    return None if at is None else max(0.0, at - asyncio.get_running_loop().time())
