"""What static and dynamic supervisors share: start a child, stop children, judge an end, wait out a backoff."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from palmette.actors.actor import Actor
from palmette.actors.endpoints import endpoint
from palmette.actors.errors import StartFailed
from palmette.actors.exits import Crashed, Declined, Killed, MaxRestarts, Reason, Shutdown, describe
from palmette.actors.messages import ChildExit, Exit
from palmette.supervisors.errors import NoSuchChild
from palmette.supervisors.policy import Backoff, Budget, judge
from palmette.supervisors.spec import ChildSpec

if TYPE_CHECKING:
    from palmette.actors.slot import Slot

ChildState = Literal["running", "restarting", "completed", "stopped", "declined", "undefined"]
"""``declined`` is a child that did not want to start; ``undefined`` one that is down with its group and comes back with
it."""


class ChildInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One line of ``which_children``."""

    name: str
    path: str
    state: ChildState
    kind: str
    supervisor: bool
    restarts: int
    """Restarts since the supervisor itself started."""


class ChildCounts(msgspec.Struct, frozen=True, kw_only=True):
    """``count_children``, as in OTP."""

    specs: int
    active: int
    supervisors: int
    workers: int


class Retry(msgspec.Struct, frozen=True):
    """A supervisor's message to itself: try this child again. One with another ``token`` is stale."""

    name: str
    token: int
    unpaid: Reason | None = None
    """Why the start before this one failed, where this one has yet to be counted against the budget."""


class Child:
    """A supervisor's record of one child."""

    __slots__ = (
        "cancel_retry",
        "in_a_row",
        "restarts",
        "slot",
        "spec",
        "started_at",
        "state",
        "token",
        "trouble_since",
    )

    def __init__(self, spec: ChildSpec[Actor], slot: Slot) -> None:
        self.spec = spec
        self.slot = slot
        self.state: ChildState = "undefined"
        self.restarts = 0
        self.in_a_row = 0
        """Restarts since it last lived for its backoff's ``reset_after``."""
        self.started_at = 0.0
        self.trouble_since: float | None = None
        """When the present row of restarts outside the budget began."""
        self.token = 0
        """Of the one :class:`Retry` that is valid; 0 if none is."""
        self.cancel_retry: Callable[[], None] | None = None

    def info(self) -> ChildInfo:
        return ChildInfo(
            name=self.spec.name,
            path=self.slot.path,
            state=self.state,
            kind=self.spec.actor.__name__,
            supervisor=self.spec.supervisor,
            restarts=self.restarts,
        )

    def forget_troubles(self) -> None:
        """It lived long enough, or somebody started it by hand."""
        self.in_a_row = 0
        self.trouble_since = None


def declined(member: Child) -> str:
    """What to say of ``member``, which has just declined to start."""
    return f"{member.slot.path} {describe(member.slot.last_exit or Declined())}"


