"""The actor behind a program: its body runs beside the mailbox, and what it starts are its children.

The body's end is the program's: whatever it started ends with it, in order (agents and programs, then machines), and
only then is its result there. A crash of the body, ``fail()``, a timeout, a spent restart budget are exits, and its
own supervisor does what the program's options say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, cast

import msgspec

from palmette.actors import Reason, Ref, endpoint
from palmette.actors.eager import Done, first_step
from palmette.agents.conversation import ToolSchema
from palmette.agents.harness import HarnessFactory
from palmette.agents.programs.decorator import Call
from palmette.agents.programs.errors import NoEndpoint, ProgramFailed, ProgramTimeout
from palmette.agents.programs.fitting import fitted, fitted_words
from palmette.agents.programs.log import Log
from palmette.agents.programs.providers import Providers
from palmette.agents.programs.record import Record
from palmette.agents.programs.recorder import MemoryRecorder, Recorder
from palmette.agents.programs.stream import Event, EventStream
from palmette.agents.programs.supervisor import ProgramSupervisor
from palmette.agents.tools import Tool, tool

if TYPE_CHECKING:
    from palmette.agents.programs.agent_handle import Agent

PROGRAM: ContextVar[ProgramActor | None] = ContextVar("palmette_program", default=None)
"""The program whose code is running: its body, its endpoints, its agents' tools, and tasks that any of them made."""

Exposed = Callable[..., Awaitable[object]]


class Surroundings:
    """What a program has from its parent, in the same process."""

    def __init__(
        self, *, log: Log, harness: HarnessFactory | str | None, recorder: Recorder, providers: Providers
    ) -> None:
        self.log = log
        self.harness = harness
        self.recorder = recorder
        self.providers = providers


