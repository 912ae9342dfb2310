"""The line dialect: tool calls as one-line commands, for models too small for JSON.

``read 3`` calls the tool ``read`` with the rest of the line as its first parameter; ``done 4`` gives the final answer.
Which tools can be called this way is decided by their schema (:func:`line_parameter`), and everything that a model can
write falls into exactly one of three cases:

>>> parse_command("done 4", [])
Answer(text='4')
>>> parse_command("fly away", [])
Unreadable(reason="there is no command 'fly'; there are: done")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import msgspec

from palmette.agents.conversation import ToolCall, ToolSchema
from palmette.agents.tools import Tool

DONE = "done"
"""The command that gives the final answer."""


class Answer(msgspec.Struct, frozen=True):
    """The model is done."""

    text: str


class Unreadable(msgspec.Struct, frozen=True):
    """Not a command."""

    reason: str


def parse_command(text: str, tools: Sequence[Tool]) -> ToolCall | Answer | Unreadable:
    """Read one reply. Space around it does not matter; a second line makes it unreadable."""
    line = text.strip()
    if len(line.splitlines()) > 1:
        return Unreadable("a reply is one line")
    word, *rests = line.split(maxsplit=1) or [""]
    rest = rests[0] if rests else ""
    if word == DONE:
        return Answer(rest) if rest else Unreadable(f"{DONE!r} needs the answer after it")
    for candidate in tools:
        if candidate.schema.name == word:
            return _call(candidate.schema, rest)
    known = ", ".join([*(each.schema.name for each in tools), DONE])
    return Unreadable(f"there is no command {word!r}; there are: {known}")


def line_parameter(schema: ToolSchema) -> str | None:
    """The parameter that takes the rest of the line; ``None`` for a tool without parameters.

    Raises:
        ValueError: the tool cannot be called by one line: its name is taken or has a space in it, its first
            parameter is not a string, or it requires another one.
    """
    if schema.name == DONE or len(schema.name.split()) != 1:
        raise ValueError(f"a tool called {schema.name!r} cannot be a command of the line dialect; rename it")
    properties = cast("Mapping[str, Mapping[str, object]]", schema.parameters.get("properties", {}))
    required = _required(schema)
    # A keyword without a default may stand behind one with: what is required comes first.
    first = next(iter(required), None) or next(iter(properties), None)
    if first is None:
        return None
    if not _is_string(properties[first]) or len(required) > 1:
        raise ValueError(
            f"tool {schema.name!r} cannot be called by a line: that takes one string, which has to be its only "
            f"required parameter; use the native dialect or change the tool"
        )
    return first


def _call(schema: ToolSchema, rest: str) -> ToolCall | Unreadable:
    parameter = line_parameter(schema)
    if parameter is None and rest:
        return Unreadable(f"{schema.name!r} stands alone")
    if parameter is not None and not rest and parameter in _required(schema):
        return Unreadable(f"{schema.name!r} needs its {parameter} after it")
    arguments = {parameter: rest} if parameter is not None and rest else {}
    try:
        encoded = msgspec.json.encode(arguments).decode()
    except UnicodeEncodeError:
        return Unreadable("a reply is text, and this one holds half of a character")
    return ToolCall(id="line", name=schema.name, arguments=encoded)


def _required(schema: ToolSchema) -> list[str]:
    return cast("list[str]", schema.parameters.get("required", []))


def _is_string(shape: Mapping[str, object]) -> bool:
    values = shape.get("enum")
    if isinstance(values, list):
        return all(isinstance(value, str) for value in cast("list[object]", values))
    return shape.get("type") == "string"
