"""The event loop of one simulated node: a part of the world's loop that can be frozen or ended by itself."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from asyncio.events import _set_running_loop
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any, Final

from palmette.actors.simulation.loop import SimulatedLoop, VirtualLoop, python_task

# Like `loop`, this file stands in for the inside of asyncio's base loop.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportAttributeAccessIssue=false, reportPrivateUsage=false

MAX_CLOSES: Final = 100
"""Waits in the ``finally`` blocks of one task of a dead node that are cut short before it is left as it is."""


class NodeLoop(VirtualLoop):
    """The loop of one simulated node: it shares the world's clock and queue, and can be frozen or ended by itself.

    What belongs to it is what was scheduled on it. Futures and tasks of one node cannot be awaited in another, which
    asyncio checks: as between real processes, only messages cross.
    """

    def __init__(self, world: SimulatedLoop, pid: int) -> None:
        self.world = world
        super().__init__()
        self.pid = pid
        self.seed, self.jitter = world.seed, world.jitter
        self.system_class, self.hosts = world.system_class, world.hosts
        self.log, self.injector = world.log, world.injector
        self._ready, self._scheduled = world._ready, world._scheduled
        self.is_dead = False
        self._frozen = False
        self._held: list[Any] = []
        """What would have run while it is frozen."""
        self._keeps: list[object] = []
        self.at_death: list[Callable[[], None]] = []
        """What the operating system does when the process has ended. Called on the world's loop."""
        self.set_task_factory(python_task)  # pyright: ignore[reportArgumentType]
        world.nodes[pid] = self

    def time(self) -> float:
        return self.world.time()

    def is_running(self) -> bool:
        return self.world.is_running()

    def run_handle(self, handle: Any) -> None:
        if self._frozen:
            self._held.append(handle)
            return
        _set_running_loop(self)
        try:
            handle._run()
        except SystemExit:
            self.die()  # out of a task that no actor owns: it ends the process that it is in, not the simulation
        finally:
            _set_running_loop(self.world)

    def freeze(self) -> None:
        """Run nothing until :meth:`thaw`, as after SIGSTOP."""
        self._frozen = True

    def thaw(self) -> None:
        """Go on."""
        self._frozen = False
        held, self._held = self._held, []
        if not self.is_dead:
            self._ready.extend(held)

    def die(self) -> None:
        """End as by ``kill -9``: not one more step of anything that runs here, no ``finally`` either."""
        if self.is_dead:
            return
        self.is_dead = True
        world = self.world
        del world.nodes[self.pid]
        world.dead.append(self)
        self._keeps += asyncio.all_tasks(self)
        for handle in (*self._ready, *self._scheduled, *self._held):
            if handle._loop is self and not handle._cancelled:
                # Cancelling drops these, and with them, perhaps, the last hold on what must not be collected yet.
                self._keeps.append((handle._callback, handle._args, handle._context))
                handle.cancel()
        self._held.clear()
        for tell in self.at_death:
            world.call_soon(tell)
        self.at_death.clear()

    def bury(self) -> None:
        """Let go of what was kept, after the simulation."""
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined] # pyright: ignore
            coroutine: Any = task.get_coro()
            if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
                for argument in coroutine.cr_frame.f_locals.values():
                    if inspect.iscoroutine(argument):
                        argument.close()  # work that was handed to it and that it would have awaited
            for _ in range(MAX_CLOSES):
                # Its ``finally`` may wait for something; nobody hears what it has to say, as it is long dead.
                with contextlib.suppress(Exception):
                    task._context.run(coroutine.close)  # type: ignore[attr-defined] # pyright: ignore
                    break
        self._keeps.clear()
        self.close()

    def keep(self, thing: object) -> None:
        """Hold ``thing`` for as long as this loop is known: what belongs to the process, and goes unseen with it."""
        self._keeps.append(thing)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.is_dead:
            super().call_exception_handler(context)

    def close(self) -> None:
        # The queues are the world's.
        self._ready, self._scheduled = deque(), []
        super().close()

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:
        if self.is_dead:
            return _nothing(self)
        return super().call_soon(callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> asyncio.TimerHandle:
        if self.is_dead:
            return _nothing(self)
        return super().call_at(when, callback, *args, context=context)


def _nothing(loop: asyncio.AbstractEventLoop) -> asyncio.TimerHandle:
    handle = asyncio.TimerHandle(0.0, _write_nothing, (), loop)
    handle._cancelled = True  # type: ignore[attr-defined] # pyright: ignore
    return handle


def _write_nothing() -> None:
    """Never called."""
