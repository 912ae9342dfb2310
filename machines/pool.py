"""A pool of machines: warm ones wait for work, new ones are made no faster than the provider can bear.

::

    machines                 one_for_all
    ├── gate                 how many may be made at a time, and per second
    ├── fleet                dynamic: one actor per machine
    └── pool                 who has which; keeps so many warm

A machine is leased by an actor and belongs to it until it gives it back or ends; then it is thrown away (nobody is
given a machine that another has worked in) and another is made. :class:`LeasedMachine` does this for a tree that has
a machine as a child. A machine that is lost is an exit: whoever leased it is told by its link, the fleet makes a new
one, after a backoff where the provider is at its limit (:data:`RULES`); an image that cannot be used is not tried
again.

    >>> from palmette.machines.pool import machine_pool
    >>> machine_pool("docker:python:3.12", "run-1", warm=4, most=64, per_second=5.0)
    <child 'machines': Supervisor, permanent, inline>

::

    Refused (actors)
    └── NoMachine             to whoever asked for a machine: there is none to be had, and why
        ├── ImageRefused          and there never will be one
        └── ProviderAbsent        who makes them does not answer
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from typing import Final, Literal

import msgspec

from palmette.actors import (
    Actor,
    Crashed,
    Down,
    Reason,
    Ref,
    Refused,
    ReplyToken,
    deadline,
    describe,
    endpoint,
)
from palmette.machines.actor import MachineActor
from palmette.machines.gate import Gate
from palmette.supervisors import Backoff, BadSpec, ChildSpec, DynamicSupervisor, Supervisor, child

START_SECONDS: Final = 600.0
"""For one machine to come up, its turn at the gate included."""
LEASE_SECONDS: Final = 900.0
"""How long who needs a machine waits for one."""
STOP_SECONDS: Final = 30.0
"""For a machine to kill its commands and remove what it made."""
HOPELESS: Final = ("ImageUnusable", "UnknownImage", "MachineError")
"""Errors that the next machine of the same image would meet as well."""
ABSENT: Final = ("daemon_gone", "daemon_frozen", "connection_lost")
"""Causes that say that nobody is there who could make a machine."""
ABSENT_SECONDS: Final = 30.0
"""How long that may go on before whoever waits is told: a daemon comes back from a restart sooner."""
BACKOFF: Final = Backoff(min=0.5, max=60.0)
"""Of making machines, while the provider is at its limit or the daemon does not answer."""


class NoMachine(Refused):
    """There is no machine to be had, and this is why."""

    retryable = True

    def __init__(self, text: str, cause: str = "") -> None:
        super().__init__(text)
        self.cause = cause
        """Of the last machine that could not be made, in the word of its evidence."""


class ImageRefused(NoMachine):
    """The image cannot be a machine. Another try fails alike."""

    retryable = False


class ProviderAbsent(NoMachine):
    """Nobody answers who could make a machine. To wait longer is no remedy: somebody has to see to it."""


class PoolStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A pool at a glance."""

    warm: int
    starting: int
    leased: int
    waiting: int
    """Who waits for a machine."""
    last_failure: str = ""


class Refill(msgspec.Struct, frozen=True):
    """The backoff is over."""


class GiveUp(msgspec.Struct, frozen=True):
    """Somebody has waited long enough."""

    number: int


class Waiter(msgspec.Struct, frozen=True):
    """Somebody who needs a machine."""

    holder: Ref[Actor]
    token: ReplyToken[object]


class Member(msgspec.Struct):
    """The pool's record of one machine."""

    machine: Ref[MachineActor]
    monitor: int
    state: Literal["starting", "warm", "leased"] = "starting"
    holder: int | None = None
    """The monitor on who has it."""


class PooledMachine(MachineActor):
    """A machine that comes up through the gate, and tells the pool when it is there."""

    async def continued(self) -> None:
        above = self.path.rpartition("/")[0].rpartition("/")[0]
        gate = self.system.ref_at(f"{above}/gate", Gate)
        with deadline(START_SECONDS):
            await gate.call(Gate.enter, self.ref)
        await super().continued()
        gate.cast(Gate.leave, self.ref)
        self.system.ref_at(f"{above}/pool", MachinePool).cast(MachinePool.is_up, self.ref)


