"""Every line a model can write is a call, an answer, or unreadable."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palmette.agents import Answer, ToolCall, Unreadable, parse_command, tool
from palmette.agents.commands import line_parameter


async def read(path: str, lines: int = 10) -> str:
    return f"{path} {lines}"


async def look() -> str:
    return "nothing"


async def wait(why: str = "no reason") -> str:
    return why


TOOLS = [tool(read), tool(look), tool(wait)]


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("read 3", "read", {"path": "3"}),
        ("  read\t a  b \n", "read", {"path": "a  b"}),
        ("look", "look", {}),
        ("wait", "wait", {}),
        ("wait a bit", "wait", {"why": "a bit"}),
    ],
)
def test_the_first_word_is_the_tool_and_the_rest_its_parameter(text: str, name: str, arguments: object) -> None:
    call = parse_command(text, TOOLS)
    assert isinstance(call, ToolCall)
    assert (call.name, msgspec.json.decode(call.arguments)) == (name, arguments)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "there is no command ''; there are: read, look, wait, done"),
        ("raed 3", "there is no command 'raed'; there are: read, look, wait, done"),
        ("read", "'read' needs its path after it"),
        ("look up", "'look' stands alone"),
        ("done", "'done' needs the answer after it"),
        ("read 3\nread 4", "a reply is one line"),
        ("read \ud800", "a reply is text, and this one holds half of a character"),
    ],
)
def test_anything_else_is_unreadable_with_a_reason(text: str, reason: str) -> None:
    assert parse_command(text, TOOLS) == Unreadable(reason)


words = st.text(min_size=1).filter(lambda text: text == text.strip() and len(text.splitlines()) == 1)


@given(words)
def test_what_follows_done_is_the_answer(text: str) -> None:
    assert parse_command(f"done {text}", TOOLS) == Answer(text)


@given(words)
async def test_what_follows_a_tool_reaches_it(text: str) -> None:
    call = parse_command(f"read {text}", TOOLS)
    assert isinstance(call, ToolCall)
    assert await TOOLS[0].run(call.arguments) == f"{text} 10"


@given(st.text() | st.text(alphabet="readonlkwit 37\n\t\ud800"))
async def test_no_text_escapes_the_three_cases(text: str) -> None:
    command = parse_command(text, TOOLS)
    if isinstance(command, ToolCall):
        assert text.split()[0] == command.name
        await next(each for each in TOOLS if each.schema.name == command.name).run(command.arguments)
    else:
        assert isinstance(command, Answer | Unreadable)


def test_tools_that_a_line_cannot_call_are_refused() -> None:
    async def number(x: int) -> None: ...

    async def two(x: str, y: str) -> None: ...

    async def done(x: str) -> None: ...

    async def late(n: int = 1, *, path: str) -> None: ...

    for bad in (number, two):
        with pytest.raises(ValueError, match=f"tool '{bad.__name__}' cannot be called by a line"):
            line_parameter(tool(bad).schema)
    with pytest.raises(ValueError, match="'done' cannot be a command"):
        line_parameter(tool(done).schema)
    with pytest.raises(ValueError, match="'a b' cannot be a command"):
        line_parameter(tool(look, name="a b").schema)
    assert line_parameter(tool(late).schema) == "path"
    assert line_parameter(tool(look).schema) is None