class Restarter(Actor, ABC):
    """What both kinds of supervisor do with a single child. Not for direct use."""

    waits_in_place = True
    trap_exit = True  # as OTP's: a stranger that links itself to a supervisor cannot take a tree down

    _budget: Budget
    _members: dict[str, Child]
    _tokens: int = 0

    async def receive(self, message: object) -> None:
        match message:
            case ChildExit():
                member = self._find(message)
                if member is not None:
                    await self._exited(member, message.reason)
            case Retry(name, token, unpaid):
                member = self._members.get(name)
                if member is None or member.state != "restarting" or member.token != token:
                    return
                if unpaid is None or self._pay(member, unpaid):
                    await self._restart(member)
            case Exit():
                pass  # a stranger's; children's ends arrive as ChildExit
            case _:
                # A stray message must not take a tree down either.
                self.system.dead_letter(self.path, message)

    @abstractmethod
    async def _exited(self, member: Child, reason: Reason) -> None:
        """``member`` has ended by itself."""

    @abstractmethod
    async def _restart(self, member: Child) -> None:
        """The time has come to start ``member`` again."""

    # --- start and stop --------------------------------------------------------------------------------------------

    async def _start(self, member: Child) -> None:
        """Start ``member``; one that declines is no failure. Raises StartFailed."""
        self._call_off(member)
        try:
            await member.spec.start(self.system, member.slot, self._cell)
        except StartFailed as failure:
            if not isinstance(failure.reason, Declined):
                raise
            member.state = "declined"
            return
        member.state = "running"
        member.started_at = self.system.loop.time()

    async def _try(self, member: Child) -> StartFailed | None:
        """Start ``member``; a failure is returned, for the caller to judge."""
        try:
            await self._start(member)
        except StartFailed as failure:
            return failure
        return None

    async def _stop(self, *members: Child) -> None:
        """End ``members`` at the same time, each by its shutdown protocol.

        When this returns no code of them runs, or it is a zombie's.
        """
        loop, grace = self.system.loop, self.system.kill_grace
        # A supervisor that is drained drains: its children may finish until its own time is up, and are stopped then.
        drain = self._cell.drain_left()
        begun = loop.time()
        patience: dict[float, list[Child]] = {}
        ends: dict[str, asyncio.Future[Reason]] = {}
        for member in members:
            self._call_off(member)
            target = member.slot.target
            if target is None:
                continue
            ends[member.spec.name] = target.ended()
            shutdown = member.spec.shutdown
            if drain is not None:
                target.drain(drain)
            elif shutdown == "brutal":
                target.kill(Killed("by its supervisor"))
                continue
            else:
                target.stop(Shutdown())
            seconds = float("inf") if shutdown == "infinity" else 0.0 if shutdown == "brutal" else float(shutdown)
            patience.setdefault(seconds + (drain or 0.0), []).append(member)
        for seconds in sorted(patience):
            waiting = [ends[member.spec.name] for member in patience[seconds]]
            left = None if seconds == float("inf") else max(0.0, begun + seconds - loop.time())
            await asyncio.wait(waiting, timeout=left)
            for member in patience[seconds]:
                target = member.slot.target
                if target is not None and not ends[member.spec.name].done():
                    target.kill(Killed(f"did not stop within {member.spec.shutdown} s"))
        # The kill's own time, and that of what lives below; what still runs after that is a zombie.
        late = [end for end in ends.values() if not end.done()]
        if late:
            await asyncio.wait(late, timeout=4 * grace)

    def _call_off(self, member: Child) -> None:
        """End a pending restart."""
        member.token = 0
        if member.cancel_retry is not None:
            member.cancel_retry()
            member.cancel_retry = None

    # --- what an end leads to ----------------------------------------------------------------------------------------

    def _find(self, exit: ChildExit) -> Child | None:
        """The running child that ``exit`` speaks of; ``None`` for one that was stopped or replaced meanwhile."""
        member = self._members.get(exit.ref.path.rpartition("/")[2])
        if member is None or member.state != "running" or exit.incarnation != member.slot.incarnation:
            return None
        return member

    def _judge(
        self, member: Child, reason: Reason, *, lived: float | None = None
    ) -> Literal["restart", "retry", "finished", "gave_up"]:
        """Judge an end after ``lived`` seconds, or a start that failed.

        ``restart`` is for the caller to do, at once; the budget is spent where it counts. For ``retry`` a
        :class:`Retry` is on its way: after a backoff, or after a start that failed. Where the patience is at its end,
        this supervisor ends.
        """
        now = self.system.loop.time()
        rule = judge(member.spec.restart, member.spec.rules, reason)
        if rule == "finished":
            return "finished"
        backoff = member.spec.backoff
        if backoff is None and rule == "backoff":
            backoff = Backoff()
        if backoff is not None and lived is not None and lived >= backoff.reset_after:
            member.forget_troubles()
        if rule == "escalate":
            return self._give_up(member, reason, 0, 0.0)
        if backoff is not None and rule == "backoff":
            if member.trouble_since is None:
                member.trouble_since = now
            if now - member.trouble_since > backoff.give_up_after:
                return self._give_up(member, reason, member.in_a_row, backoff.give_up_after)
        elif backoff is None and lived is None:
            # As in OTP, an attempt is counted when it is made: administration may come in between.
            self._retry_later(member, reason, None, unpaid=reason)
            return "retry"
        elif not self._pay(member, reason):
            return "gave_up"
        if backoff is not None:
            self._retry_later(member, reason, backoff)
            return "retry"
        self._call_off(member)
        self._count(member)
        return "restart"

    def _pay(self, member: Child, cause: Reason) -> bool:
        """Spend the budget for one more start of ``member``; if there is none left, this supervisor ends."""
        if self._budget.spend(self.system.loop.time()):
            return True
        self._give_up(member, cause, self._budget.max_restarts, self._budget.max_seconds)
        return False

    def _give_up(self, member: Child, cause: Reason, restarts: int, seconds: float) -> Literal["gave_up"]:
        member.state = "undefined"
        self.stop(MaxRestarts(child=member.spec.name, cause=cause, restarts=restarts, seconds=seconds))
        return "gave_up"

    def _lived(self, member: Child) -> float:
        return self.system.loop.time() - member.started_at

    def _count(self, member: Child) -> None:
        member.state = "restarting"
        member.restarts += 1
        member.in_a_row += 1

    def _retry_later(
        self, member: Child, reason: Reason, backoff: Backoff | None, *, unpaid: Reason | None = None
    ) -> None:
        """Have ``member`` tried again by a message to this supervisor, so that administration can come in between."""
        self._call_off(member)
        self._tokens += 1
        member.token = self._tokens
        retry = Retry(member.spec.name, member.token, unpaid)
        seconds = 0.0
        if backoff is not None:
            floor = reason.retry_after if isinstance(reason, Crashed) and reason.retry_after else 0.0
            seconds = backoff.delay(member.in_a_row, self.system.random, floor)
        self._count(member)
        if seconds > 0:
            member.cancel_retry = self.send_after(seconds, retry)
        else:
            self._cell.post(retry)

    def _retry_now(self, member: Child) -> None:
        """Have ``member``, which only waits for another, started by a message to this supervisor. Costs no budget."""
        self._call_off(member)
        self._tokens += 1
        member.token = self._tokens
        member.state = "restarting"
        self._cell.post(Retry(member.spec.name, member.token))

    # --- administration ----------------------------------------------------------------------------------------------

    def _add(self, spec: ChildSpec[Actor]) -> Child:
        member = Child(spec, self.system.child_slot(self._cell, spec.name))
        self._members[spec.name] = member
        return member

    def _drop(self, member: Child) -> None:
        self._members.pop(member.spec.name, None)
        self.system.release(member.slot)

    def _member(self, name: str) -> Child:
        member = self._members.get(name)
        if member is None:
            known = ", ".join(self._members) or "none"
            raise NoSuchChild(f"{self.path} has no child {name!r}; it has: {known}")
        return member

    @endpoint
    async def which_children(self) -> list[ChildInfo]:
        """The children: those of a static supervisor in start order, others in no promised one."""
        return [member.info() for member in self._members.values()]

    @endpoint
    async def which_child(self, name: str) -> ChildInfo:
        """One of them. Raises NoSuchChild."""
        return self._member(name).info()

    @endpoint
    async def count_children(self) -> ChildCounts:
        """How many there are of what."""
        return self.counts()

    @endpoint
    async def get_childspec(self, name: str) -> ChildSpec[Actor]:
        """What a child is started from, defaults included. From another process all its arguments come by name.

        Raises:
            NoSuchChild: there is none of that name.
            NodeError: asked from another process, to which an argument cannot cross.
        """
        return self._member(name).spec

    def counts(self) -> ChildCounts:
        """:meth:`count_children` without a call, for the supervisor itself."""
        members: Sequence[Child] = list(self._members.values())
        supervisors = sum(1 for member in members if member.spec.supervisor)
        return ChildCounts(
            specs=len(members),
            active=sum(1 for member in members if member.state == "running"),
            supervisors=supervisors,
            workers=len(members) - supervisors,
        )
