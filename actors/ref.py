"""References: how one talks to an actor.

A ``Ref[Counter]`` is typed, hashable, and stable: it stays valid when its actor is restarted, and it means the same
actor in every process of a system. What it cannot promise is that somebody is there: a call to a dead address fails at
once with :class:`ActorDied`, a cast to it becomes a dead letter.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar, cast

from palmette.actors.deadlines import DEFAULT_CALL_SECONDS, get_deadline
from palmette.actors.endpoints import Endpoint
from palmette.actors.errors import ActorDied, BadCall, NodeError
from palmette.actors.exits import Killed, NoProcess, Reason, Shutdown
from palmette.actors.introspection import CellStatistics, statistics_of
from palmette.actors.messages import NO_KEYWORDS, Request
from palmette.actors.slot import CURRENT, Slot

if TYPE_CHECKING:
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
        """Ask the actor to end, and wait; past ``timeout`` seconds it is killed. Its supervisor may restart it.

        Raises:
            BadCall: an actor asks itself; ``self.stop()`` does not wait.
        """
        target = self._slot.target
        if target is None:
            return
        if self._system.current_slot() is self._slot and self._system.is_running_here(self._slot):
            raise BadCall(f"{self.path} waits for its own end, which waits for it; use self.stop()")
        target.stop(reason if reason is not None else Shutdown())
        ended = target.ended()
        done, _ = await asyncio.wait([ended], timeout=timeout)
        if not done:
            target.kill(Killed(f"did not stop within {timeout:g} s"))
            await asyncio.wait([ended], timeout=timeout)

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

    def _cell(self) -> Cell:
        from palmette.actors.cell import Cell

        target = self._slot.target
        if target is None:
            raise ActorDied(self.path, NoProcess(self.path))
        if not isinstance(target, Cell):
            raise NodeError(f"{self.path} lives in another process; ask for this there")
        return target

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ref) and cast("Ref[object]", other)._slot.path == self._slot.path

    def __hash__(self) -> int:
        return hash(self._slot.path)

    def __repr__(self) -> str:
        return f"<ref {self._slot.path}>"
