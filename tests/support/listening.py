"""A scripted session that remembers what it was asked."""

from __future__ import annotations

from collections.abc import Sequence

from palmette.agents import Completion, Message, ScriptedSession, ToolSchema
from palmette.agents.scripted import Reply


class Listening(ScriptedSession):
    """``heard``: the conversation of each request. ``tools``: the names of the tools that came with it."""

    def __init__(self, *replies: Reply) -> None:
        super().__init__(replies)
        self.heard: list[list[Message]] = []
        self.tools: list[list[str]] = []

    async def complete(
        self,
        conversation: Sequence[Message],
        *,
        tools: Sequence[ToolSchema] = (),
        max_tokens: int | None = None,
        timeout: float,
    ) -> Completion:
        self.heard.append(list(conversation))
        self.tools.append([each.name for each in tools])
        return await super().complete(conversation, tools=tools, max_tokens=max_tokens, timeout=timeout)
