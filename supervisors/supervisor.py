"""Supervisors: actors whose work is that other actors run.

A counter that breaks, and heals:

>>> import asyncio
>>> from palmette.actors import Actor, ActorDied, System, endpoint
>>> from palmette.supervisors import Supervisor, child
>>> class Counter(Actor):
...     def __init__(self, start: int = 0) -> None:
...         self.value = start
...     @endpoint
...     async def add(self, step: int) -> int:
...         if step < 0:
...             raise ValueError(f"step must be >= 0, got {step}")
...         self.value += step
...         return self.value
>>> tree = Supervisor.spec(children=[child(Counter, start=10, name="counter")])
>>> async def main() -> None:
...     async with System.start(tree) as system:
...         counter = system.whereis("counter", Counter)
...         print(await counter.call(Counter.add, 5))
...         try:
...             await counter.call(Counter.add, -1)
...         except ActorDied as error:
...             print(error)
...         await system.wait_for("counter", Counter)
...         print(await counter.call(Counter.add, 5), "again, in incarnation", counter.incarnation)
>>> asyncio.run(main())
15
/counter died: ValueError: step must be >= 0, got -1
15 again, in incarnation 2

The semantics are those of OTP's ``supervisor``: children start from left to right, each before the next; a failing
first start stops those already up, in reverse, and is not retried; children stop in reverse. A death that leads to a
restart triggers the group of the strategy:

=================  =============================================================
``one_for_one``    the child alone
``one_for_all``    all children
``rest_for_one``   the child and those that were started after it
=================  =============================================================

A child that declines to start (its ``started`` raises :class:`~palmette.actors.Decline`) is no failure: the others go
on without it. Its spec stays, with no process, unless it is temporary; it is asked again by
:meth:`Supervisor.restart_child`, and with its group.

Five differences, on purpose: restarts may wait (``backoff``); a spent budget ends the supervisor with ``MaxRestarts``,
abnormal for its parent, while ``auto_shutdown`` ends it with ``Shutdown("completed")``; ``rules`` treat exit reasons
specially; a child that completed, or was stopped by :meth:`Supervisor.terminate_child`, stays so when its siblings'
group restarts, unless its spec says ``resurrect``; and a child may live in another process.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from palmette.actors.actor import Actor
from palmette.actors.cell import FAIR_SHARE
from palmette.actors.cluster.needs import Needs
from palmette.actors.endpoints import endpoint
from palmette.actors.exits import MaxRestarts, Reason, Shutdown, describe
from palmette.supervisors.children import Child, Restarter, declined
from palmette.supervisors.errors import BadSpec, ChildExists, StartDeclined, StartRefused
from palmette.supervisors.policy import Backoff, Budget, Directive, Restart, judge
from palmette.supervisors.spec import ChildSpec, Isolation
from palmette.supervisors.spec import Shutdown as ShutdownTime

Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]
AutoShutdown = Literal["never", "any_significant", "all_significant"]


class Supervisor(Restarter):
    """A static supervisor. Describe one with :meth:`spec`."""

    def __init__(
        self,
        *,
        children: Sequence[ChildSpec[Actor]] = (),
        strategy: Strategy = "one_for_one",
        max_restarts: int = 3,
        max_seconds: float = 5.0,
        auto_shutdown: AutoShutdown = "never",
    ) -> None:
        _check(children, strategy, auto_shutdown)
        self._specs = tuple(children)
        self._strategy: Strategy = strategy
        self._auto_shutdown: AutoShutdown = auto_shutdown
        self._budget = Budget(max_restarts, max_seconds)
        self._members: dict[str, Child] = {}

    @staticmethod
    def spec(
        *,
        children: Sequence[ChildSpec[Actor]] = (),
        name: str = "supervisor",
        strategy: Strategy = "one_for_one",
        max_restarts: int = 3,
        max_seconds: float = 5.0,
        auto_shutdown: AutoShutdown = "never",
        restart: Restart = "permanent",
        shutdown: ShutdownTime = "infinity",
        significant: bool = False,
        isolation: Isolation | None = None,
        on: Needs | None = None,
        backoff: Backoff | None = None,
        rules: dict[str, Directive] | None = None,
        register: str | None = None,
        start_timeout: float = 120.0,
    ) -> ChildSpec[Supervisor]:
        """Describe a supervisor and its children. Raises BadSpec before anything starts."""
        kwargs: dict[str, object] = {
            "children": tuple(children),
            "strategy": strategy,
            "max_restarts": max_restarts,
            "max_seconds": max_seconds,
            "auto_shutdown": auto_shutdown,
        }
        _check(children, strategy, auto_shutdown)
        Budget.check(max_restarts, max_seconds)
        return ChildSpec(
            actor=Supervisor,
            kwargs=kwargs,
            name=name,
            restart=restart,
            shutdown=shutdown,
            significant=significant,
            isolation=isolation or ("inline" if on is None else "process"),
            on=on,
            backoff=backoff,
            rules=rules or {},
            register=register,
            start_timeout=start_timeout,
            supervisor=True,
        )

    # --- life ------------------------------------------------------------------------------------------------------

    async def started(self) -> None:
        for spec in self._specs:
            member = self._add(spec)
            if len(self._members) % FAIR_SHARE == 0:
                await asyncio.sleep(0)
            await self._start(member)  # StartFailed goes up; stopping() rolls back what is already up
            if member.state == "declined":
                self._forget_if_temporary(member)

    def _forget_if_temporary(self, member: Child) -> None:
        """``member`` is down: the spec of a temporary child has no further use."""
        if member.spec.restart == "temporary":
            self._drop(member)

    async def stopping(self, reason: Reason) -> None:
        for member in reversed(self._members.values()):
            member.state = "stopped"
            await self._stop(member)

    # --- exits and restarts ----------------------------------------------------------------------------------------

    async def _exited(self, member: Child, reason: Reason) -> None:
        match self._judge(member, reason, lived=self._lived(member)):
            case "restart":
                await self._restart(member)
            case "retry":
                await self._clear_group(member)  # nobody goes on without it while it waits
            case "finished":
                self._finish(member)
            case "gave_up":
                pass  # stopping() ends the others

    def _finish(self, member: Child) -> None:
        """``member`` has ended by itself, for good."""
        member.state = "completed"
        self._forget_if_temporary(member)
        if member.spec.significant:
            self._auto_stop()

    def _has_finished(self, member: Child) -> bool:
        """Whether it ended for good while nobody looked: the news of it is still in the mailbox."""
        if member.state != "running" or member.slot.target is not None or member.slot.last_exit is None:
            return False
        return judge(member.spec.restart, member.spec.rules, member.slot.last_exit) == "finished"

    def _group(self, member: Child) -> list[Child]:
        members = list(self._members.values())
        match self._strategy:
            case "one_for_one":
                return [member]
            case "one_for_all":
                return members
            case "rest_for_one":
                return members[members.index(member) :]

    async def _clear_group(self, member: Child) -> None:
        """Stop everybody else who restarts together with ``member``, last first."""
        for other in reversed(self._group(member)):
            if other is not member and not other.spec.resurrect and self._has_finished(other):
                self._finish(other)
            if other is member or (other.state in ("stopped", "completed") and not other.spec.resurrect):
                continue
            await self._stop(other)
            other.state = "undefined"
            self._forget_if_temporary(other)

    async def _restart(self, member: Child) -> None:
        await self._clear_group(member)
        for other in self._group(member):
            if self._cell.ending is not None:
                return  # asked to end meanwhile: what is not up yet need not come up
            if other.state not in ("undefined", "restarting"):
                continue
            failure = await self._try(other)
            if failure is None:
                continue
            match self._judge(other, failure.reason):
                case "retry":
                    # one_for_all starts over; rest_for_one keeps what is up, and resumes at the one that failed.
                    if self._strategy == "one_for_all" and other.cancel_retry is not None:
                        await self._clear_group(other)  # before the wait, not after it
                    return
                case "finished":
                    self._finish(other)
                case _:
                    return  # stopping() ends the others

    def _auto_stop(self) -> None:
        members = self._members.values()
        # What is down with its group comes back with it, unless nobody's restart is pending any more.
        pending = any(member.state == "restarting" for member in members)
        active = ("running", "restarting", "undefined") if pending else ("running",)
        if self._auto_shutdown == "any_significant" or (
            self._auto_shutdown == "all_significant"
            and not any(member.spec.significant and member.state in active for member in members)
        ):
            self.stop(Shutdown("completed"))

    # --- administration --------------------------------------------------------------------------------------------

    @endpoint
    async def start_child(self, spec: ChildSpec[Actor]) -> str:
        """Add a child at the end of the order and start it; its path. A child that fails to start is not kept.

        Raises:
            ChildExists: the name is taken, by a living child or by a spec that is kept.
            StartRefused: it did not start.
            StartDeclined: it declined to start. Its spec is kept, unless it is temporary.
        """
        if spec.significant and self._auto_shutdown == "never":
            raise StartRefused(f"{spec.name!r} is significant, but {self.path} has auto_shutdown=never")
        if spec.name in self._members:
            raise ChildExists(f"{self.path} has a child {spec.name!r} already ({self._members[spec.name].state})")
        member = self._add(spec)
        failure = await self._try(member)
        if failure is not None:
            self._drop(member)
            raise StartRefused(str(failure))
        if member.state == "declined":
            self._forget_if_temporary(member)
            raise StartDeclined(declined(member))
        return member.slot.path

    @endpoint
    async def terminate_child(self, name: str) -> None:
        """Stop a child, or end its wait for a restart. Its spec is kept unless it is temporary. Idempotent."""
        member = self._member(name)
        group = self._group(member) if member.cancel_retry is not None else []
        member.state = "stopped"
        await self._stop(member)
        self._forget_if_temporary(member)
        # A group that waited out a backoff with it need not wait any longer.
        for other in group:
            if other.state == "undefined":
                self._retry_now(other)
                break

    @endpoint
    async def restart_child(self, name: str) -> None:
        """Start a child that is stopped or completed, or declined before. Costs no budget.

        Raises:
            NoSuchChild, ChildExists: there is none of that name, or it is running or about to.
            StartRefused, StartDeclined: it did not start; its spec is kept.
        """
        member = self._member(name)
        if member.state in ("running", "restarting"):
            raise ChildExists(f"{member.slot.path} is {member.state}")
        member.forget_troubles()
        failure = await self._try(member)
        if failure is not None:
            raise StartRefused(str(failure))
        if member.state == "declined":
            raise StartDeclined(declined(member))

    @endpoint
    async def delete_child(self, name: str) -> None:
        """Forget a child that is down. Raises NoSuchChild, or ChildExists for one that is running or about to."""
        member = self._member(name)
        if member.state in ("running", "restarting"):
            raise ChildExists(f"{member.slot.path} is {member.state}; terminate it first")
        self._drop(member)


def _check(children: Sequence[ChildSpec[Actor]], strategy: Strategy, auto_shutdown: AutoShutdown) -> None:
    """Raise BadSpec where these cannot go together."""
    if strategy not in ("one_for_one", "one_for_all", "rest_for_one"):
        raise BadSpec(f"strategy is one_for_one, one_for_all or rest_for_one, not {strategy!r}")
    if auto_shutdown not in ("never", "any_significant", "all_significant"):
        raise BadSpec(f"auto_shutdown is never, any_significant or all_significant, not {auto_shutdown!r}")
    names = [spec.name for spec in children]
    if len(names) > 1 and len(set(names)) < len(names):
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        raise BadSpec(f"two children cannot share a name: {', '.join(twice)}")
    lost = [spec.name for spec in children if spec.significant and auto_shutdown == "never"]
    if lost:
        raise BadSpec(f"significant children ({', '.join(lost)}) need auto_shutdown other than never")


def why(reason: Reason) -> str:
    """One line on why a tree ended, naming the child at the bottom of a chain of spent budgets."""
    names: list[str] = []
    while isinstance(reason, MaxRestarts):
        names.append(reason.child)
        reason = reason.cause
    return f"{'/'.join(names)}: {describe(reason)}" if names else describe(reason)
