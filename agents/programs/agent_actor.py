"""The actor behind an agent: it runs the harness beside its mailbox, and is its life.

A harness that breaks or ends is a crash of this actor, with its reason; the program's supervision starts it again, and
the conversation goes on where it was. Messages and orders reach it at any time, also in the middle of a turn.
"""

from __future__ import annotations

import asyncio
from typing import Final

from palmette.actors import Actor, Reason, Shutdown, endpoint
from palmette.agents.harness import Harness, HarnessEvent, HarnessFactory, HarnessSetup, Settled, ToolBegan, ToolEnded
from palmette.agents.harness import Turned as TurnedEvent
from palmette.agents.programs.agent_handle import Agent
from palmette.agents.programs.errors import HarnessEnded
from palmette.agents.programs.talk import AgentAnswer
from palmette.supervisors import Backoff
from palmette.supervisors.policy import Directive

BACKOFF: Final = Backoff(min=0.5, max=60.0)
"""Between the incarnations of an agent."""
RULES: Final[dict[str, Directive]] = {
    # Asking again changes nothing: the program fails with this.
    "RequestRefused": "escalate",
    "ModelRefused": "escalate",
    "ContextFull": "escalate",
    "ConfigurationError": "escalate",
    # A model or a machine that is not there: infrastructure, which costs no restart budget.
    "retryable": "backoff",
}
"""What becomes of an agent that crashed, by the class of the error."""
STOP_SECONDS: Final = 10.0
"""For a harness to stop what it started."""


class AgentActor(Actor):
    """See the module's text."""

    def __init__(self, agent: Agent, session: str, factory: HarnessFactory) -> None:
        self._agent = agent
        self._session = session
        self._factory = factory
        self._harness: Harness | None = None
        self._life: asyncio.Task[object] | None = None
        self._passed = agent.talk.heard
        """Messages that this incarnation's harness has, or that were heard before."""

    async def continued(self) -> None:
        self.start_task(self._live())

    async def stopping(self, reason: Reason) -> None:
        # Here and not when tasks are ended anyway: a harness may take its time to stop what it started.
        if self._life is not None and not self._life.done():
            self._life.cancel()
            await asyncio.wait([self._life])

    async def _live(self) -> None:
        agent = self._agent
        self._life = asyncio.current_task()
        try:
            offered = agent.toolbox.schemas
            harness = self._factory(self._setup())
            await harness.__aenter__()
        except Exception as error:
            if agent.was_up:
                raise
            # The first start is the program's to judge: agent() raises this, and nothing is tried again.
            agent.start_error = error
            self.stop(Shutdown("it could not be started"))
            return
        kind = failure = trace = None
        try:
            self._harness = harness
            if agent.toolbox.schemas != offered:
                await harness.tools_changed()
            agent.came_up()
            self._take_up()
            await self._pass_on()
            async for event in harness.events():
                await self._take(event)
            raise HarnessEnded(f"the harness of {agent.path} ended by itself")
        except BaseException as error:
            kind, failure, trace = type(error), error, error.__traceback__
            raise
        finally:
            self._harness = None
            await harness.__aexit__(kind, failure, trace)

    def _take_up(self) -> None:
        """An earlier incarnation may have died in the middle of a run, or between the last words of one and its end."""
        turns = self._agent.talk.turns
        if turns and turns[-1].said.tool_calls:
            self._agent.set_state("working")
        elif self._agent.is_unsettled and self._passed == len(self._agent.talk.inbox):
            self._settle(Settled(answer=turns[-1].said.content))

    def _settle(self, settled: Settled) -> None:
        agent = self._agent
        agent.is_unsettled = False
        agent.set_state("idle")
        answer = AgentAnswer(text=settled.answer, stop=settled.stop, reason=settled.reason, heard=agent.talk.heard)
        agent.events.append("settled", answer)

    def _setup(self) -> HarnessSetup:
        agent = self._agent
        return HarnessSetup(
            name=agent.name,
            session=self._session,
            toolbox=agent.toolbox,
            machine=agent.machine_if_any,
            system_prompt=agent.system_prompt,
            model=agent.model,
            turns=tuple(agent.talk.turns),
            results=tuple(agent.talk.results),
            may_go_on=agent.may_go_on,
        )

    async def _take(self, event: HarnessEvent) -> None:
        agent = self._agent
        match event:
            case TurnedEvent(turn=turn):
                await agent.talk.replied(turn)
                agent.is_unsettled = True
                agent.set_state("working")
                agent.events.append("turn", turn)
            case ToolBegan(call=call):
                agent.events.append("tool_began", call)
            case ToolEnded():
                await agent.talk.resulted(event)
                agent.events.append("tool_ended", event)
            case Settled():
                self._settle(event)

    async def _pass_on(self) -> None:
        harness, agent = self._harness, self._agent
        while harness is not None and agent.may_go_on.is_set() and self._passed < len(agent.talk.inbox):
            text = agent.talk.inbox[self._passed]
            self._passed += 1
            agent.set_state("working")
            await harness.send(text)

    @endpoint
    async def pass_on(self) -> None:
        """There may be messages for the harness."""
        await self._pass_on()

    @endpoint
    async def interrupt(self) -> None:
        """End the present run."""
        if self._harness is not None:
            await self._harness.interrupt()

    @endpoint
    async def tools_changed(self) -> None:
        """The toolbox holds other tools than before."""
        if self._harness is not None:
            await self._harness.tools_changed()

    def describe_state(self) -> object:
        agent = self._agent
        return {
            "state": agent.state,
            "turns": len(agent.talk.turns),
            "messages": len(agent.talk.inbox),
            "tools": [schema.name for schema in agent.toolbox.schemas],
        }
