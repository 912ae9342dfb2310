"""What drives a model for a living agent: the harness, as little of it as the agent's actor needs to know.

A harness is a conversation that goes on for as long as somebody has something to say. The agent's actor enters it
(``async with``), gives it messages with :meth:`Harness.send`, reads :meth:`Harness.events` until the harness has
ended, and may :meth:`~Harness.interrupt` it. A harness starts what it needs in ``__aenter__`` and has left nothing
running when ``__aexit__`` returns, whatever happened. It restarts nothing and retries nothing: what breaks it comes out
of the iteration over its events, the actor crashes with it, and the actor's supervisor decides.

>>> async with make(setup) as harness:                  # a HarnessFactory makes one; nothing runs before the `with`
...     await harness.send("What is 6 times 7?")
...     async for event in harness.events():
...         if isinstance(event, Settled):
...             print(event.answer)

:class:`~palmette.agents.react_harness.ReactHarness` is the one in this process; others speak to a program on a machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Protocol, Self

import msgspec

from palmette.agents.conversation import ToolCall
from palmette.agents.toolbox import Toolbox
from palmette.agents.transcript import Turn
from palmette.machines import Machine

Stop = Literal["answered", "interrupted", "truncated", "turns"]


class Turned(msgspec.Struct, frozen=True, kw_only=True, tag="turn"):
    """The model replied. ``turn.heard`` holds each message that was sent as one ``user`` message."""

    turn: Turn


class ToolBegan(msgspec.Struct, frozen=True, kw_only=True, tag="tool_began"):
    """A tool runs, ours or one of the harness's own."""

    call: ToolCall


class ToolEnded(msgspec.Struct, frozen=True, kw_only=True, tag="tool_ended"):
    """What the model is to see of a tool."""

    call: ToolCall
    text: str
    failed: bool = False
    seconds: float = 0.0


class Settled(msgspec.Struct, frozen=True, kw_only=True, tag="settled"):
    """The harness has nothing more to do until the next message."""

    answer: str | None = None
    """The model's last words, where it ended by itself."""
    stop: Stop = "answered"
    reason: str = ""
    """For people: which limit it was."""


HarnessEvent = Turned | ToolBegan | ToolEnded | Settled


@dataclass(frozen=True, kw_only=True)
class HarnessSetup:
    """What a harness is made with. Its agent's actor makes a new one for each incarnation."""

    name: str
    """The agent's, unique in its program."""
    session: str
    """Unique on this host and fit for file names; equal in all incarnations of an agent."""
    toolbox: Toolbox
    """The tools that are not the harness's own. It may grow; see :meth:`Harness.tools_changed`."""
    machine: Machine | None = None
    """Where the agent's commands run."""
    system_prompt: str | None = None
    model: str = ""
    """What the program asked for, where it did; what it means is up to the harness."""
    turns: tuple[Turn, ...] = ()
    """What an earlier incarnation said and heard: the conversation goes on from there. A last turn whose tool calls
    have no answer in it was cut short."""
    results: tuple[ToolEnded, ...] = ()
    """Of the last turn's tool calls, those that had ended. What became of the others is not known."""
    may_go_on: asyncio.Event = field(default_factory=asyncio.Event)
    """Clear while the agent is paused: wait for it before the model is asked (the toolbox does before a tool)."""


class Harness(Protocol):
    """See the module's text."""

    async def __aenter__(self) -> Self:
        """Start. Raises whatever keeps it from starting, and has left nothing then."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop at once, whatever it does. Afterwards nothing of it runs, here or on the machine."""
        ...

    async def send(self, text: str) -> None:
        """Say something to the model: it begins with it when it is idle, and hears it before its next reply when not.

        Returns once the harness has it; messages are heard in the order of their sending, each once.
        """
        ...

    def events(self) -> AsyncIterator[HarnessEvent]:
        """What happens, from the beginning, in order. One reader; the agent's actor.

        Every run of the model ends in one :class:`Settled`. The iteration ends when the harness does by itself, and
        raises what broke it.
        """
        ...

    async def interrupt(self) -> None:
        """End the present run; its tools are stopped, and a :class:`Settled` with ``interrupted`` follows.

        The conversation stays, and the next message goes on with it. Nothing happens when it is idle.
        """
        ...

    async def tools_changed(self) -> None:
        """The toolbox holds other tools than before; the model is to know by its next reply."""
        ...


HarnessFactory = Callable[[HarnessSetup], Harness]
"""Makes a harness; cheap, and starts nothing. Raises ConfigurationError for a setup that it cannot work with."""