class MachinePool(Actor):
    """See the module's text. Part of the tree that :func:`machine_pool` describes."""

    def __init__(self, image: str, owner: str, warm: int, most: int | None) -> None:
        self._image = image
        self._owner = owner
        self._spare = warm
        self._most = most
        self._members: dict[str, Member] = {}
        self._by_holder: dict[int, Member] = {}
        self._warm: deque[Member] = deque()
        self._waiting: dict[int, Waiter] = {}
        self._numbers = itertools.count(1)
        self._failures = 0
        """Times in a row that machines were begun, and one could not be made."""
        self._absent_since: float | None = None
        """When it was first seen that nobody answers."""
        self._is_pausing = False
        self._last_failure = ""
        self._last_cause = ""

    async def continued(self) -> None:
        await self._fill()

    # --- for those who need machines ---------------------------------------------------------------------------------

    @endpoint
    async def lease(self, holder: Ref[Actor]) -> Ref[MachineActor]:
        """A machine for ``holder`` until it gives it back or ends.

        Raises:
            NoMachine: there was none for :data:`LEASE_SECONDS`.
            ProviderAbsent: nobody has answered who could make one, for :data:`ABSENT_SECONDS`.
            ImageRefused: there never will be one.
        """
        number = next(self._numbers)
        self._waiting[number] = Waiter(holder, self.reply_later())
        self.send_after(LEASE_SECONDS, GiveUp(number))
        self._serve()
        await self._fill()
        return holder  # pyright: ignore[reportReturnType] - not looked at: the reply is owed

    @endpoint
    async def give_back(self, machine: Ref[MachineActor]) -> None:
        """``machine`` is not needed any more, and is thrown away. One that is not leased is fine, too."""
        member = self._members.get(machine.path)
        if member is not None and member.state == "leased":
            await self._throw_away(member)

    @endpoint
    async def statistics(self) -> PoolStatistics:
        """At a glance."""
        states = Counter(member.state for member in self._members.values())
        return PoolStatistics(
            warm=states["warm"],
            starting=states["starting"],
            leased=states["leased"],
            waiting=sum(waiter.token.is_wanted() for waiter in self._waiting.values()),
            last_failure=self._last_failure,
        )

    # --- for machines ------------------------------------------------------------------------------------------------

    @endpoint
    async def is_up(self, machine: Ref[MachineActor]) -> None:
        """A machine of this pool may be used."""
        member = self._members.get(machine.path)
        if member is None or member.state != "starting":
            return
        self._failures = 0
        self._absent_since = None
        member.state = "warm"
        self._warm.append(member)
        self._serve()

    async def receive(self, message: object) -> None:
        match message:
            case Down(ref, reason, monitor):
                held = self._by_holder.get(monitor)
                if held is not None:
                    await self._throw_away(held)
                else:
                    await self._lost(ref.path, reason)
            case Refill():
                self._is_pausing = False
                await self._fill()
            case GiveUp(number):
                waiter = self._waiting.pop(number, None)
                if waiter is not None:
                    why = f"; the last one failed: {self._last_failure}" if self._last_failure else ""
                    text = f"no machine came up within {LEASE_SECONDS:g} s{why}"
                    waiter.token.fail(NoMachine(text, self._last_cause))
            case _:
                await super().receive(message)

    # --- the machines ------------------------------------------------------------------------------------------------

    async def _fill(self) -> None:
        """Start as many machines as are missing."""
        if self._is_pausing:
            return
        wanted = sum(waiter.token.is_wanted() for waiter in self._waiting.values()) + self._spare
        ready = sum(member.state != "leased" for member in self._members.values())
        room = wanted if self._most is None else self._most - len(self._members)
        fleet = self.sibling("fleet", DynamicSupervisor)
        for _ in range(min(wanted - ready, room)):
            spec = child(
                PooledMachine,
                self._image,
                self._owner,
                name=f"m{next(self._numbers)}",
                restart="temporary",
                shutdown=STOP_SECONDS,
            )
            path = await fleet.call(DynamicSupervisor.start_child, spec)
            machine = self.system.ref_at(path, MachineActor)
            self._members[path] = Member(machine, self.monitor(machine))

    def _serve(self) -> None:
        """Give warm machines to those who wait, first come first served."""
        while self._warm and self._waiting:
            waiter = self._waiting.pop(next(iter(self._waiting)))
            if not waiter.token.is_wanted():
                continue
            member = self._warm.popleft()
            member.state = "leased"
            member.holder = self.monitor(waiter.holder)
            self._by_holder[member.holder] = member
            waiter.token.reply(member.machine)

    async def _throw_away(self, member: Member) -> None:
        """End a machine and make room for another."""
        self._forget(member)
        # Not through the fleet's terminate_child: that would stop one after the other, and hold up those that start.
        self.start_task(member.machine.terminate(timeout=STOP_SECONDS))
        await self._fill()

    async def _lost(self, path: str, reason: Reason) -> None:
        member = self._members.get(path)
        if member is None:
            return
        was_starting = member.state == "starting"
        self._forget(member)
        if not was_starting:
            await self._fill()
            return
        self._last_failure = describe(reason)
        self._last_cause = reason.cause if isinstance(reason, Crashed) else ""
        if isinstance(reason, Crashed) and reason.error.rpartition(".")[2] in HOPELESS:
            self._refuse(ImageRefused(reason.text))
            return  # and none is made until somebody asks again
        now = self.system.loop.time()
        if self._last_cause not in ABSENT:
            self._absent_since = None
        elif self._absent_since is None:
            self._absent_since = now
        elif now - self._absent_since >= ABSENT_SECONDS:
            silent = f"for {now - self._absent_since:.0f} s nobody has answered who makes machines of {self._image!r}"
            self._refuse(ProviderAbsent(f"{silent}: {self._last_failure}", self._last_cause))
        if not self._is_pausing:
            self._is_pausing = True
            self._failures += 1
            self.send_after(BACKOFF.delay(self._failures - 1, self.system.random), Refill())

    def _refuse(self, error: NoMachine) -> None:
        """Whoever waits is told."""
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting.values():
            waiter.token.fail(error)

    def _forget(self, member: Member) -> None:
        self._members.pop(member.machine.path, None)
        self.demonitor(member.monitor)
        if member.state == "warm":
            self._warm.remove(member)
        if member.holder is not None:
            self.demonitor(member.holder)
            del self._by_holder[member.holder]


