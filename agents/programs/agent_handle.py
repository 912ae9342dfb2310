"""An agent of a program: what its body holds in its hand, whatever becomes of the incarnations behind it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from palmette.actors import Actor, Reason, Ref, describe
from palmette.agents.programs.actor import machine_name
from palmette.agents.programs.errors import NoMachine, ProgramEnded, StreamEnded
from palmette.agents.programs.log import Log
from palmette.agents.programs.recorder import Recorder
from palmette.agents.programs.stream import Event
from palmette.agents.programs.talk import AgentAnswer, Talk
from palmette.agents.toolbox import TOOL_SECONDS, Toolbox
from palmette.agents.tools import Tool, tool
from palmette.agents.transcript import Turn
from palmette.machines import ExecResult, Machine

if TYPE_CHECKING:
    from palmette.agents.programs.agent_actor import AgentActor

F = TypeVar("F", bound=Callable[..., Awaitable[object]])

AgentState = Literal["starting", "idle", "working", "paused", "restarting", "ended"]
ASK_SECONDS = 600.0


class Home(Protocol):
    """The program that an agent belongs to."""

    @property
    def path(self) -> str: ...

    def forget(self, agent: Agent) -> None:
        """It has ended for good."""
        ...

    async def dismissed(self, name: str) -> None:
        """End a child for good."""
        ...


class Agent:
    """An agent. Its events, in order:

    ==============  ========================================  =====================================================
    type            data                                      when
    ==============  ========================================  =====================================================
    ``message``     the text                                  a message to it was accepted
    ``turn``        :class:`~palmette.agents.Turn`            the model replied
    ``tool_began``  :class:`~palmette.agents.ToolCall`        a tool was started
    ``tool_ended``  :class:`~palmette.agents.ToolEnded`       a tool has ended
    ``settled``     :class:`AgentAnswer`                           the model has nothing more to do
    ``restarting``  why, as text                              it crashed, and its supervisor starts it again
    ``restarted``   ``None``                                  it takes messages again
    ``ended``       why, as text                              the last event
    ==============  ========================================  =====================================================
    """

    def __init__(
        self,
        name: str,
        home: Home,
        *,
        log: Log,
        recorder: Recorder,
        system_prompt: str | None,
        model: str,
        machine: Machine | None,
        tool_seconds: float = TOOL_SECONDS,
    ) -> None:
        self.name = name
        """Unique in its program."""
        self.path = f"{home.path}/{name}"
        """Its address in the tree."""
        self.system_prompt = system_prompt
        self.model = model
        self.events = log.stream(self.path)
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.toolbox = Toolbox(seconds=tool_seconds, may_go_on=self.may_go_on)
        self.talk = Talk(self.path, recorder)
        self.outgoing: dict[str, Agent] = {}
        """Whom it may send messages and files."""
        self.incoming: dict[str, Agent] = {}
        self.is_unwanted = False
        self.is_unsettled = False
        """Its model has replied, and no ``settled`` was told since."""
        self.start_error: Exception | None = None
        self._home = home
        self._log = log
        log.agents[self.path] = self
        self._machine = machine
        self._ref: Ref[AgentActor] | None = None
        self._state: AgentState = "starting"
        self._why_ended = ""
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<agent {self.path}: {self.state}>"

    # --- how it is --------------------------------------------------------------------------------------------------

    @property
    def state(self) -> AgentState:
        """``paused`` is one that would go on if it were let."""
        return "paused" if self._state in ("idle", "working") and not self.may_go_on.is_set() else self._state

    @property
    def machine(self) -> Machine:
        """Where its commands run. Raises NoMachine."""
        if self._machine is None:
            raise NoMachine(f"agent {self.name!r} has no machine; pass image= or machine= to agent(), or to @program")
        return self._machine

    @property
    def machine_if_any(self) -> Machine | None:
        """The same, ``None`` where there is none."""
        return self._machine

    @property
    def turns(self) -> tuple[Turn, ...]:
        """Its conversation so far, as deltas; also that of an earlier process, where the recorder keeps it."""
        return tuple(self.talk.turns)

    async def exec(self, command: str, *, timeout: float = 60.0) -> ExecResult:
        """Run a command on its machine. Raises NoMachine, and what :meth:`Machine.exec` does."""
        return await self.machine.exec(command, timeout=timeout)

    # --- talking to it ----------------------------------------------------------------------------------------------

    async def send(self, text: str) -> None:
        """Say something: it begins with it when it is idle, and hears it before its next reply when not.

        Returns once the message is on record; a crash of the agent does not lose it.

        Raises:
            ProgramEnded: it has ended.
        """
        await self._send(text)

    async def _send(self, text: str) -> int:
        if self._state == "ended":
            raise ProgramEnded(self.path, "ended")
        number = await self.talk.accept(text)
        self.events.append("message", text)
        self._nudge()
        return number

    async def ask(self, text: str, *, timeout: float = ASK_SECONDS) -> str:
        """Say something, and wait for what the model answers when it has settled.

        Raises:
            DeadlineExceeded: it has not settled within ``timeout`` seconds. It goes on.
            ProgramEnded: it has ended, or was interrupted or cut short, as the message says.
        """
        place = len(self.events)
        number = await self._send(text)

        def settles_it(event: Event) -> bool:
            data = event.data
            return (
                event.number > place and isinstance(data, AgentAnswer) and (data.heard >= number or data.text is None)
            )

        try:
            event = await self.events.wait_for("settled", where=settles_it, timeout=timeout)
        except StreamEnded:
            raise ProgramEnded(self.path, f"ended before it answered: {self._why_ended}") from None
        answer = event.data
        assert isinstance(answer, AgentAnswer)
        if answer.text is None:
            raise ProgramEnded(self.path, f"{answer.stop} {answer.reason}".strip())
        return answer.text

    async def interrupt(self) -> None:
        """End the present run; a ``settled`` with ``interrupted`` follows. Nothing happens when it is idle."""
        from palmette.agents.programs.agent_actor import AgentActor

        if self._ref is not None and self._state == "working":
            await self._ref.call(AgentActor.interrupt)

    def pause(self) -> None:
        """Have it take no further step: the model is not asked and no tool begun. What is under way ends."""
        self.may_go_on.clear()

    def resume(self) -> None:
        """Undo :meth:`pause`."""
        self.may_go_on.set()
        self._nudge()

    async def stop(self) -> None:
        """End it for good, with the machine of its own; its name is free afterwards. Twice is fine."""
        self.is_unwanted = True
        if self._state != "ended":
            await self._home.dismissed(self.name)
            await self._home.dismissed(machine_name(self.name))

    def _nudge(self) -> None:
        from palmette.agents.programs.agent_actor import AgentActor

        if self._ref is not None and self._ref.is_alive():
            self._ref.cast(AgentActor.pass_on)

    # --- its tools --------------------------------------------------------------------------------------------------

    def on(self, name: str | None = None, *, seconds: float | None = None) -> Callable[[F], F]:
        """Decorate an ``async def`` function that its model may call; what it raises, except ``ToolFailed``, crashes
        the agent.

        >>> @solver.on("submit")                     # doctest: +SKIP
        ... async def submit(answer: str) -> str:
        ...     done(answer)
        ...     return "thank you"

        Args:
            name: What the model calls it; the function's own by default.
            seconds: The deadline of a call.

        Raises:
            TypeError: it is no ``async def`` function, or a parameter has no type hint.
            ValueError: there is a tool of this name.
        """

        def decorate(function: F) -> F:
            if not inspect.iscoroutinefunction(function):
                raise TypeError(f"a tool of an agent is an `async def` function; {function!r} is not")
            self.add_tools(tool(function, name=name), seconds=seconds)
            return function

        return decorate

    def add_tools(self, *tools: Tool, seconds: float | None = None) -> None:
        """Give it tools, also while it runs: all, or where one does not fit (ValueError), none."""
        names = [each.schema.name for each in tools]
        taken = next((name for name in names if name in self.toolbox or names.count(name) > 1), None)
        if taken is not None:
            raise ValueError(f"agent {self.name!r} has a tool {taken!r} already; give the new one another name")
        for each in tools:
            self.toolbox.add(each, seconds=seconds)
        self._tell_tools()

    def _tell_tools(self) -> None:
        from palmette.agents.programs.agent_actor import AgentActor

        if self._ref is not None and self._ref.is_alive():
            self._ref.cast(AgentActor.tools_changed)

    # --- told by its supervisor and its actor -----------------------------------------------------------------------

    def started(self, ref: Ref[Actor]) -> None:
        """An incarnation runs; its harness comes up."""
        self._ref = ref  # pyright: ignore[reportAttributeAccessIssue] - admitted with a spec of an AgentActor

    def came_up(self) -> None:
        """Its harness takes messages."""
        if self._state == "restarting":
            self.events.append("restarted")
        self.set_state("idle")

    def set_state(self, state: AgentState) -> None:
        if self._state != "ended":
            self._state = state
            self._changed.set()

    @property
    def was_up(self) -> bool:
        """Whether an incarnation has ever been up."""
        return self._state != "starting"

    async def until_up(self) -> None:
        """Wait until it is up, or never will be. Raises what kept it from starting."""
        while self._state == "starting":
            self._changed.clear()
            await self._changed.wait()
        if self._state == "ended":
            raise self.start_error or ProgramEnded(self.path, "ended while it was started")

    def restarting(self, reason: Reason) -> None:
        self.set_state("restarting")
        self.events.append("restarting", describe(reason))

    def ended(self, reason: Reason) -> None:
        if self._state == "ended":
            return
        self.set_state("ended")
        self._why_ended = describe(reason)
        for other in self.outgoing.values():
            other.incoming.pop(self.name, None)
        for other in self.incoming.values():
            other.outgoing.pop(self.name, None)
        self.outgoing.clear()
        self.incoming.clear()
        self.events.append("ended", self._why_ended)
        self.events.close()
        if self._log.agents.get(self.path) is self:
            del self._log.agents[self.path]
        self._home.forget(self)
