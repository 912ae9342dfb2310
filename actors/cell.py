"""The cell: one incarnation of an inline actor, and the engine that runs it.

A cell that has been idle for a while has no task. A message that reaches it starts one, which works off the mailbox
and is kept for the next message until others need its place (:mod:`palmette.actors.parking`); so a thousand sleeping
actors cost a thousand small objects, and a handler runs inside a real task, where ``asyncio.timeout`` and friends work.

Kernel operations (stop, kill, monitor, statistics) act on the cell directly and never pass through user handlers: the
loop is one thread, so they always see a consistent cell. That is the *system lane* of DESIGN §4.

States: ``starting → running → (draining →) stopping → dead``, and ``zombie`` for a cell that was killed while its code
still runs (a coroutine that swallows its cancellation); its end is announced only when the code is really gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import copy_context
from typing import TYPE_CHECKING, Final

from palmette.actors import ending, starting
from palmette.actors.actor import Actor, ReplyToken
from palmette.actors.background import Background
from palmette.actors.deadlines import get_deadline, set_deadline
from palmette.actors.endpoints import Endpoint, table_of
from palmette.actors.errors import DeadlineExceeded, Refused, StartFailed
from palmette.actors.exits import Killed, NoProcess, Reason, reason_of
from palmette.actors.introspection import State
from palmette.actors.lane import TAKING, Steered
from palmette.actors.mailbox import Mailbox
from palmette.actors.messages import Request
from palmette.actors.slot import CURRENT
from palmette.actors.stash import PutAside

if TYPE_CHECKING:
    from palmette.actors.ref import Ref
    from palmette.actors.slot import Slot
    from palmette.actors.system import System

FAIR_SHARE: Final = 128
"""Messages that one cell may handle before others get a turn."""
BUSY: Final = 8
"""Messages after which a cell's task is worth keeping while it is idle."""


