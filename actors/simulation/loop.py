"""An event loop on virtual time, whose scheduling is a function of a seed.

Time passes only when nothing can run: the loop then jumps to the next timer. Which of several runnable tasks goes first
is drawn from a seeded generator, one step at a time, so that a thousand seeds are a thousand interleavings; plain
callbacks keep their order, which asyncio promises. Work for threads runs at once, on the loop, and so in the same place
every time. There is no input and no output. Simulated nodes have loops of their own, which are parts of this one
(:mod:`palmette.actors.simulation.node_loop`).
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import itertools
import random
from asyncio import tasks as _tasks
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from palmette.actors.errors import PalmetteError
from palmette.actors.heartbeat import Pulse

if TYPE_CHECKING:
    from palmette.actors.cluster.placer import Hosts
    from palmette.actors.simulation.faults import Injector
    from palmette.actors.simulation.node_loop import NodeLoop
    from palmette.actors.simulation.world import EventLog
    from palmette.actors.system import System

# This file stands in for the inside of asyncio's base loop, which is typed as private or not at all.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportAttributeAccessIssue=false, reportPrivateUsage=false

T = TypeVar("T")

START = 1_000_000_000.0
"""What the wall clock shows at the beginning of a simulation (September 2001), in Unix seconds."""


COLLECT = 200_000
"""Steps between two garbage collections."""
QUIET = 60.0
"""Virtual seconds without anything but heartbeats, after which the loop looks whether there will be anything else."""


class _Quietly:
    """Whether the present code runs because of a heartbeat alone; ``context`` is for what is to count as such."""

    def __init__(self) -> None:
        self._flag: ContextVar[bool] = ContextVar("palmette_simulated_heartbeat", default=False)
        self.context = Context()
        self.context.run(self._flag.set, True)

    def __call__(self) -> bool:
        return self._flag.get()

    def marks(self, handle: Any) -> bool:
        """Whether ``handle`` would."""
        return handle._context.get(self._flag, False)


quietly = _Quietly()


class Stuck(PalmetteError):
    """Nothing can run and no timer is set: what still waits would wait for ever."""


class RanAway(PalmetteError):
    """The simulation took more steps, or more virtual time, than it was allowed."""


class _NoSelector:
    """There is nothing to select from."""

    def select(self, timeout: float | None) -> list[object]:
        return []

    def close(self) -> None:
        """Nothing is open."""


class _Timer(asyncio.TimerHandle):
    """Timers of the same time go off in the order in which they were set, and not in that of a heap."""

    __slots__ = ("_order",)

    _count = itertools.count()

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._order = next(self._count)

    def __lt__(self, other: Any) -> bool:
        return (self._when, self._order) < (other._when, other._order)


class VirtualLoop(asyncio.BaseEventLoop):
    """What the loops of a simulation have in common: the world's own, and those of simulated nodes."""

    system_class: type[System]
    """What ``System.start`` makes on this loop. Set, like the next three, by whoever runs the simulation."""
    hosts: Hosts
    """The hosts that children can be placed on, by name."""
    log: EventLog
    injector: Injector
    seed: int

    jitter: random.Random
    """For systems, apart from the schedule's draws."""

    if TYPE_CHECKING:
        _ready: deque[Any]
        _scheduled: list[Any]

    def wall_time(self) -> float:
        """Unix seconds on the virtual clock."""
        return START + self.time()

    def run_handle(self, handle: Any) -> None:
        """Run one handle of this loop."""
        handle._run()

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> asyncio.TimerHandle:
        if isinstance(getattr(callback, "__self__", None), Pulse):
            context = quietly.context  # and all that comes of it, to the other side and back
        self._check_closed()
        timer: Any = _Timer(when, callback, args, self, context)  # pyright: ignore[reportArgumentType]
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True
        return timer

    # --- what asyncio's base loop leaves open ---------------------------------------------------------------------

    def _process_events(self, event_list: object) -> None:
        """None come."""

    def _write_to_self(self) -> None:
        """Nobody else is there to be woken from."""

    def run_in_executor(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Run ``func`` here and now; its result is there one step later."""
        future: asyncio.Future[T] = self.create_future()
        try:
            value = func(*args)
        except Exception as error:  # noqa: BLE001 - it belongs to whoever awaits the future
            self.call_soon(_fail, future, error)
        else:
            self.call_soon(_succeed, future, value)
        return future


class SimulatedLoop(VirtualLoop):
    """See the module's text."""

    def __init__(self, seed: int, *, max_steps: int = 5_000_000, max_seconds: float = 7 * 86400.0) -> None:
        super().__init__()
        self.seed = seed
        self.random = random.Random(f"schedule/{seed}")
        self.jitter = random.Random(f"jitter/{seed}")
        self.steps = 0
        self.nodes: dict[int, NodeLoop] = {}
        """The loops of living nodes, by process id."""
        self.dead: list[NodeLoop] = []
        """Those of dead ones, with all that they held: nothing of it may run, not even as it is collected."""
        self._pids = 1000
        self._now = 0.0
        self._max_steps = max_steps
        self._max_seconds = max_seconds
        self._quiet_until = QUIET
        self._selector = _NoSelector()
        self.set_task_factory(python_task)  # pyright: ignore[reportArgumentType]

    def time(self) -> float:
        return self._now

    def next_pid(self) -> int:
        """The process id of the next node."""
        self._pids += 1
        return self._pids

    def _run_once(self) -> None:
        """One handle. (asyncio's own takes all that are ready.)"""
        scheduled = self._scheduled
        while scheduled and scheduled[0]._cancelled:
            self._drop(heapq.heappop(scheduled))
        if not self._ready:
            if not scheduled:
                raise Stuck(f"at {self._now:g} s nothing can run and no timer is set; what waits, waits for ever")
            self._now = max(self._now, scheduled[0]._when)
            if self._now > self._max_seconds:
                raise RanAway(f"{self._max_seconds:g} s of virtual time have passed")
        while scheduled and scheduled[0]._when <= self._now:
            handle = heapq.heappop(scheduled)
            if handle._cancelled:
                self._drop(handle)
            else:
                handle._scheduled = False
                self._ready.append(handle)
        self.steps += 1
        if self.steps % COLLECT == 0:
            gc.collect()
        if self.steps > self._max_steps:
            raise RanAway(f"{self._max_steps} steps were taken by {self._now:g} s of virtual time")
        handle = self._choose()
        if handle._cancelled:
            return
        if self.nodes:
            self._look_for_life(handle)
        handle._loop.run_handle(handle)

    def _look_for_life(self, handle: Any) -> None:
        """Notice when heartbeats are all that goes on: they would for ever."""
        if not quietly.marks(handle):
            self._quiet_until = self._now + QUIET
        elif self._now >= self._quiet_until:
            ahead = [timer._when for timer in self._scheduled if not (timer._cancelled or quietly.marks(timer))]
            if not ahead and all(map(quietly.marks, self._ready)):
                raise Stuck(f"at {self._now:g} s nodes do nothing but show that they are there, and no timer is set")
            self._quiet_until = min(ahead, default=self._now) + QUIET

    def _drop(self, handle: Any) -> None:
        handle._scheduled = False
        self._timer_cancelled_count = max(0, getattr(self, "_timer_cancelled_count", 0) - 1)

    def _choose(self) -> Any:
        """The next handle: drawn from the tasks at the head of the queue, up to the first plain callback."""
        ready = self._ready
        candidates = 0
        for handle in ready:
            if not _is_task_step(handle):
                break
            candidates += 1
        index = self.random.randrange(candidates) if candidates > 1 else 0
        if index == 0:
            return ready.popleft()
        handle = ready[index]
        del ready[index]
        return handle


def python_task(
    loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, T], context: Context | None = None, **kwargs: Any
) -> asyncio.Task[T]:
    """A task whose steps the loop can tell from other callbacks."""
    # The C implementation hides whose step a handle is; the Python one is the same task in the open.
    return _tasks._PyTask(coro, loop=loop, context=context, **kwargs)


def _is_task_step(handle: Any) -> bool:
    return isinstance(getattr(handle._callback, "__self__", None), _tasks._PyTask)


def _succeed(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: asyncio.Future[T], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
