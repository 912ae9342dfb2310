"""References: how one talks to an actor.

A ``Ref[Counter]`` is typed, hashable, and stable: it stays valid when its actor is restarted, and it means the same
actor in every process of a system. What it cannot promise is that somebody is there: a call to a dead address fails at
once with :class:`ActorDied`, a cast to it becomes a dead letter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar, cast

from palmette.actors.deadlines import DEFAULT_CALL_SECONDS, get_deadline
from palmette.actors.endpoints import Endpoint
from palmette.actors.errors import ActorDied, BadCall, DeadlineExceeded, NodeError
from palmette.actors.exits import Killed, NoProcess, Reason, Shutdown, is_graceful
from palmette.actors.introspection import CellStatistics, statistics_of
from palmette.actors.lane import DRAINED
from palmette.actors.messages import NO_KEYWORDS, Request
from palmette.actors.slot import CURRENT, Slot, Target
from palmette.actors.state import ActorState, replace_state, state_of

if TYPE_CHECKING:
    from palmette.actors.actor import Actor
    from palmette.actors.cell import Cell
    from palmette.actors.system import System

A_co = TypeVar("A_co", covariant=True)
P = ParamSpec("P")
R = TypeVar("R")


class Ref(Generic[A_co]):
    """A typed reference to an actor of class ``A``. Made by the system, never by hand."""

    __slots__ = ("_slot", "_system")

    def __init__(self, system: System, slot: Slot) -> None:
        self._system = system
        self._slot = slot

    @property
    def path(self) -> str:
        """The actor's address, for example ``/train/episodes/e17/agent``."""
        return self._slot.path

    @property
    def incarnation(self) -> int:
        """How many times the actor has been started at this address."""
        return self._slot.incarnation

    def is_alive(self) -> bool:
        """Whether something lives there right now. By the time you look at the answer it may be wrong."""
        return self._slot.target is not None

    async def call(self, endpoint: Endpoint[A_co, P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call an endpoint and wait for its reply, no longer than the deadline in force (see ``deadline``).

        Raises:
            ActorDied: nobody is there, or the actor died before it replied (its own crash included).
            DeadlineExceeded: no reply in time.
            Refused: the actor turned the request down and lives on (``BadCall``, ``MailboxFull``, its own refusals).
        """
        slot = self._slot
        target = slot.target
        if target is None:
            raise ActorDied(slot.path, NoProcess(slot.path))
        system = self._system
        asking = CURRENT.get()
        if asking is not None and asking.slot is slot and system.is_running_here(slot):
            raise BadCall(f"{slot.path} calls itself: it would wait for ever; call the method directly")
        loop = system.loop
        future: asyncio.Future[object] = loop.create_future()
        at = get_deadline()
        if at is None:
            at = loop.time() + DEFAULT_CALL_SECONDS
        target.request(Request(endpoint, args, kwargs or NO_KEYWORDS, future, at))
        running = system.expiry.watch(future, at, slot, endpoint)
        try:
            return await future  # pyright: ignore[reportReturnType] - a cast() is a call, on the hottest path there is
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                future.exception()  # it came in the same turn; nobody else will look at it
            raise
        finally:
            del running[future]

    def cast(self, endpoint: Endpoint[A_co, P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call an endpoint without waiting for anything. To a dead address it becomes a dead letter.

        Raises:
            MailboxFull: the actor's mailbox is bounded and full, and its policy is not ``drop_oldest``.
        """
        target = self._slot.target
        request = Request(endpoint, args, kwargs or NO_KEYWORDS, None, None)
        if target is None:
            self._system.dead_letter(self._slot.path, request)
        else:
            target.request(request)

    def send(self, message: object) -> None:
        """Put a message into the actor's mailbox, for its ``receive``. Between processes it must be a Struct."""
        target = self._slot.target
        if target is None:
            self._system.dead_letter(self._slot.path, message)
        else:
            target.post(message)

    async def stop(self, reason: Reason | None = None, *, timeout: float = 5.0) -> None:
        """Ask the actor to end with ``reason`` (by default ``Shutdown()``), and wait until no code of it runs.

        The rules are those of OTP's ``gen_server:stop/3``, but for one: an actor that is gone already is fine. Its
        supervisor may restart it.

        Raises:
            ActorDied: it ended with another reason. Where none was asked for, any graceful one is as good.
            DeadlineExceeded: it still runs after ``timeout`` seconds. It has been asked, and is left to it;
                :meth:`terminate` kills it.
            BadCall: an actor asks itself; ``self.stop()`` does not wait.
        """
        target = self._target_to_end()
        if target is None:
            return
        target.stop(reason if reason is not None else Shutdown())
        end = await self._end_of(target, timeout)
        if end is None:
            raise DeadlineExceeded(f"{self.path} did not stop within {timeout:g} s; terminate() would kill it")
        # NoProcess: it was gone, which only its own process knew.
        if end != reason and not isinstance(end, NoProcess) and not (reason is None and is_graceful(end)):
            raise ActorDied(self.path, end)

    async def terminate(self, reason: Reason | None = None, *, timeout: float = 5.0) -> bool:
        """End the actor as its supervisor would: ask it, wait, and past ``timeout`` seconds kill it.

        It does not matter how it ends; one that is gone already is fine. Its supervisor may restart it.

        Returns whether it is gone: false where its code still runs, as long again after the kill (a zombie).

        Raises:
            BadCall: an actor asks itself.
        """
        target = self._target_to_end()
        if target is None:
            return True
        target.stop(reason if reason is not None else Shutdown())
        if await self._end_of(target, timeout) is not None:
            return True
        target.kill(Killed(f"did not stop within {timeout:g} s"))
        return await self._end_of(target, timeout) is not None

    async def drain(self, timeout: float = 60.0, *, shutdown: float = 5.0) -> bool:
        """Let the actor finish: it takes nothing new, handles what waits in its mailbox, and ends.

        New calls are refused (:class:`Draining`), other messages become dead letters. It ends with
        ``Shutdown("drained")`` when its mailbox is empty, it owes no reply (``reply_later``, ``answer_later``) and no
        result of a task with a tag is to come. After ``timeout`` seconds it is stopped, and ``shutdown`` seconds later
        killed, as :meth:`terminate` does. A supervisor that is drained drains its children, in the order in which it
        would stop them, and adds each one's own shutdown time. What its own supervisor makes of the end is up to the
        child's spec: a permanent child is restarted.

        Returns whether everything was finished. One that is gone already has nothing to finish.

        Raises:
            ActorDied: it ended abnormally meanwhile.
            BadCall: an actor asks itself.
        """
        target = self._target_to_end()
        if target is None:
            return True
        until = self._system.loop.time() + timeout
        target.drain(timeout)
        end = await self._end_of(target, timeout)
        if end is None:
            await self.terminate(Shutdown("not drained in time"), timeout=shutdown)
            return False
        if isinstance(end, NoProcess):
            return True
        if not is_graceful(end):
            raise ActorDied(self.path, end)
        return end == DRAINED and self._system.loop.time() < until

    def _target_to_end(self) -> Target | None:
        if self._system.current_slot() is self._slot and self._system.is_running_here(self._slot):
            raise BadCall(f"{self.path} waits for its own end, which waits for it; use self.stop()")
        return self._slot.target

    async def _end_of(self, target: Target, timeout: float) -> Reason | None:
        """How it ended, if that was within ``timeout`` seconds."""
        ended = target.ended()
        await asyncio.wait([ended], timeout=timeout)
        return ended.result() if ended.done() else None

    def kill(self, detail: str = "") -> None:
        """End the actor without asking. An inline actor is cancelled; a process actor's process is killed."""
        if self._slot.target is not None:
            self._slot.target.kill(Killed(detail))

    def suspend(self) -> None:
        """Have the actor take no further message until :meth:`resume`; what it handles now runs on.

        Raises:
            NodeError: it lives in another process.
        """
        self._cell().suspend()

    def resume(self) -> None:
        """Undo :meth:`suspend`. Raises NodeError as it does."""
        self._cell().resume()

    def statistics(self) -> CellStatistics:
        """A look at the present incarnation. The kernel answers, also for an actor that is busy.

        Raises:
            ActorDied: nobody is there.
            NodeError: it lives in another process.
        """
        return statistics_of(self._cell())

    async def state(self) -> ActorState:
        """A look inside the present incarnation; what there is to see is up to its ``describe_state``.

        The kernel answers, also for an actor that is busy, suspended or full, here or in another process.

        Raises:
            ActorDied: nobody is there.
            Refused: its ``describe_state`` raised.
            DeadlineExceeded: its process did not answer in time.
            NodeError: it lives in another process, and its ``describe_state`` returned what cannot cross.
        """
        from palmette.actors.cell import Cell
        from palmette.actors.verbs import STATE

        target = self._slot.target
        if isinstance(target, Cell):
            return state_of(target)
        return await cast("Ref[Actor]", self).call(STATE)

    async def replace_state(self, function: Callable[[A_co], Mapping[str, object]]) -> None:
        """Set attributes of the actor from outside: those that ``function``, given the actor, returns by name.

        It runs between two handlers, ahead of the mailbox, also while the actor is suspended. All attributes are set,
        or none; a call that gave up has changed nothing, and will not.

        Raises:
            Refused: ``function`` raised, or returned no such attributes. The actor is as it was; but what the function
                changed *inside* of an attribute stays so: return a new value instead.
            ActorDied: nobody is there, or it ended before its present handler did.
            DeadlineExceeded: its present handler did not end in time (see ``deadline``).
            BadCall: a handler replaces its own actor's state; it can just set it.
            NodeError: it lives in another process, and a function does not cross: give it an endpoint that does this.
        """
        cell = self._cell(
            "a function does not cross; give the actor an endpoint that sets its state, or have an actor of that "
            "process call replace_state"
        )
        if self._system.current_slot() is self._slot and self._system.is_running_here(self._slot):
            raise BadCall(f"{self.path} replaces its own state, and would wait for itself; its handler can just set it")
        await replace_state(cell, cast("Callable[[Actor], object]", function))

    def _cell(self, remedy: str = "ask for this there") -> Cell:
        from palmette.actors.cell import Cell

        target = self._slot.target
        if target is None:
            raise ActorDied(self.path, NoProcess(self.path))
        if not isinstance(target, Cell):
            raise NodeError(f"{self.path} lives in another process; {remedy}")
        return target

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ref) and cast("Ref[object]", other)._slot.path == self._slot.path

    def __hash__(self) -> int:
        return hash(self._slot.path)

    def __repr__(self) -> str:
        return f"<ref {self._slot.path}>"
