"""What the tests of programs share: roots without a control socket, and models that are plain functions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import ParamSpec, TypeVar

from palmette.agents import Completion, Message, ToolCall, ToolSchema, Turn
from palmette.agents.harness import HarnessFactory
from palmette.agents.programs import Dropped, EventStream, Program, program
from palmette.agents.react_harness import react_harness

P = ParamSpec("P")
R = TypeVar("R")

Says = str | Completion | Exception
Mind = Callable[[Sequence[Message]], Says | Awaitable[Says]]
"""A model: from the conversation to what it says."""


def root(function: Callable[P, Awaitable[R]]) -> Program[P, R]:
    """A program without a control socket: these tests run in worlds without files."""
    return program(control=False)(function)


def told(stream: EventStream) -> list[tuple[str, object]]:
    """What stands on a stream, without numbers."""
    return [("dropped", e.count) if isinstance(e, Dropped) else (e.type, e.data) for e in stream.snapshot()]


def types(stream: EventStream) -> list[str]:
    return [type for type, _ in told(stream)]


class MindClient:
    """A model client whose sessions all think alike. ``asked``: each conversation that it was given."""

    def __init__(self, mind: Mind) -> None:
        self.mind = mind
        self.asked: list[list[Message]] = []

    def session(self, task_id: str, *, seed: int) -> MindClient:
        return self

    async def close(self) -> None:
        pass

    async def complete(
        self,
        conversation: Sequence[Message],
        *,
        tools: Sequence[ToolSchema] = (),
        max_tokens: int | None = None,
        timeout: float,
    ) -> Completion:
        self.asked.append(list(conversation))
        said = self.mind(conversation)
        if not isinstance(said, str | Completion | Exception):
            said = await said
        if isinstance(said, Exception):
            raise said
        return said if isinstance(said, Completion) else Completion(message=Message(role="assistant", content=said))


def thinking(mind: Mind) -> HarnessFactory:
    """A harness for agents with that mind."""
    return react_harness(MindClient(mind))


def calling(*calls: tuple[str, dict[str, object]]) -> Completion:
    """A reply that calls tools."""
    return Completion(
        message=Message(
            role="assistant",
            content="",
            tool_calls=tuple(
                ToolCall(id=f"c{number}", name=name, arguments=json.dumps(arguments))
                for number, (name, arguments) in enumerate(calls)
            ),
        ),
        stop="tool_calls",
    )


def echo(conversation: Sequence[Message]) -> str:
    """A mind that answers ``heard: `` and the last message."""
    return f"heard: {conversation[-1].content}"


def once(*calls: tuple[str, dict[str, object]], then: str = "finished") -> Mind:
    """A mind that calls these tools after each user's message, and says ``then`` when it has their results."""

    def mind(conversation: Sequence[Message]) -> Says:
        return calling(*calls) if conversation[-1].role == "user" else then

    return mind


def said(turns: Sequence[Turn]) -> list[str]:
    return [turn.said.content for turn in turns]


def results(conversation: Sequence[Message]) -> list[str]:
    """What the tools said since the model's last words."""
    found: list[str] = []
    for message in reversed(conversation):
        if message.role != "tool":
            break
        found.insert(0, message.content)
    return found


async def for_ever() -> None:
    await asyncio.Event().wait()


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something outside of this process holds."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
