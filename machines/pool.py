"""A pool of machines: warm ones wait for work, new ones are made no faster than the provider can bear.

::

    machines                 rest_for_one
    ├── gate                 how many may be made at a time, and per second
    ├── pool                 who has which; keeps so many warm
    └── fleet                dynamic: one actor per machine
        or fleets            several of them, on hosts that offer what is needed: palmette.machines.fleet

No fleet makes sense of what an earlier pool has given out, and starts over with it; the pool goes on without a fleet
that is lost, with those that are left.

A machine is leased by an actor and belongs to it until it gives it back or ends; then it is thrown away (nobody is
given a machine that another has worked in) and another is made. :class:`~palmette.machines.LeasedMachine` does this for
a tree that has a machine as a child. A machine that is lost is an exit: whoever leased it is told by its link, and
another is made, after a backoff where the provider is at its limit (:data:`BACKOFF`); an image that cannot be used is
not tried again.

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
    ActorDied,
    Crashed,
    DeadlineExceeded,
    Down,
    Killed,
    Reason,
    Ref,
    Refused,
    ReplyToken,
    Unreachable,
    describe,
    endpoint,
)
from palmette.actors.cluster.needs import Needs
from palmette.actors.exits import reason_of
from palmette.machines.actor import MachineActor
from palmette.machines.fleet import FleetUp, MachineUp, PooledMachine, fleet_spec, fleets_spec
from palmette.machines.gate import Gate
from palmette.supervisors import (
    Backoff,
    BadSpec,
    ChildSpec,
    DynamicSupervisor,
    StartRefused,
    Supervisor,
    child,
)

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
    fleets: int
    """Where machines can be started at present."""
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
    fleet: str
    """Its path."""
    monitor: int | None = None
    """On the machine, once it has been started."""
    state: Literal["starting", "warm", "leased"] = "starting"
    holder: int | None = None
    """The monitor on who has it."""


class MachinePool(Actor):
    """See the module's text. Part of the tree that :func:`machine_pool` describes."""

    def __init__(self, image: str, owner: str, warm: int, most: int | None) -> None:
        self._image = image
        self._owner = owner
        self._spare = warm
        self._most = most
        self._fleets: dict[str, tuple[Ref[DynamicSupervisor], int]] = {}
        """Those that are up, by path, each with the monitor on it."""
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
        self._fill()
        return holder  # pyright: ignore[reportReturnType] - not looked at: the reply is owed

    @endpoint
    async def give_back(self, machine: Ref[MachineActor]) -> None:
        """``machine`` is not needed any more, and is thrown away. One that is not leased is fine, too."""
        member = self._members.get(machine.path)
        if member is not None and member.state == "leased":
            self._throw_away(member)

    @endpoint
    async def statistics(self) -> PoolStatistics:
        """At a glance."""
        states = Counter(member.state for member in self._members.values())
        return PoolStatistics(
            warm=states["warm"],
            starting=states["starting"],
            leased=states["leased"],
            waiting=sum(waiter.token.is_wanted() for waiter in self._waiting.values()),
            fleets=len(self._fleets),
            last_failure=self._last_failure,
        )

    # --- what it is told ---------------------------------------------------------------------------------------------

    async def receive(self, message: object) -> None:
        match message:
            case MachineUp(machine):
                self._is_up(machine)
            case FleetUp(fleet):
                self._fleets[fleet.path] = (fleet, self.monitor(fleet))
                self._fill()
            case Down(ref, reason, monitor):
                held = self._by_holder.get(monitor)
                if held is not None:
                    self._throw_away(held)
                elif self._fleets.get(ref.path, (None, None))[1] == monitor:
                    del self._fleets[ref.path]  # of its machines we are told one by one
                else:
                    self._lost(ref.path, reason)
            case Refill():
                self._is_pausing = False
                self._fill()
            case GiveUp(number):
                waiter = self._waiting.pop(number, None)
                if waiter is not None:
                    why = f"; the last one failed: {self._last_failure}" if self._last_failure else ""
                    text = f"no machine came up within {LEASE_SECONDS:g} s{why}"
                    waiter.token.fail(NoMachine(text, self._last_cause))
            case _:
                await super().receive(message)

    # --- the machines ------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Start as many machines as are missing, where there are the fewest."""
        if self._is_pausing or not self._fleets:
            return
        wanted = sum(waiter.token.is_wanted() for waiter in self._waiting.values()) + self._spare
        ready = sum(member.state != "leased" for member in self._members.values())
        room = wanted if self._most is None else self._most - len(self._members)
        load = Counter(dict.fromkeys(self._fleets, 0))
        load.update(member.fleet for member in self._members.values() if member.fleet in self._fleets)
        for _ in range(min(wanted - ready, room)):
            path = min(load, key=load.__getitem__)
            load[path] += 1
            name = f"m{next(self._numbers)}"
            member = Member(self.system.ref_at(f"{path}/{name}", MachineActor), path)
            self._members[member.machine.path] = member
            # Beside the mailbox: one fleet that does not answer must not keep the others' machines waiting.
            self.start_task(self._start(self._fleets[path][0], member, name))

    async def _start(self, fleet: Ref[DynamicSupervisor], member: Member, name: str) -> None:
        spec = child(
            PooledMachine,
            self._image,
            self._owner,
            self.sibling("gate", Gate),
            self.ref,
            name=name,
            restart="temporary",
            shutdown=STOP_SECONDS,
        )
        try:
            await fleet.call(DynamicSupervisor.start_child, spec)
        except StartRefused as refused:
            self._lost(member.machine.path, reason_of(refused))
        except (ActorDied, DeadlineExceeded) as error:
            self._lost(member.machine.path, Killed(f"with its fleet: {error}"))
        else:
            member.monitor = self.monitor(member.machine)

    def _is_up(self, machine: Ref[MachineActor]) -> None:
        member = self._members.get(machine.path)
        if member is None:
            # Its start was given up; or it is on its way out already, and this does not hurry it.
            self.start_task(machine.terminate(timeout=STOP_SECONDS))
        elif member.state == "starting":
            self._failures = 0
            self._absent_since = None
            member.state = "warm"
            self._warm.append(member)
            self._serve()

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

    def _throw_away(self, member: Member) -> None:
        """End a machine and make room for another."""
        self._forget(member)
        # Not through the fleet's terminate_child: that would stop one after the other, and hold up those that start.
        self.start_task(member.machine.terminate(timeout=STOP_SECONDS))
        self._fill()

    def _lost(self, path: str, reason: Reason) -> None:
        member = self._members.get(path)
        if member is None:
            return
        was_starting = member.state == "starting"
        self._forget(member)
        if not was_starting or isinstance(reason, Killed | Unreachable):
            self._fill()  # it is not the provider's word that there is no more to be had
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
        if member.monitor is not None:
            self.demonitor(member.monitor)
        if member.state == "warm":
            self._warm.remove(member)
        if member.holder is not None:
            self.demonitor(member.holder)
            del self._by_holder[member.holder]


