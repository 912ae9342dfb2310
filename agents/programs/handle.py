"""What a program that started another one holds in its hand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar, cast

import msgspec

from palmette.actors import Actor, ActorDied, DeadlineExceeded, Ref, Refused
from palmette.actors.deadlines import DEFAULT_CALL_SECONDS, time_left
from palmette.agents.conversation import ToolSchema
from palmette.agents.errors import ToolFailed
from palmette.agents.programs.actor import ProgramActor
from palmette.agents.programs.decorator import Call
from palmette.agents.programs.errors import NoEndpoint, ProgramEnded
from palmette.agents.programs.record import Record, State
from palmette.agents.programs.stream import EventStream
from palmette.agents.programs.supervisor import ProgramSupervisor
from palmette.supervisors import ChildSpec

if TYPE_CHECKING:
    from palmette.agents.programs.agent_handle import Agent

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")


class Handle(Generic[R_co]):
    """A program that was spawned. Its life is its parent's to end at the latest; this only shows it."""

    def __init__(self, host: Ref[ProgramSupervisor], spec: ChildSpec[Actor], record: Record, call: Call) -> None:
        self._host = host
        self._spec = spec
        self._record = record
        self._call = call

    def __repr__(self) -> str:
        return f"<handle of {self._record.path}: {self._record.how}>"

    @property
    def name(self) -> str:
        """Unique among what its parent started."""
        return self._record.name

    @property
    def path(self) -> str:
        """Its address in the tree."""
        return self._record.path

    @property
    def state(self) -> State:
        """How things stand with it."""
        return self._record.state

    @property
    def events(self) -> EventStream:
        """What it tells, from its first word to its last: ``done``, ``failed`` or ``cancelled``."""
        return self._record.events

    @property
    def agents(self) -> Mapping[str, Agent]:
        """Its agents by name; none before it has made one. Those of a program in another process are not shown."""
        return dict(self._record.agents)

    async def ended(self) -> None:
        """Wait until it has ended, with all that it started, however it did."""
        await self._record.until_over()

    async def result(self, timeout: float | None = None) -> R_co:
        """Wait until it has ended, with all that it started, and return what it came to.

        Raises:
            ProgramFailed: it said ``fail``, took too long (``ProgramTimeout``), was cancelled (``ProgramCancelled``),
                or died.
            Exception: what its body raised, where it ran in this process.
            DeadlineExceeded: it has not ended within ``timeout`` seconds. It goes on.
        """
        clock = asyncio.timeout(timeout)
        try:
            async with clock:
                await self._record.until_over()
        except TimeoutError:
            if not clock.expired():
                raise
            raise DeadlineExceeded(f"{self.path} has not ended within {timeout or 0:g} s; it is {self.state}") from None
        value = self._record.outcome()
        if self._spec.isolation == "process":
            value = msgspec.convert(value, cast("type[object]", self._call.return_type), strict=False)
        return cast("R_co", value)

    def cancel(self) -> None:
        """Have it end, with all that it started; its last event is ``cancelled``. One that is over is fine."""
        if not self._record.is_over:
            self._record.is_unwanted = True
            self._host.cast(ProgramSupervisor.dismiss, self.name)

    async def restart(self) -> None:
        """End it if it still runs, and start it anew with the same arguments; returns once it is started.

        ``events`` goes on where it was. It costs nothing of any restart budget.
        """
        self._record.is_unwanted = True
        await self._host.call(ProgramSupervisor.start_again, self._spec, self._record)

    # --- its endpoints ----------------------------------------------------------------------------------------------

    async def call(self, name: str, /, **arguments: object) -> object:
        """Call a function that it exposes, also right after ``spawn``; no longer than the deadline in force.

        Raises:
            NoEndpoint: it exposes nothing of that name.
            ProgramEnded: it does not run any more, or ended meanwhile.
            DeadlineExceeded: no answer in time.
            Exception: what the function raised. From another process it comes as ``Refused``.
        """
        if self._spec.isolation == "process":
            return await self._asked(lambda ref: ref.call(ProgramActor.invoke_plain, name, arguments))
        return await self._asked(lambda ref: ref.call(ProgramActor.invoke, name, arguments))

    async def endpoints(self) -> list[ToolSchema]:
        """What it exposes. Raises as :meth:`call`."""
        return await self._asked(lambda ref: ref.call(ProgramActor.endpoints))

    async def attach(self, agent: Agent, *, only: Sequence[str] | None = None, prefix: str = "") -> None:
        """Give ``agent`` its endpoints as tools, each named ``prefix`` and its name.

        A tool whose program has ended tells the model so.

        Args:
            only: Those of these names; all by default.

        Raises:
            NoEndpoint: it exposes none of a name in ``only``.
            ValueError: the agent has a tool of such a name already. None has been added then.
            ProgramEnded: it does not run any more.
        """
        schemas = {schema.name: schema for schema in await self.endpoints()}
        names = list(schemas) if only is None else list(only)
        for name in names:
            if name not in schemas:
                raise NoEndpoint(f"{self.name} exposes no {name!r}; it exposes: {', '.join(schemas) or 'nothing'}")
        agent.add_tools(*(_Attached(self, schemas[name], prefix + name) for name in names))

    async def call_as_tool(self, name: str, arguments: str) -> str:
        """Call with arguments as a model writes them (JSON); what it is to see comes back. Raises as :meth:`call`."""
        return await self._asked(lambda ref: ref.call(ProgramActor.invoke_json, name, arguments))

    async def _asked(self, ask: Callable[[Ref[ProgramActor]], Awaitable[T]]) -> T:
        record = self._record
        left = time_left()
        seconds = DEFAULT_CALL_SECONDS if left is None else left
        try:
            async with asyncio.timeout(seconds):
                await record.until_started()
        except TimeoutError:
            raise DeadlineExceeded(f"{self.path} was not started within {seconds:g} s") from None
        if record.is_over:
            raise ProgramEnded(self.path, record.how)
        assert record.ref is not None
        try:
            return await ask(cast("Ref[ProgramActor]", record.ref))
        except ActorDied as died:
            if died.path != self.path:
                raise
            raise ProgramEnded(self.path, record.how if record.is_over else str(died)) from None


class _Attached:
    """An endpoint of a program as a tool of an agent."""

    def __init__(self, handle: Handle[object], schema: ToolSchema, name: str) -> None:
        self._handle = handle
        self._endpoint = schema.name
        self.schema = msgspec.structs.replace(schema, name=name)

    async def run(self, arguments: str) -> str:
        try:
            return await self._handle.call_as_tool(self._endpoint, arguments)
        except (ProgramEnded, NoEndpoint, Refused, DeadlineExceeded) as error:
            raise ToolFailed(str(error)) from error
