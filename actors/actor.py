"""The actor: a mailbox, one handler at a time, and three hooks.

Subclass :class:`Actor`, mark what others may call with ``@endpoint``, and let errors out: an exception that leaves a
handler ends the actor, its callers learn of it at once, and its supervisor decides what happens next.

>>> import asyncio
>>> from palmette.actors import Actor, ActorDied, System, endpoint
>>> from palmette.supervisors import Supervisor, child
>>> class Divider(Actor):
...     @endpoint
...     async def divide(self, by: int) -> float:
...         return 84 / by
>>> async def main() -> None:
...     async with System.start(Supervisor.spec(children=[child(Divider, name="divider")])) as system:
...         divider = system.whereis("divider", Divider)
...         try:
...             await divider.call(Divider.divide, 0)           # crashes the actor …
...         except ActorDied as error:
...             print(error)
...         await system.wait_for("divider", Divider)           # … its supervisor starts it anew …
...         print(await divider.call(Divider.divide, 2))        # … and the same reference works
>>> asyncio.run(main())
/divider died: ZeroDivisionError: division by zero
42.0
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, ClassVar, Generic, NoReturn, Self, TypeVar, cast

from palmette.actors.errors import Refused
from palmette.actors.exits import Normal, Reason
from palmette.actors.stash import stash, unstash_all
from palmette.actors.state import attributes_of

if TYPE_CHECKING:
    import asyncio

    from palmette.actors.cell import Cell
    from palmette.actors.ref import Ref
    from palmette.actors.system import System

T = TypeVar("T")
A = TypeVar("A")


class ReplyToken(Generic[T]):
    """A reply that is still owed; see :meth:`Actor.reply_later`. Only the first answer counts."""

    __slots__ = ("_future", "_owed")

    def __init__(self, future: asyncio.Future[object] | None, owed: dict[ReplyToken[object], None]) -> None:
        self._future = future
        self._owed = owed
        if future is not None:
            owed[cast("ReplyToken[object]", self)] = None
            future.add_done_callback(self._settled)

    def _settled(self, _: asyncio.Future[object]) -> None:
        # Also where the caller gave up: its token is owed to nobody.
        self._owed.pop(cast("ReplyToken[object]", self), None)

    def reply(self, value: T) -> None:
        """Answer the caller, if it still waits."""
        if self._future is not None and not self._future.done():
            self._future.set_result(value)

    def fail(self, error: BaseException) -> None:
        """Make the caller's call raise ``error``, if it still waits."""
        if self._future is not None and not self._future.done():
            self._future.set_exception(error)

    def when_settled(self, then: Callable[[], None]) -> None:
        """For the kernel: call ``then`` once the reply is owed no more."""
        if self._future is not None:
            self._future.add_done_callback(lambda _: then())

    def is_wanted(self) -> bool:
        """Whether somebody still waits for the reply."""
        return self._future is not None and not self._future.done()


