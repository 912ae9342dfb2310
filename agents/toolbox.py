"""The tools of one agent: they may come while it runs, each call has a deadline, and calls run side by side.

Whoever drives the model (a harness) calls :meth:`Toolbox.run` for each tool call, as many at the same time as the model
asked for, and gives the model the text that comes back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from palmette.agents.conversation import ToolCall, ToolSchema
from palmette.agents.errors import BadArguments, ToolFailed
from palmette.agents.tools import Tool

TOOL_SECONDS = 120.0
"""Deadline of a tool call, unless the tool was given its own."""


class ToolResult(str):
    """What the model is to see of a call; ``failed`` where it is bad news."""

    __slots__ = ("failed",)
    failed: bool

    def __new__(cls, text: str, *, failed: bool = False) -> ToolResult:
        made = super().__new__(cls, text)
        made.failed = failed
        return made


class Toolbox:
    """See the module's text. ``may_go_on`` is clear while no tool may be begun."""

    def __init__(self, *, seconds: float = TOOL_SECONDS, may_go_on: asyncio.Event | None = None) -> None:
        if not seconds > 0:
            raise ValueError(f"a tool's deadline is more than 0 seconds, got {seconds}")
        self._seconds = seconds
        self._tools: dict[str, tuple[Tool, float]] = {}
        self._may_go_on = may_go_on

    def __iter__(self) -> Iterator[Tool]:
        return iter([tool for tool, _ in self._tools.values()])

    def __contains__(self, name: object) -> bool:
        return name in self._tools

    @property
    def schemas(self) -> list[ToolSchema]:
        """What the model is told, in the order of adding."""
        return [tool.schema for tool, _ in self._tools.values()]

    def add(self, tool: Tool, *, seconds: float | None = None) -> None:
        """Take ``tool`` in; ``seconds`` is the deadline of each call of it.

        Raises:
            ValueError: there is one of this name, or the deadline is none.
        """
        name = tool.schema.name
        if name in self._tools:
            raise ValueError(f"there is a tool {name!r} already; give the new one another name, or remove the old one")
        if seconds is not None and not seconds > 0:
            raise ValueError(f"tool {name!r}: its deadline is more than 0 seconds, got {seconds}")
        self._tools[name] = (tool, self._seconds if seconds is None else seconds)

    def remove(self, name: str) -> None:
        """Take a tool out; one that is not there is fine."""
        self._tools.pop(name, None)

    async def run(self, call: ToolCall) -> ToolResult:
        """Run one call and return what the model is to see: bad arguments and a missed deadline are that, too.

        Raises:
            Exception: whatever the tool raised, except :class:`~palmette.agents.errors.ToolFailed`: the agent crashes.
        """
        if self._may_go_on is not None:
            await self._may_go_on.wait()
        found = self._tools.get(call.name)
        if found is None:
            names = ", ".join(self._tools) or "none"
            return ToolResult(f"there is no tool {call.name!r}; the tools are: {names}", failed=True)
        tool, seconds = found
        clock = asyncio.timeout(seconds)
        try:
            async with clock:
                return ToolResult(await tool.run(call.arguments))
        except (BadArguments, ToolFailed) as error:
            return ToolResult(str(error), failed=True)
        except TimeoutError:
            if not clock.expired():
                raise
            return ToolResult(f"{call.name} did not finish within {seconds:g} s and was stopped", failed=True)
