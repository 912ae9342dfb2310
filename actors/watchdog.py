"""A thread that notices when one actor's code holds up the event loop, and says whose, in what, and on which line.

An event loop runs one thing at a time: a handler that computes or waits without ``await`` stops every actor of the
process, its own supervisor included, and nothing on the loop is left to complain. So the watchdog stands outside. A few
times per threshold it asks the loop to turn once, and looks at the loop's stack; where the same handler stands there
with no turn in between, for longer than the threshold, it warns, once. When the loop turns again that is told too, and
recorded (``system.blocked``, ``system.statistics().blocked``, ``palmette why``).

Nothing is written down for it while messages are handled: what it needs, it reads from the stack. Code that does not
even let go of the interpreter (a long step in C) keeps this thread from running as well; it is found out right after,
by the processor time that the loop's thread has used meanwhile.

Not watched are simulations, where time is not real, and process nodes, which are where blocking code belongs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate, chain, repeat, starmap
from operator import itemgetter
from time import monotonic  # as it was at import: a simulation sets the clocks
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Final, NamedTuple

from palmette.actors import ending, starting, state
from palmette.actors.actor import Actor
from palmette.actors.background import Background
from palmette.actors.cell import Cell
from palmette.actors.introspection import BlockRecord
from palmette.actors.messages import Request
from palmette.actors.slot import CURRENT

if TYPE_CHECKING:
    from palmette.actors.system import System

# It reads the kernel's own stack.
# pyright: reportPrivateUsage=false

log = logging.getLogger("palmette")

DEPTH: Final = 1000
"""Frames of a stack that are looked at, from the innermost."""
LOOKS: Final = 5
"""Looks per threshold: a block is noticed at most a fifth late."""


class Sight(NamedTuple):
    """What the loop's thread was seen doing."""

    cell: Cell
    step: tuple[int, int]
    """Tells one message from the next."""
    doing: str
    where: str


class Suspicion:
    """Something that stands where it stood, and since when."""

    __slots__ = ("reported", "sight", "since")

    def __init__(self, sight: Sight, since: float) -> None:
        self.sight = sight
        self.since = since
        self.reported = False


class Judge:
    """Decides from one look to the next whether somebody blocks the loop. Knows no clock of its own."""

    def __init__(self, seconds: float, now: float, used: float) -> None:
        self.seconds = seconds
        self.interval = seconds / LOOKS
        self._suspicion: Suspicion | None = None
        self._before = now, used

    def look(self, see: Callable[[], Sight | None], now: float, used: float, *, turned: bool) -> Suspicion | None:
        """What is to be reported at ``now``. ``see`` looks at the stack, and is called only where that matters.

        ``used`` is the processor time that the loop's thread has used so far, ``turned`` whether the loop has turned
        since the look before.
        """
        before, used_before = self._before
        self._before = now, used
        # Where we were kept from looking, by code that worked all the while (the process was not asleep), it is what
        # stands there now: we come in as soon as it lets go.
        kept = now - before - self.interval > self.seconds and used - used_before > self.seconds / 2
        if turned and not kept:
            self._suspicion = None
            return None
        suspicion = None if turned else self._suspicion
        sight = see()
        if sight is None:
            suspicion = None
        elif suspicion is None and not kept:
            suspicion = Suspicion(sight, max(before, now - self.interval))  # the loop has not turned since
        elif suspicion is None or (suspicion.sight.cell, suspicion.sight.step) != (sight.cell, sight.step):
            suspicion = Suspicion(sight, before if kept else now)
        self._suspicion = suspicion
        if suspicion is None or suspicion.reported or now - suspicion.since < self.seconds:
            return None
        suspicion.reported = True
        return suspicion


class Watchdog:
    """See the module's text. Watches the loop of the thread that makes it, until it is closed."""

    def __init__(self, system: System, seconds: float) -> None:
        self._system = system
        self._watched = threading.get_ident()
        clock: Callable[[int], int] | None = getattr(time, "pthread_getcpuclockid", None)  # not on every system
        self._processor_clock = None if clock is None else clock(self._watched)
        self._has_turned = True
        self._reported: Suspicion | None = None
        self._judge = Judge(seconds, monotonic(), self._processor_time())
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="palmette-watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Watch no more."""
        self._closed.set()
        self._thread.join(timeout=1.0)
        self._turn()

    # --- in the watchdog's thread ------------------------------------------------------------------------------------

    def _watch(self) -> None:
        judge, loop = self._judge, self._system.loop
        while not loop.is_closed():
            turned = self._has_turned
            suspicion = judge.look(self._see, monotonic(), self._processor_time(), turned=turned)
            if suspicion is not None:
                self._report(suspicion)
            if turned:
                self._has_turned = False  # nobody else writes while no turn is asked for
                try:
                    loop.call_soon_threadsafe(self._turn)
                except RuntimeError:
                    return  # it was closed under us
            if self._closed.wait(judge.interval):
                return

    def _see(self) -> Sight | None:
        return _look(_stack(self._watched))

    def _report(self, suspicion: Suspicion) -> None:
        self._reported = suspicion
        sight = suspicion.sight
        log.warning(
            "%s (%s) has blocked the event loop for %.2g s in %s, and nothing else runs: %s. Give blocking work to "
            'asyncio.to_thread, or the actor isolation="process".',
            sight.cell.slot.path,
            sight.cell.kind,
            monotonic() - suspicion.since,
            sight.doing,
            sight.where,
        )

    def _processor_time(self) -> float:
        """Seconds of it that the loop's thread has used."""
        return 0.0 if self._processor_clock is None else time.clock_gettime(self._processor_clock)

    # --- on the loop -----------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """The loop turns."""
        self._has_turned = True
        suspicion, self._reported = self._reported, None
        if suspicion is None:
            return
        sight = suspicion.sight
        record = BlockRecord(
            at=self._system.clock(),
            path=sight.cell.slot.path,
            kind=sight.cell.kind,
            incarnation=sight.cell.incarnation,
            doing=sight.doing,
            where=sight.where,
            seconds=monotonic() - suspicion.since,
        )
        log.warning("%s blocked the event loop for %.2g s in %s", record.path, record.seconds, record.doing)
        self._system.record_block(record)