class Cell(Steered):
    """See the module's text. Built by :meth:`System.start_actor` only."""

    __slots__ = (
        "_background", "_code_ended", "_grace", "_queue", "_table", "actor", "born",
        "children", "context", "current", "ended_future", "ending", "entered", "handled", "has_place", "hook",
        "incarnation", "kill_reason", "kind", "mailbox", "owed", "parent", "parked", "slot", "starting",
        "stop_timeout", "system", "task",
    )  # fmt: skip

    def __init__(
        self, system: System, slot: Slot, parent: Cell | None, cls: type[Actor], options: starting.StartOptions
    ) -> None:
        self._bonds = None
        self.system = system
        self.slot = slot
        self.parent = parent
        self.kind = options.kind or cls.__name__
        self.mailbox = Mailbox(options.mailbox, options.overflow)
        self.stop_timeout = options.stop_timeout
        self.incarnation = slot.incarnation
        self.actor: Actor | None = None
        self.task: asyncio.Task[None] | None = None
        self.parked: asyncio.Future[bool] | None = None
        """What the task waits for while there is nothing to do."""
        self.has_place = False
        """Whether its task is kept while it is idle."""
        self.hook: asyncio.Task[Reason | None] | None = None
        """The task of ``stopping``, while it runs."""
        self.current: Request | None = None
        """The request that the present handler is to answer."""
        self.ending: Reason | None = None
        """Why it is to end, or ended."""
        self.kill_reason: Reason | None = None
        self.ended_future: asyncio.Future[Reason] | None = None
        self.suspended = False
        self.handled = 0
        self.born = system.loop.time()
        self.children: dict[str, Slot] | None = None
        self._queue = self.mailbox.queue
        self._state = "starting"
        self._halted = False
        self.entered = False
        """Whether the present task has begun to run."""
        self._code_ended = False
        self.starting: asyncio.Future[None] | None = None
        self._grace: asyncio.TimerHandle | None = None
        self.owed: dict[ReplyToken[object], None] | None = None
        self._background: Background | None = None
        self.lane = None
        self._table = table_of(cls)
        self.context = copy_context()
        self.context.run(CURRENT.set, self)
        if get_deadline() is not None:
            self.context.run(set_deadline, None)  # its starter's deadline is not its own

    # --- the engine ----------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Start working if there is something to do and nobody does it."""
        parked = self.parked
        if parked is not None:
            self.parked = None
            if not parked.done():
                parked.set_result(True)
        elif self.task is None and self._state in TAKING:
            self.entered = False
            self.task = self.system.loop.create_task(self.run(None), context=self.context)

    def look(self) -> None:
        """Start working if there is something in the mailbox and nobody does it."""
        if self._queue and not self._halted:
            self.wake()

    async def run(self, first: Coroutine[object, object, None] | None) -> None:
        """Run ``first``, then work off the mailbox, and end if there is a reason to."""
        self.entered = True
        try:
            if first is not None:
                if self.kill_reason is None and self.ending is None:
                    await first
                else:
                    first.close()  # it was told to end before it could begin
            if not await self._work():
                return
            reason = self.kill_reason or self.ending
            assert reason is not None
        except BaseException as error:
            if ending.is_being_closed(self, error):
                raise
            interrupted = isinstance(error, asyncio.CancelledError) and self.ending is not None
            reason = self.kill_reason or (self.ending if interrupted else None) or reason_of(error)
        await ending.terminate(self, reason, announce=True)

    async def _work(self) -> bool:
        """Work off the mailbox until there is a reason to end; false where this task is not needed any more.

        The hot path: what is looked up here is paid for by every message.
        """
        mailbox, queue, functions, actor = self.mailbox, self._queue, self._table.functions, self.actor
        assert actor is not None
        share = FAIR_SHARE
        bounded = False
        while True:
            if not queue or self._halted:
                if bounded:
                    set_deadline(None)
                    bounded = False
                if self.ending is not None or self.kill_reason is not None:
                    return True
                if self.lane is not None and self.lane.step():
                    continue
                if self.handled < BUSY or self._state == "draining":
                    self.task = None
                    return False
                if not await self.system.parking.park(self):
                    return False
                continue
            if not share:
                share = FAIR_SHARE
                await asyncio.sleep(0)
                continue
            share -= 1
            message = queue.popleft() if mailbox.waiting is None else mailbox.take()
            self.handled += 1
            if type(message) is not Request:
                if bounded:
                    set_deadline(None)
                    bounded = False
                try:
                    await actor.receive(message)
                except PutAside:
                    mailbox.stash(message)
                continue
            reply = message.reply
            if reply is not None:
                if reply.done():
                    continue  # its caller has given up: nobody wants the work
                set_deadline(message.deadline)
                bounded = True
            elif bounded:
                set_deadline(None)
                bounded = False
            self.current = message
            try:
                try:
                    function, kwargs = functions[message.endpoint], message.kwargs
                    # Without keywords, which is the rule, a call is a good deal cheaper.
                    work = function(actor, *message.args, **kwargs) if kwargs else function(actor, *message.args)
                except (KeyError, TypeError):
                    # Calling an async def runs none of it: this is about the endpoint or the arguments.
                    found = self.endpoint_named(message.endpoint.name)
                    found.check(message.args, message.kwargs)
                    work = found.function(actor, *message.args, **message.kwargs)  # another class's, of the same name
                value = await work
            except (Refused, DeadlineExceeded) as error:
                if isinstance(error, DeadlineExceeded) and not message.is_overdue(self.system.loop.time()):
                    raise
                if not message.fail(error):
                    self.system.dead_letter(self.slot.path, message)
            except PutAside:
                if self.current is None:  # pyright: ignore[reportUnnecessaryComparison] - see reply_later
                    raise RuntimeError("stash() after reply_later(): this request's answer is promised") from None
                mailbox.stash(message)
            else:
                owing: Request | None = self.current  # none where the handler has promised to reply later
                if reply is not None and owing is not None and not reply.done():  # pyright: ignore[reportUnnecessaryComparison]
                    reply.set_result(value)
            self.current = None

    def endpoint_named(self, name: str) -> Endpoint[object, ..., object]:
        """One of this actor's endpoints. Raises BadCall naming those that exist."""
        return self._table.named(name, self.slot.path)

    def is_running_here(self) -> bool:
        """Whether the code that asks is this actor's own handler or hook (and not a task beside its mailbox)."""
        task = asyncio.current_task()
        return task is not None and (task is self.task or task is self.hook)

    # --- what others do to a cell (Target) -------------------------------------------------------------------------

    @property
    def state(self) -> State:
        if self._state in TAKING and self._halted:
            if self.ending is not None or self.kill_reason is not None:
                return "stopping"
            return "suspended" if self.suspended else self._state
        return self._state

    def request(self, request: Request) -> None:
        parked = self.parked
        if parked is not None and not self._halted and self.mailbox.capacity is None and not parked.done():
            self.parked = None  # the hot path: an actor between two calls
            self._queue.append(request)
            parked.set_result(True)
            return
        if self._state != "running" and self._turns_away(request):
            return
        if self.mailbox.capacity is None:
            self._queue.append(request)
        else:
            dropped = self.mailbox.put(request, self.slot.path)
            if dropped is not None:
                self.system.dead_letter(self.slot.path, dropped)
        if (self.parked is not None or self.task is None) and not self._halted:
            self.wake()

    def post(self, message: object) -> None:
        if self._state != "running" and self._turns_away(message):
            return
        self._queue.append(message)
        if (self.parked is not None or self.task is None) and not self._halted:
            self.wake()

    def _turns_away(self, message: object) -> bool:
        """Whether a message is refused; the sender has been told then."""
        if self._state == "draining":
            return self.lane is not None and self.lane.turns_away(message)
        if self._state not in ("dead", "zombie"):
            return False
        if isinstance(message, Request):
            self.system.undeliverable(self.slot.path, message, self.kill_reason or NoProcess(self.slot.path))
        else:
            self.system.dead_letter(self.slot.path, message)
        return True

    def stop(self, reason: Reason) -> None:
        if self.ending is None:
            self.ending = reason
            self._halted = True
            if self.task is None and self._state in TAKING:
                self.system.loop.call_soon(ending.finish, self)
            else:
                self.wake()

    def crash(self, reason: Reason) -> None:
        """End with ``reason`` at once: the present handler is interrupted, ``stopping`` still runs."""
        if self.ending is None and self.kill_reason is None:
            self.stop(reason)
            if self.task is not None and self.entered and self._state in ("starting", *TAKING):
                self.task.cancel()

    def kill(self, reason: Reason) -> None:
        if self._state in ("dead", "zombie") or self.kill_reason is not None:
            return
        self.kill_reason = reason
        self._halted = True
        self.wake()
        if self.hook is not None:
            self.hook.cancel()
        elif self.task is not None and self.entered:
            # A task that was not entered yet must not be cancelled: its body would never run, and nobody would
            # announce this cell's end. It sees kill_reason before its first message.
            self.task.cancel()
        self.expect_end()

    def ended(self) -> asyncio.Future[Reason]:
        if self.ended_future is None:
            self.ended_future = self.system.loop.create_future()
            if self._state == "dead":
                self.ended_future.set_result(self.ending or NoProcess(self.slot.path))
        return self.ended_future

    # --- timers, tasks, owed replies ---------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        return self.slot.path

    def ref(self) -> Ref[object]:
        return self.system.ref(self.slot)

    @property
    def background(self) -> Background:
        """Timers and tasks."""
        if self._background is None:
            self._background = Background(self)
        return self._background

    def owns(self, task: asyncio.Task[object]) -> bool:
        """Whether ``task`` runs its handlers, its hook or work beside its mailbox."""
        return task in (self.task, self.hook) or (self._background is not None and self._background.owns(task))

    def owes_results(self) -> bool:
        """Whether tasks of it are to report to it."""
        return self._background is not None and self._background.promised > 0

    def reply_later(self) -> ReplyToken[object]:
        if self.current is None:
            raise RuntimeError("reply_later() belongs inside an endpoint, once per request")
        if self.owed is None:
            self.owed = {}
        token: ReplyToken[object] = ReplyToken(self.current.reply, self.owed)
        self.current = None
        return token

    # --- its life, step by step; see `starting` and `ending` -------------------------------------------------------

    def set_running(self) -> None:
        """It may be talked to."""
        self._state = "running"
        if self.lane is not None:
            self.lane.started()

    def begin_ending(self, reason: Reason) -> None:
        """No further message is taken."""
        self.parked = None  # a stranger's cancellation may have ended the wait
        self.system.parking.leave(self)
        self._state = "stopping"
        self._halted = True
        self.ending = self.ending or reason

    def stop_background(self) -> set[asyncio.Task[None]]:
        """Cancel timers and tasks; the tasks that have yet to end."""
        return set() if self._background is None else self._background.close()

    def failed_beside(self) -> Reason | None:
        """What one of its tasks failed with while it was ending."""
        return None if self._background is None else self._background.failure

    def code_has_ended(self) -> None:
        """What may still take time from here on are others: the children."""
        self._code_ended = True

    def expect_end(self) -> None:
        """The code was cancelled: call the cell a zombie if it still runs after the grace."""
        if self._grace is None:
            self._grace = self.system.loop.call_later(self.system.kill_grace, self._mark_zombie)

    def _mark_zombie(self) -> None:
        if self._state != "dead" and not self._code_ended:
            self._state = "zombie"
            self.system.log_zombie(self)
            reason = self.kill_reason or self.ending or Killed()
            ending.disappoint(self, reason)
            starting.fail(self, StartFailed(self.slot.path, reason))

    def close(self, reason: Reason) -> None:
        """Dead from here on."""
        self._state = "dead"
        self.ending = reason
        self.task = None
        self.actor = None
        if self._grace is not None:
            self._grace.cancel()

    def announce(self, ref: Ref[object], reason: Reason) -> None:
        """Tell everybody who watches."""
        super().announce(ref, reason)
        if self.ended_future is not None and not self.ended_future.done():
            self.ended_future.set_result(reason)