class ProgramActor(ProgramSupervisor):
    """See the module's text. Built from a spec that :mod:`palmette.agents.programs.starting` makes."""

    def __init__(
        self,
        call: Call,
        owner: str,
        image: str | None = None,
        timeout: float | None = None,
        body_shutdown: float = 15.0,
        max_restarts: int = 3,
        max_seconds: float = 60.0,
        record: Record | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        super().__init__(max_restarts=max_restarts, max_seconds=max_seconds)
        own = call.program.set
        if surroundings is None:
            surroundings = Surroundings(
                log=Log(),
                harness=own.harness,
                recorder=own.recorder or MemoryRecorder(),
                providers=Providers(self.path),
            )
        self.surroundings = surroundings
        self.owner = owner
        """The run that its machines belong to."""
        self.image = image
        self.name = self.path.rpartition("/")[2]
        self._is_remote = record is None
        """Its record is kept in another process, and this one's only passes things on."""
        self.record = record if record is not None else Record(self.name, self.path, log=surroundings.log)
        self.agents: dict[str, Agent] = {}
        self.exposed: dict[str, Exposed] = {}
        self._call = call
        self._timeout = timeout
        self._body_shutdown = body_shutdown
        self._body: asyncio.Task[object] | None = None
        self._begun = asyncio.Event()
        self._verdict: asyncio.Event = asyncio.Event()
        self._value: object = None
        self._failure: ProgramFailed | None = None
        self._is_over = False
        # For all code of this incarnation, whoever called it: handlers, tasks, and the children's tools.
        PROGRAM.set(self)

    # --- its life ---------------------------------------------------------------------------------------------------

    async def continued(self) -> None:
        await super().continued()
        if self._is_remote:
            self.record.events.copy_to(_Relay(self._parent(), self.name))
        self.start_task(self._live())

    async def _live(self) -> None:
        self._body = asyncio.current_task()
        clock = asyncio.timeout(self._timeout)
        try:
            try:
                async with clock:
                    value = await self._run()
            except TimeoutError:
                if not clock.expired():
                    raise
                raise ProgramTimeout(f"{self.name} did not finish within {self._timeout or 0:g} s") from None
            if self._failure is not None:
                raise self._failure
        except Exception as error:
            self.record.raised(error)
            raise
        finally:
            self._begun.set()
        self._came_to(self._value if self._verdict.is_set() else value)
        self.stop()

    async def _run(self) -> object:
        # Up to its first wait at once, so that what it exposes there is there for whoever called it early.
        step = first_step(_awaited(self._call.begin()))
        if isinstance(step, Done):
            return step.value
        self._begun.set()
        return await step

    def _came_to(self, value: object) -> None:
        self.record.returned(value)
        if self._is_remote:
            self._parent().cast(ProgramSupervisor.relay_result, self.name, value)

    def _parent(self) -> Ref[ProgramSupervisor]:
        return self.system.ref_at(self.path.rpartition("/")[0] or "/", ProgramSupervisor)

    async def stopping(self, reason: Reason) -> None:
        self._is_over = True
        body = self._body
        if body is not None and not body.done():
            body.cancel()
            # Not all of the time there is: what it started needs some, too.
            await asyncio.wait([body], timeout=self._body_shutdown)
        await super().stopping(reason)

    def describe_state(self) -> object:
        return {
            "program": self._call.program.__qualname__,
            "agents": sorted(self.agents),
            "endpoints": sorted(self.exposed),
            "events": len(self.record.events),
        }

    @property
    def is_over(self) -> bool:
        """Whether it has begun to end: nothing can be started any more."""
        return self._is_over

    # --- what its body says -----------------------------------------------------------------------------------------

    def settle(self, value: object = None, failure: ProgramFailed | None = None) -> None:
        """``done`` or ``fail``: the first word counts."""
        if not self._verdict.is_set():
            self._value, self._failure = value, failure
            self._verdict.set()

    async def wait(self) -> object:
        """Wait for that word."""
        await self._verdict.wait()
        if self._failure is not None:
            raise self._failure
        return self._value

    def expose(self, function: Exposed) -> None:
        """Make an endpoint of ``function``."""
        self.exposed[function.__name__] = function

    def forget(self, agent: Agent) -> None:
        """``agent`` has ended for good: its name is free, and the machine that it had of its own ends, too."""
        if self.agents.get(agent.name) is agent:
            del self.agents[agent.name]
            self.record.agents.pop(agent.name, None)
        if not self._is_over:
            self.ref.cast(ProgramSupervisor.dismiss, machine_name(agent.name))

    # --- its endpoints ----------------------------------------------------------------------------------------------

    @endpoint
    async def invoke(self, name: str, arguments: dict[str, object]) -> object:
        """Call what it exposes, in this process; what the function raises is the caller's."""
        return self._answer(self._invoked(name, arguments, plain=False))

    @endpoint
    async def invoke_plain(self, name: str, arguments: dict[str, object]) -> object:
        """The same with plain data, which is checked against the function's hints."""
        return self._answer(self._invoked(name, arguments, plain=True))

    @endpoint
    async def invoke_typed(self, name: str, arguments: dict[str, bytes], typed: dict[str, str]) -> bytes:
        """The same with JSON values, and with words as a person types them; what comes back is JSON."""
        return cast("bytes", self._answer(self._invoked_typed(name, arguments, typed)))

    @endpoint
    async def invoke_json(self, name: str, arguments: str) -> str:
        """The same with JSON, for models and people; what comes back is what they are to see."""
        return cast("str", self._answer(self._invoked_as_tool(name, arguments)))

    @endpoint
    async def endpoints(self) -> list[ToolSchema]:
        """What it exposes."""
        return cast("list[ToolSchema]", self._answer(self._schemas()))

    def _answer(self, work: Awaitable[object]) -> object:
        # Not `answer_later`: there what the work raises is this actor's crash.
        token = self.reply_later()

        async def run() -> None:
            try:
                token.reply(await work)
            except Exception as error:  # noqa: BLE001 - a function that was called raises to its caller
                token.fail(error)

        self.start_task(run())
        return None

    async def _found(self, name: str) -> Exposed:
        await self._begun.wait()
        function = self.exposed.get(name)
        if function is None:
            raise NoEndpoint(f"{self.name} exposes no {name!r}; it exposes: {', '.join(self.exposed) or 'nothing'}")
        return function

    async def _invoked(self, name: str, arguments: Mapping[str, object], *, plain: bool) -> object:
        function = await self._found(name)
        if not plain:
            return await function(**arguments)
        return msgspec.to_builtins(await function(**fitted(function, arguments)))

    async def _invoked_typed(self, name: str, arguments: Mapping[str, bytes], typed: Mapping[str, str]) -> bytes:
        function = await self._found(name)
        return msgspec.json.encode(await function(**fitted_words(function, arguments, typed)))

    async def _invoked_as_tool(self, name: str, arguments: str) -> str:
        return await tool_of(await self._found(name)).run(arguments)

    async def _schemas(self) -> list[ToolSchema]:
        await self._begun.wait()
        return [tool_of(function).schema for function in self.exposed.values()]


def tool_of(function: Exposed) -> Tool:
    """An exposed function as a model or a person is told of it."""
    return tool(function)


def machine_name(agent: str) -> str:
    """What the machine that an agent has of its own is called."""
    return f"{agent}.machine"


class _Relay(EventStream):
    """Passes what it is given on to the record in the parent's process, at once: before the word of any end."""

    def __init__(self, parent: Ref[ProgramSupervisor], name: str) -> None:
        super().__init__(capacity=1)
        self._parent = parent
        self._name = name

    def _take(self, type: str, data: object, source: str | None) -> Event | None:
        self._parent.cast(ProgramSupervisor.relay, self._name, Event(0, type, data, source))
        return None


async def _awaited(work: Awaitable[object]) -> object:
    return await work