def watch(system: System, seconds: float | None, *, simulated: bool) -> Watchdog | None:
    """Watch ``system``'s loop, unless ``seconds`` is None or time is not real. Raises ValueError, there too."""
    if seconds is not None and not seconds > 0:
        raise ValueError(f"blocked_after is more than 0 seconds, or None to watch nothing; got {seconds}")
    return None if seconds is None or simulated else Watchdog(system, seconds)


# --- reading a stack -------------------------------------------------------------------------------------------------


def _handler(local: Mapping[str, object]) -> tuple[object, str]:
    message = local.get("message")
    doing = message.endpoint.name if isinstance(message, Request) else f"receive({type(message).__name__})"
    return local["self"], doing


def _task(local: Mapping[str, object]) -> tuple[object, str]:
    background, tag = local["self"], local.get("tag")
    cell: object = getattr(background, "_cell", None)
    return cell, "a task of its own" if tag is None else f"its task {tag!r}"


def _callback(local: Mapping[str, object]) -> tuple[object, str]:
    # Whatever else runs in an actor's context: its timers, tasks that it made without start_task. (Not with uvloop.)
    context = getattr(local.get("self"), "_context", None)
    return None if context is None else context.get(CURRENT), "a callback or task of its own"


def _hook(name: str) -> Callable[[Mapping[str, object]], tuple[object, str]]:
    def tell(local: Mapping[str, object]) -> tuple[object, str]:
        actor = local.get("actor")
        return (actor._cell if isinstance(actor, Actor) else local.get("cell", local.get("self"))), name

    return tell


_TELLING: Final[dict[CodeType, Callable[[Mapping[str, object]], tuple[object, str]]]] = {
    function.__code__: tell
    for function, tell in (
        (Cell._work, _handler),
        (Cell.run, _hook("continued()")),
        (starting._begin, _hook("__init__()")),
        (starting._first_run, _hook("started()")),
        (ending._outcome, _hook("stopping()")),
        (ending.terminate, _hook("its end")),
        (state.replace, _hook("a function given to replace_state")),
        (Background._run, _task),
        (asyncio.Handle._run, _callback),
    )
}
"""The kernel's functions that call actors' code, and how to tell from their variables whose."""


def _stack(thread: int) -> Sequence[FrameType]:
    """The stack of another thread, the innermost frame first.

    In one step that never lets that thread run: all of it happens in C, between two instructions of this thread. Frames
    of coroutines must not be asked for what is behind them once they are suspended (CPython 3.11 follows a pointer into
    nothing then), and a thread that is switched out in the middle of a walk would do just that.
    """
    frames: deque[FrameType | None] = deque()
    # The first is looked up when the walk begins: itemgetter(thread)(sys._current_frames()).
    first = map(itemgetter(thread), starmap(sys._current_frames, [()]))
    with suppress(KeyError, AttributeError):  # the thread has ended; the walk has come to its end, which is None
        frames.extend(accumulate(chain(first, repeat("f_back", DEPTH)), getattr))
    return [frame for frame in frames if frame is not None]


def _look(stack: Sequence[FrameType]) -> Sight | None:
    """Whose code a stack is in."""
    called: FrameType | None = None
    for frame in stack:
        tell = _TELLING.get(frame.f_code)
        if tell is not None:
            cell, doing = tell(frame.f_locals)
            if not isinstance(cell, Cell):
                return None
            innermost = stack[0]
            where = _line(innermost) if called in (None, innermost) else f"{_line(called)} → {_line(innermost)}"
            return Sight(cell, (cell.handled, id(cell.current)), doing, where)
        called = frame
    return None


def _line(frame: FrameType) -> str:
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno} in {frame.f_code.co_name}"
