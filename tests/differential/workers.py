"""What our side's workers share while a schedule runs: the trace, and which of their starts are to be refused."""

from __future__ import annotations

import asyncio
from collections import Counter

from differential.coverage import Coverage
from differential.schedules import End, OnStop, Refusal, Schedule

from palmette.actors import Actor, Decline, Reason, endpoint
from palmette.actors import Shutdown as ShutdownReason


class ToldTo(RuntimeError):
    """What a child crashes with, at its start or later."""


class World:
    """See the module's text. One per run of a schedule."""

    def __init__(self, schedule: Schedule, coverage: Coverage) -> None:
        self.trace: list[str] = []
        self.starts: Counter[str] = Counter()
        self.refusals: dict[str, tuple[int, Refusal]] = {one.name: (one.times, one.how) for one in schedule.refusals}
        self.lots: dict[str, tuple[str, str]] = {}
        """Strategy and restart type by child, for the coverage."""
        self.coverage = coverage
        self.ordered: tuple[str, str] | None = None
        """The child that the order under way starts, and the order's kind."""
        self.gate: tuple[str, Refusal] | None = None
        self.gated = asyncio.Event()
        self.opened = asyncio.Event()

    def starting(self, name: str) -> Refusal | None:
        """Write down that ``name`` starts, or refuses to, and how."""
        self.starts[name] += 1
        refusal: Refusal | None = None
        if self.gate is not None and self.gate[0] == name:
            refusal = self.gate[1]
        elif (planned := self.refusals.get(name)) is not None and planned[0]:
            refusal = planned[1]
            self.refusals[name] = (planned[0] - 1, refusal)
        self.trace.append(f"{refusal or 'start'} {name}#{self.starts[name]}")
        return refusal

    def declined(self, name: str, *, at_first: bool) -> None:
        """Count it."""
        when = "at first" if at_first else "restart"
        if self.ordered is not None and self.ordered[0] == name:
            when = "restart_child" if self.ordered[1] == "restart_child" else "start_child"
        self.coverage[("decline", *self.lots.get(name, ("?", "?")), when)] += 1


class TracedWorker(Actor):
    """A child that fails to start, ends, and takes orders to stop as the schedule says."""

    def __init__(self, world: World, on_stop: OnStop) -> None:
        self._world = world
        self._on_stop: OnStop = on_stop
        self._ends_by_itself = False

    async def started(self) -> None:
        world, name = self._world, self.path.rpartition("/")[2]
        refusal = world.starting(name)
        if refusal is None:
            return
        self._ends_by_itself = True
        if world.gate is not None and world.gate[0] == name:
            world.gate = None
            world.gated.set()
            await world.opened.wait()
        if refusal == "decline":
            parent = self._cell.parent
            world.declined(name, at_first=parent is not None and parent.state == "starting")
            raise Decline("a start that declines")
        raise ToldTo("a failing start")

    @endpoint
    async def end(self, reason: End) -> None:
        self._ends_by_itself = True
        match reason:
            case "normal":
                self.stop()
            case "shutdown":
                self.stop(ShutdownReason())
            case "shutdown_x":
                self.stop(ShutdownReason("x"))
            case "crash":
                raise ToldTo("a crash")
            case "kill":
                self.ref.kill()


class HookedWorker(TracedWorker):
    """One that does something when it is told to stop; not when it ends by itself, as in the reference."""

    async def stopping(self, reason: Reason) -> None:
        if self._ends_by_itself:
            return
        if self._on_stop == "stubborn":
            await asyncio.Event().wait()
        if self._on_stop == "crash":
            raise ToldTo("a crash while stopping")
