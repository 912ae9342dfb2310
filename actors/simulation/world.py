"""The simulated system: the real kernel with its eyes and hands on the event log and the fault plan.

Nothing of the kernel is replaced. A :class:`SimulatedCell` writes down what it is given and lets faults strike; a
:class:`SimulatedSystem` does the same for starts, ends and dead letters.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from palmette.actors.actor import Actor
from palmette.actors.cell import Cell
from palmette.actors.cluster.placer import OwnBooks, Placer
from palmette.actors.errors import StartFailed
from palmette.actors.exits import Crashed, Killed, Reason, describe, reason_of
from palmette.actors.messages import Request
from palmette.actors.simulation.faults import Fault, InjectedFault, Injector
from palmette.actors.simulation.loop import SimulatedLoop, VirtualLoop
from palmette.actors.system import System

if TYPE_CHECKING:
    from palmette.actors.nodes import Nodes
    from palmette.actors.slot import Slot
    from palmette.actors.starting import StartOptions


class EventLog:
    """What happened, one line each, in order; the same seed writes the same bytes."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop
        self.lines: list[str] = []

    def write(self, what: str, path: str, detail: str = "") -> None:
        self.lines.append(f"{self._loop.time():.6f} {what} {path}{' ' if detail else ''}{detail}")

    def text(self) -> str:
        return "\n".join(self.lines) + "\n"


class SimulatedCell(Cell):
    """A cell that logs its messages and may be struck."""

    __slots__ = ("faults", "given")

    def request(self, request: Request) -> None:
        self._given(request.endpoint.name, "call" if request.reply is not None else "cast")
        super().request(request)

    def post(self, message: object) -> None:
        self._given(type(message).__name__, "send")
        super().post(message)

    def expect(self, faults: list[Fault]) -> None:
        """Faults for this incarnation, before its first message."""
        self.faults = faults
        self.given = 0
        for fault in faults:
            if fault.message == 0:
                self._strike(fault)

    def _given(self, name: str, how: str) -> None:
        system = self.system
        assert isinstance(system, SimulatedSystem)
        system.log.write(how, f"{self.slot.path}#{self.incarnation}", name)
        self.given += 1
        for fault in self.faults:
            if fault.message == self.given:
                self._strike(fault)

    def _strike(self, fault: Fault) -> None:
        if fault.kind in ("crash", "kill"):
            self.system.loop.call_later(fault.seconds, self._hit, fault)

    def _hit(self, fault: Fault) -> None:
        system = self.system
        assert isinstance(system, SimulatedSystem)
        if self.state == "dead":
            return
        system.log.write("fault", f"{self.slot.path}#{self.incarnation}", fault.kind)
        if fault.kind == "kill":
            self.kill(Killed("injected"))
        else:
            self.crash(injected("a crash"))


class SimulatedSystem(System):
    """See the module's text. ``System.start`` makes one when it runs on a simulated loop."""

    def __init__(self, *, name: str = "palmette", kill_grace: float = 1.0) -> None:
        super().__init__(name=name, kill_grace=kill_grace)
        loop = self.loop
        assert isinstance(loop, VirtualLoop)
        self.clock = loop.wall_time
        self.random = loop.jitter
        self.log: EventLog = loop.log
        self._injector: Injector = loop.injector
        self._faults: list[Fault] = []

    def make_nodes(self) -> Nodes:
        from palmette.actors.simulation.nodes import SimulatedNodes

        return SimulatedNodes(self)

    def make_placer(self) -> Placer:
        loop = self.loop
        assert isinstance(loop, VirtualLoop)
        return OwnBooks(lambda: loop.hosts)

    def make_cell(self, slot: Slot, parent: Cell | None, cls: type[Actor], options: StartOptions) -> Cell:
        cell = SimulatedCell(self, slot, parent, cls, options)
        cell.expect(self._faults)
        return cell

    async def start_actor(
        self,
        slot: Slot,
        parent: Cell | None,
        cls: type[Actor],
        args: tuple[object, ...],
        kwargs: dict[str, object],
        options: StartOptions,
    ) -> Cell:
        faults = self._injector.for_start(slot.path)
        for fault in faults:
            if fault.kind == "slow_start":
                self.log.write("fault", f"{slot.path}#{slot.incarnation + 1}", f"slow start by {fault.seconds:.3f} s")
                await asyncio.sleep(fault.seconds)
            elif fault.kind == "fail_start":
                slot.incarnation += 1
                self.log.write("fault", f"{slot.path}#{slot.incarnation}", "failing start")
                raise StartFailed(slot.path, injected("a failing start"))
        # Read back by make_cell, which start_actor calls before it waits for anything.
        self._faults = faults
        cell = await super().start_actor(slot, parent, cls, args, kwargs, options)
        self.log.write("started", f"{slot.path}#{slot.incarnation}", cls.__name__)
        return cell

    def record_exit(self, slot: Slot, kind: str, reason: Reason) -> None:
        self.log.write("ended", f"{slot.path}#{slot.incarnation}", describe(reason))
        super().record_exit(slot, kind, reason)

    def dead_letter(self, path: str, message: object) -> None:
        self.log.write("dead letter", path, type(message).__name__)
        super().dead_letter(path, message)


def injected(what: str) -> Crashed:
    """The reason of an injected fault."""
    reason = reason_of(InjectedFault(f"{what}, injected"))
    assert isinstance(reason, Crashed)
    return reason
