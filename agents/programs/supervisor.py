"""The supervisor of programs: a dynamic supervisor that tells each child's record what became of it.

Every program is one itself, of what it starts: other programs, agents, machines. The root of a system of programs is
a plain one.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal, Protocol

from palmette.actors import Actor, Killed, Reason, Ref, Shutdown, StartFailed, endpoint
from palmette.actors.errors import PalmetteError
from palmette.actors.exits import reason_of
from palmette.agents.programs.record import Record
from palmette.agents.programs.stream import Event
from palmette.supervisors import BadSpec, ChildSpec
from palmette.supervisors.children import Child
from palmette.supervisors.dynamic import DynamicRestarter


class Told(Protocol):
    """Who is told what becomes of a child: a program's record, an agent."""

    is_unwanted: bool
    """Set before the child is asked to end: it is not started again by policy."""

    def started(self, ref: Ref[Actor]) -> None: ...

    def restarting(self, reason: Reason) -> None: ...

    def ended(self, reason: Reason) -> None:
        """For good. May come twice."""
        ...


class ProgramSupervisor(DynamicRestarter):
    """See the module's text."""

    waits_in_place = False

    def __init__(self, *, max_restarts: int = 3, max_seconds: float = 60.0) -> None:
        super().__init__(max_restarts=max_restarts, max_seconds=max_seconds)
        self._told: dict[str, Told] = {}
        self._numbers: Counter[str] = Counter()

    @staticmethod
    def spec(*, name: str, max_restarts: int = 3, max_seconds: float = 60.0) -> ChildSpec[ProgramSupervisor]:
        """Describe a supervisor of programs, for a tree of your own."""
        return ChildSpec(
            actor=ProgramSupervisor,
            kwargs={"max_restarts": max_restarts, "max_seconds": max_seconds},
            name=name,
            shutdown="infinity",
            supervisor=True,
            dynamic=True,
        )

    async def continued(self) -> None:
        self.start_task(self._keep_word())

    async def _keep_word(self) -> None:
        # A supervisor that is killed does not get to stopping(), but its tasks are cancelled whatever ends it: whoever
        # waits for one of its children learns of it.
        try:
            await self.system.loop.create_future()
        finally:
            self._tell_the_end("its parent was killed")

    def free_name(self, wanted: str, *, exact: bool = False) -> str:
        """``wanted``, or with the first number that makes it a name of its own.

        Raises:
            ValueError: it is to be ``exact``, and taken.
        """
        if exact:
            if wanted in self._told or wanted in self._members:
                raise ValueError(f"{self.path} has a child {wanted!r} already; names are unique below one program")
            return wanted
        while True:
            number = self._numbers[wanted] = self._numbers[wanted] + 1
            name = f"{wanted}-{number}"
            if name not in self._told and name not in self._members:
                return name

    async def dismissed(self, name: str) -> None:
        """End a child for good; for its handle, which has set ``is_unwanted``."""
        await self.ref.call(ProgramSupervisor.dismiss, name)

    def promise(self, name: str, told: Told) -> None:
        """``told`` hears of this supervisor's end, from before its child is admitted."""
        self._told[name] = told

    def withdraw(self, name: str, told: Told) -> None:
        """Take back a promise whose child was never admitted: its name is free."""
        if self._told.get(name) is told and name not in self._members:
            del self._told[name]

    # --- children come and go, at the request of this process's programs --------------------------------------------

    @endpoint
    async def admit(self, spec: ChildSpec[Actor], told: Told | None) -> None:
        """Start a child; ``told`` hears of it from then on, also of a start that fails.

        Raises StartRefused, ChildExists where nobody is told.
        """
        if told is None:
            await self._admit(spec)
            return None
        if spec.isolation == "process":
            # Beside the mailbox: a process takes its time to come up.
            return self.answer_later(self._admit_told(spec, told))
        await self._admit_told(spec, told)
        return None

    async def _admit_told(self, spec: ChildSpec[Actor], told: Told) -> None:
        if told.is_unwanted:
            self._told.pop(spec.name, None)
            told.ended(Shutdown("called off before it began"))
            return
        self._told[spec.name] = told
        try:
            member = await self._admit(spec)
        except (PalmetteError, BadSpec) as error:
            self._told.pop(spec.name, None)
            told.ended(reason_of(error))
            return
        told.started(self.system.ref_at(member.slot.path, Actor))
        if told.is_unwanted:
            await self._dismiss(member)

    @endpoint
    async def dismiss(self, name: str) -> None:
        """End a child for good; one that is not here is fine. ``is_unwanted`` is set by whoever asks."""
        member = self._members.get(name)
        if member is None:
            return None
        return self.answer_later(self._dismiss(member))

    @endpoint
    async def start_again(self, spec: ChildSpec[Actor], told: Told) -> None:
        """End a child where it lives, and start it anew, with its record going on."""
        return self.answer_later(self._start_again(spec, told))

    async def _start_again(self, spec: ChildSpec[Actor], told: Told) -> None:
        member = self._members.get(spec.name)
        if member is not None:
            await self._end(member)
        if isinstance(told, Record):
            told.again()
        await self._admit_told(spec, told)

    async def _dismiss(self, member: Child) -> None:
        # Beside the mailbox: a child that takes its time to clean up must not keep all others waiting.
        name = member.spec.name
        told = self._told.get(name)
        reason = await self._end(member)
        if told is not None and self._told.get(name) is told:
            del self._told[name]
            told.ended(reason)

    async def _end(self, member: Child) -> Reason:
        member.state = "stopped"
        await self._stop(member)
        if self._members.get(member.spec.name) is member:
            self._drop(member)
        lives = member.slot.target is not None
        return Killed("its code still runs") if lives else member.slot.last_exit or Shutdown("it never began")

    async def stopping(self, reason: Reason) -> None:
        for member in self._members.values():
            member.state = "stopped"
        # Machines and proxies last: what needs them is asked to end first.
        for needed in (False, True):
            await self._stop(*(each for each in self._members.values() if _is_needed(each) == needed))
        self._tell_the_end("its parent ended")

    def _tell_the_end(self, why: str) -> None:
        for name, told in self._told.items():
            told.is_unwanted = True
            member = self._members.get(name)
            told.ended((member.slot.last_exit if member is not None else None) or Shutdown(why))
        self._told.clear()

    # --- what becomes of them ---------------------------------------------------------------------------------------

    def _judge(
        self, member: Child, reason: Reason, *, lived: float | None = None
    ) -> Literal["restart", "retry", "finished", "gave_up"]:
        verdict = super()._judge(member, reason, lived=lived)
        told = self._told.get(member.spec.name)
        if told is not None:
            if verdict in ("restart", "retry"):
                told.restarting(reason)
            else:
                del self._told[member.spec.name]
                told.ended(reason)
        return verdict

    async def _try(self, member: Child) -> StartFailed | None:
        failure = await super()._try(member)
        told = self._told.get(member.spec.name)
        if failure is None and told is not None:
            told.started(self.system.ref_at(member.slot.path, Actor))
        return failure

    # --- words of children in processes of their own ----------------------------------------------------------------

    @endpoint
    async def relay(self, name: str, event: Event) -> None:
        """A child in another process tells of something."""
        told = self._told.get(name)
        if isinstance(told, Record):
            told.events.append(event.type, event.data, source=event.source)

    @endpoint
    async def relay_result(self, name: str, value: object) -> None:
        """A child in another process has come to a result."""
        told = self._told.get(name)
        if isinstance(told, Record):
            told.returned(value)


def _is_needed(member: Child) -> bool:
    """By its siblings, to the end."""
    from palmette.agents.limiter import Limiter
    from palmette.agents.proxy import Proxy
    from palmette.machines import MachineActor

    return issubclass(member.spec.actor, (MachineActor, Proxy, Limiter))