class Actor:
    """Base of all actors. Everything here is for the actor itself; others go through a :class:`Ref`."""

    trap_exit: bool = False
    """Whether a linked actor's end arrives as an :class:`Exit` message instead of ending this one."""

    stash_capacity: ClassVar[int] = 1000
    """Messages that :meth:`stash` may put aside."""

    waits_in_place: ClassVar[bool] = False
    """For the kernel's own actors: see :mod:`palmette.actors.eager`."""

    _cell: Cell
    """Set by the kernel before ``__init__`` runs."""

    # --- hooks -------------------------------------------------------------------------------------------------

    async def started(self) -> None:
        """Runs before anybody may talk to the actor; its starter waits.

        To raise here is to fail the start; to raise :class:`Decline` is to say that there is nothing to do here.
        """

    async def continued(self) -> None:
        """Runs right after the start, before any queued message: the place for slow preparations."""

    async def receive(self, message: object) -> None:
        """Takes every message that is no endpoint call: ``Down``, ``Exit``, timer ticks, your own structs.

        The default refuses to lose one: an unexpected message crashes the actor.
        """
        raise TypeError(f"{type(self).__name__} has no receive() for {message!r}")

    async def stopping(self, reason: Reason) -> None:
        """Runs when the actor ends by itself, by request or by crash; not when it is killed.

        Also where ``started`` raised or declined, so that it can undo what was begun; not where ``__init__`` did.
        Under a supervisor it has the ``shutdown`` seconds of the child's spec.
        """

    def describe_state(self) -> object:
        """What :meth:`Ref.state` shows of this actor: plain data or a Struct, without secrets. Must not change it.

        The default shows all attributes as text, abridged; texts that by their names may be secrets are left out.
        """
        return attributes_of(self)

    # --- about oneself -----------------------------------------------------------------------------------------

    @property
    def system(self) -> System:
        return self._cell.system

    @property
    def ref(self) -> Ref[Self]:
        """A reference to this actor, to give to others."""
        return cast("Ref[Self]", self._cell.ref())

    @property
    def path(self) -> str:
        return self._cell.slot.path

    def stop(self, reason: Reason | None = None) -> None:
        """End after the present handler; without a reason, as ``Normal``."""
        self._cell.stop(reason if reason is not None else Normal())

    def stash(self) -> NoReturn:
        """Put the message or call that is being handled aside, until :meth:`unstash_all`.

        It ends the handler, which is begun anew when its message comes back. A call keeps its deadline, and is dropped
        when it is late. At the incarnation's end all that is stashed fares as the mailbox does.

        Raises:
            StashFull: ``stash_capacity`` messages are there. An endpoint that lets it out refuses its caller.
            RuntimeError: called from a task beside the handler.
        """
        stash(self._cell, self.stash_capacity)

    def unstash_all(self) -> None:
        """Have everything that was stashed handled next, in its old order, ahead of the mailbox."""
        unstash_all(self._cell)

    # --- others ------------------------------------------------------------------------------------------------

    def sibling(self, name: str, actor: type[A]) -> Ref[A]:
        """The child ``name`` of this actor's supervisor, alive or not."""
        parent = self._cell.slot.path.rpartition("/")[0]
        return self._cell.system.ref_at(f"{parent}/{name}", actor)

    def monitor(self, ref: Ref[object]) -> int:
        """Have a :class:`Down` delivered when ``ref``'s present incarnation ends (at once if nobody is there)."""
        return self._cell.bonds.monitor(ref._slot)  # pyright: ignore[reportPrivateUsage]

    def demonitor(self, monitor: int) -> None:
        """Undo one monitor; a ``Down`` that already waits in the mailbox is taken out."""
        self._cell.bonds.demonitor(monitor)

    def link(self, ref: Ref[object]) -> None:
        """Tie two fates: when either ends, for any reason but ``Normal``, so does the other, without ``stopping``.

        One that traps exits gets an ``Exit`` message instead, for every reason. An actor that is gone already counts
        as one that ends now, with ``NoProcess``.
        """
        self._cell.bonds.link(ref._slot)  # pyright: ignore[reportPrivateUsage]

    def unlink(self, ref: Ref[object]) -> None:
        """Undo :meth:`link`."""
        self._cell.bonds.unlink(ref._slot)  # pyright: ignore[reportPrivateUsage]

    # --- time and work -----------------------------------------------------------------------------------------

    def send_after(self, seconds: float, message: object) -> Callable[[], None]:
        """Deliver ``message`` to :meth:`receive` later; the returned function calls it off. Dies with the actor."""
        return self._cell.background.send_after(seconds, message)

    def start_task(self, work: Coroutine[object, object, object], *, tag: str | None = None) -> None:
        """Run ``work`` beside the mailbox; if it raises, the actor crashes. It never outlives the actor.

        With a ``tag``, its result arrives at :meth:`receive` as :class:`TaskDone`. The deadline of the request that is
        being handled holds for it only after :meth:`reply_later`, where its work is still that request's.
        """
        self._cell.background.start_task(work, tag)

    def answer_later(self, work: Coroutine[object, object, T]) -> T:
        """Answer the present call with ``work``'s result, and take the next message meanwhile.

        ``return self.answer_later(…)`` ends an endpoint whose answer takes long. What ``work`` raises crashes the
        actor, except :class:`Refused`, which goes to the caller.
        """
        token = self.reply_later()

        async def run() -> None:
            try:
                token.reply(await work)
            except Refused as refused:
                token.fail(refused)

        self.start_task(run())
        return cast("T", None)  # the kernel ignores what an endpoint returns once its reply is owed

    def reply_later(self) -> ReplyToken[object]:
        """Called inside an endpoint: its return value is ignored, and the caller waits for the token instead."""
        return self._cell.reply_later()
