"""A child that lives in a process of its own: what its supervisor sees, and handles, as the child."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from palmette.actors.errors import StartFailed
from palmette.actors.exits import Killed, Reason, Unreachable, is_graceful
from palmette.actors.link import Link
from palmette.actors.messages import ChildExit
from palmette.actors.proxy import Direct

if TYPE_CHECKING:
    from palmette.actors.cell import Cell
    from palmette.actors.cluster.books import Placed
    from palmette.actors.cluster.placer import Placer
    from palmette.actors.node_process import NodeProcess
    from palmette.actors.slot import Slot, Watcher
    from palmette.actors.system import System


class Hosted(Direct):
    """One incarnation in one process.

    Its end is the end of the *process*: a node that has said why it goes is still there until its connection breaks,
    and a successor that wants its port, file or GPU must not be started before.
    """

    def __init__(
        self, system: System, slot: Slot, parent: Cell | None, kind: str, link: Link, process: NodeProcess
    ) -> None:
        super().__init__(system, link, slot.path)
        self.slot = slot
        self.parent = parent
        self.kind = kind
        self.pid = link.pid
        self._process = process
        self.starting: asyncio.Future[None] | None = system.loop.create_future()
        """Resolves with the start; fails once a failed start's process is gone."""
        self._phase: Literal["running", "stopping"] = "running"
        self._last_words: tuple[str, Reason] | None = None
        self._killed: Reason | None = None
        self._over: Reason | None = None
        self.placed: Placed | None = None
        """Where it lives and what was reserved for it there, if its spec says what it needs."""
        self.placer: Placer | None = None
        """Whom to give that back to."""

    @property
    def state(self) -> str:
        return "starting" if self.starting is not None else self._phase

    def gone(self) -> Reason:
        return self._over or (self._last_words[1] if self._last_words is not None else super().gone())

    def stop(self, reason: Reason) -> None:
        self._phase = "stopping"
        super().stop(reason)

    def kill(self, reason: Reason) -> None:
        """Kill the process: the one kill that is honest about any code."""
        self._phase = "stopping"
        self._killed = self._killed or reason
        self._process.kill()

    def ended(self) -> asyncio.Future[Reason]:
        ended = super().ended()
        if self._over is not None and not ended.done():
            ended.set_result(self._over)
        return ended

    def watch(self) -> None:
        """Nothing to ask for: the node announces its own end, or its link breaks."""

    def add_monitor(self, watcher: Watcher, monitor: int) -> None:
        self.watchers[(watcher, monitor)] = None

    def announce(self, reason: Reason) -> None:
        for watcher, monitor in list(self.watchers):
            self._fell(watcher, monitor, reason)
        super().announce(reason)

    # --- what the node says --------------------------------------------------------------------------------------

    def started(self) -> None:
        """The actor is up."""
        starting, self.starting = self.starting, None
        if starting is not None and not starting.done():
            starting.set_result(None)

    def parting(self, child: str, reason: Reason) -> None:
        """The node says why it goes: ``child``, which is the actor or one below it, ended with ``reason``."""
        self._last_words = (child, reason)
        self._phase = "stopping"
        # It runs its exit handlers now; one of them may hang.
        self.system.loop.call_later(self.system.kill_grace, self._hurry)

    def _hurry(self) -> None:
        if self._over is None:
            self._process.kill()

    def lost(self, why: str) -> None:
        """The link is: the process ends, but may take a moment for it (a GPU's memory is given back late)."""
        self._process.kill()

        def gone() -> None:
            late.cancel()
            stop_waiting()
            self.finish(why)

        late = self.system.loop.call_later(self._process.patience or self.system.kill_grace, gone)
        stop_waiting = self._process.when_gone(gone)

    def finish(self, why: str) -> None:
        """The process is gone."""
        slot, system = self.slot, self.system
        silent = self.link.lost
        if not isinstance(silent, Unreachable):
            where = "" if self.placed is None else f" on {self.placed.node}"
            silent = Killed(f"its process {self.pid}{where} ended without a word: {why}")
        child, reason = self._last_words or (self.path, silent)
        if self._killed is not None and not is_graceful(reason):
            child, reason = self.path, self._killed
        self._over = reason
        if self.placer is not None and self.placed is not None:
            self.placer.release(self.placed.lease)  # before the supervisor hears of it, and wants it for a successor
        if slot.target is self:
            slot.target = None
        slot.last_exit = reason
        slot.exits += 1
        system.record_exit(slot, self.kind, reason)
        self.link.release(reason)
        system.registry_table.owner_died(slot, reason)
        system.naming.node_lost(self.link, reason)
        self.announce(reason)
        starting, self.starting = self.starting, None
        if starting is None:
            if self.parent is not None:
                self.parent.post(ChildExit(system.ref(slot), slot.incarnation, reason))
        elif not starting.done():
            starting.set_exception(StartFailed(child, reason))
            starting.exception()  # a starter that was cancelled does not ask
        if slot.given_up:
            system.release(slot)