def machine_pool(
    image: str,
    owner: str,
    *,
    warm: int = 0,
    most: int | None = None,
    at_once: int = 8,
    per_second: float | None = None,
    register: str = "machines",
    on: Needs | None = None,
    fleets: int = 1,
) -> ChildSpec[Supervisor]:
    """Describe a pool of machines of ``image`` that belong to run ``owner``.

    Args:
        warm: machines that are kept up for who comes next.
        most: machines there may be, leased ones included; ``None``: as many as are asked for.
        at_once: machines that may be made at the same time.
        per_second: machines that may be begun per second.
        register: the name that :class:`~palmette.machines.LeasedMachine` finds the pool by.
        on: what the hosts offer that the machines live on, each fleet of them in a process there. Without it they live
            in this process.
        fleets: how many fleets there are with ``on``. They are spread over the hosts, if ``on`` does not say otherwise.

    Raises:
        BadSpec: ``warm`` is more than ``most``, or one of them makes no sense.
    """
    if warm < 0 or (most is not None and most < max(1, warm)):
        raise BadSpec(f"a pool keeps 0 <= warm <= most machines, and at least one may be there; got {warm} and {most}")
    if on is None and fleets != 1:
        raise BadSpec(f"{fleets} fleets want hosts to live on; say on=needs(...), or leave fleets out")
    where: ChildSpec[Actor] = fleet_spec(register) if on is None else fleets_spec(register, image, fleets, on)
    children: list[ChildSpec[Actor]] = [
        child(Gate, at_once, per_second, name="gate", register=f"{register}.gate"),
        child(MachinePool, image, owner, warm, most, name="pool", register=register),
        where,
    ]
    return Supervisor.spec(name="machines", register=f"{register}.tree", strategy="rest_for_one", children=children)