class LeasedMachine(Actor):
    """A machine of a pool as a child in somebody's tree: leased when it starts, thrown away when it ends.

    Ends with the machine, for the machine's reason.
    """

    def __init__(self, pool: str = "machines") -> None:
        self._pool_path = pool
        self._machine: Ref[MachineActor] | None = None

    async def continued(self) -> None:
        with deadline(LEASE_SECONDS + 10.0):  # the pool gives up first, and says why
            self._machine = await self._pool.call(MachinePool.lease, self.ref)
        self.link(self._machine)

    async def stopping(self, reason: Reason) -> None:
        # One that is killed does not get here: the pool watches it.
        if self._machine is not None and self._pool.is_alive():
            self._pool.cast(MachinePool.give_back, self._machine)

    @endpoint
    async def machine(self) -> Ref[MachineActor]:
        """The machine."""
        assert self._machine is not None, "continued() comes before any request"
        return self._machine

    @property
    def _pool(self) -> Ref[MachinePool]:
        return self.system.whereis(self._pool_path, MachinePool)


def machine_pool(
    image: str,
    owner: str,
    *,
    warm: int = 0,
    most: int | None = None,
    at_once: int = 8,
    per_second: float | None = None,
    register: str = "machines",
) -> ChildSpec[Supervisor]:
    """Describe a pool of machines of ``image`` that belong to run ``owner``.

    Args:
        warm: machines that are kept up for who comes next.
        most: machines there may be, leased ones included; ``None``: as many as are asked for.
        at_once: machines that may be made at the same time.
        per_second: machines that may be begun per second.
        register: the name that :class:`LeasedMachine` finds the pool by.

    Raises:
        BadSpec: ``warm`` is more than ``most``, or one of them makes no sense.
    """
    if warm < 0 or (most is not None and most < max(1, warm)):
        raise BadSpec(f"a pool keeps 0 <= warm <= most machines, and at least one may be there; got {warm} and {most}")
    children: list[ChildSpec[Actor]] = [
        child(Gate, at_once, per_second, name="gate", register=f"{register}.gate"),
        DynamicSupervisor.spec(name="fleet", register=f"{register}.fleet"),
        child(MachinePool, image, owner, warm, most, name="pool", register=register),
    ]
    return Supervisor.spec(name="machines", register=f"{register}.tree", strategy="one_for_all", children=children)
