"""Tools are made from functions, and say clearly what does not fit."""

from __future__ import annotations

import asyncio
import functools
import threading
from typing import Annotated, Any, Literal, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palmette.agents import BadArguments, ToolFailed, tool


class Point(msgspec.Struct):
    x: int
    y: int = 0


Shape = Literal["round", "square"]


async def everything(
    name: str,
    count: int,
    ratio: float = 0.5,
    shape: Shape = "round",
    at: Point | None = None,
    tags: list[str] = ["a"],  # noqa: B006 (a default that msgspec alone would refuse)
    *,
    loud: bool = False,
) -> dict[str, object]:
    """Hand back what was given.

    It has a second paragraph.

    Args:
        name: Whose it is,
            in full.
        count (int): How many.
        shape:
            One of two.

    Returns:
        All: of it.
    """
    return {"name": name, "count": count, "ratio": ratio, "shape": shape, "at": at, "tags": tags, "loud": loud}


def test_the_schema_comes_from_hints_and_docstring() -> None:
    schema = tool(everything).schema
    assert schema.name == "everything"
    assert schema.description == "Hand back what was given.\n\nIt has a second paragraph."
    properties = cast("dict[str, dict[str, Any]]", schema.parameters["properties"])
    assert schema.parameters["type"] == "object"
    assert schema.parameters["required"] == ["name", "count"]
    assert schema.parameters["additionalProperties"] is False
    assert properties["name"] == {"type": "string", "description": "Whose it is, in full."}
    assert properties["count"] == {"type": "integer", "description": "How many."}
    assert properties["shape"] == {"enum": ["round", "square"], "default": "round", "description": "One of two."}
    assert properties["ratio"] == {"type": "number", "default": 0.5}
    assert {"$ref": "#/$defs/Point"} in properties["at"]["anyOf"]
    assert "All" not in properties
    assert set(cast("dict[str, object]", schema.parameters["$defs"])) == {"Point"}


def test_name_and_description_can_be_given() -> None:
    schema = tool(everything, name="all", description="short").schema
    assert (schema.name, schema.description) == ("all", "short")


@given(
    name=st.text(),
    count=st.integers(-(2**63), 2**63 - 1),
    ratio=st.floats(allow_nan=False, allow_infinity=False),
    shape=st.sampled_from(["round", "square"]),
    at=st.none() | st.builds(Point, x=st.integers(-1000, 1000), y=st.integers(-1000, 1000)),
    tags=st.lists(st.text()),
    loud=st.booleans(),
)
def test_arguments_that_fit_the_schema_reach_the_function_unchanged(**given_arguments: object) -> None:
    wire = msgspec.json.encode(given_arguments).decode()
    came_back = asyncio.run(tool(everything).run(wire))
    assert msgspec.json.decode(came_back) == msgspec.json.decode(wire)


@given(text=st.text() | st.text(alphabet='{}[]":,0123456789abnulltrefs \\'))
def test_any_text_is_either_decoded_or_refused_with_advice(text: str) -> None:
    try:
        seen = asyncio.run(tool(everything).run(text))
    except BadArguments as error:
        seen = str(error)
    assert seen.startswith('{"name":') or "it takes name (string), count (integer)" in seen


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ('{"name": 1, "count": 1}', "expected `str`, got `int` - at `$.name`"),
        ('{"name": "a"}', "missing required field `count`"),
        ('{"name": "a", "count": 1, "colour": 2}', "unknown field `colour`"),
        ('{"name": "a", "shape": "flat", "count": 1}', "invalid enum value 'flat'"),
        ('{"name": ', "truncated"),
        ("[1]", "expected `object`, got `array`"),
        ("[" * 100_000, "it takes name"),
        ('{"name": "\ud800", "count": 1}', "surrogates"),
    ],
)
async def test_bad_arguments_are_named(arguments: str, told: str) -> None:
    with pytest.raises(BadArguments) as caught:
        await tool(everything).run(arguments)
    assert str(caught.value).startswith("bad arguments for everything: ")
    assert told in str(caught.value)


@pytest.mark.parametrize("arguments", ["", "  ", "{}"])
async def test_a_call_without_arguments_may_send_nothing(arguments: str) -> None:
    async def look() -> str:
        return "seen"

    assert await tool(look).run(arguments) == "seen"


async def test_a_plain_function_runs_in_a_thread() -> None:
    def where() -> str:
        return threading.current_thread().name

    assert await tool(where).run("{}") != threading.current_thread().name


async def test_a_method_and_a_callable_object_are_functions_too() -> None:
    class Counter:
        def __init__(self) -> None:
            self.value = 0

        async def add(self, step: int) -> int:
            self.value += step
            return self.value

        async def __call__(self, to: int) -> None:
            self.value = to

    counter = Counter()
    assert await tool(counter.add).run('{"step": 2}') == "2"
    assert await tool(counter, name="reset").run('{"to": 9}') == ""
    assert counter.value == 9


async def test_a_partial_function_shows_the_model_only_what_is_left() -> None:
    async def read(root: str, path: str) -> str:
        return f"{root}/{path}"

    for partial in (functools.partial(read, "/data"), functools.partial(read, root="/data")):
        bound = tool(partial, name="read")
        assert list(cast("dict[str, object]", bound.schema.parameters["properties"])) == ["path"]
        assert await bound.run('{"path": "a"}') == "/data/a"


async def test_constraints_in_hints_are_checked() -> None:
    async def read(name: Annotated[str, msgspec.Meta(max_length=3)]) -> str:
        return name

    assert await tool(read).run('{"name": "abc"}') == "abc"
    with pytest.raises(BadArguments, match="length <= 3"):
        await tool(read).run('{"name": "abcd"}')


async def test_what_a_tool_raises_is_left_as_it_is() -> None:
    async def fail() -> None:
        raise ToolFailed("no such file")

    def crash() -> None:
        raise ZeroDivisionError("boom")

    with pytest.raises(ToolFailed, match="no such file"):
        await tool(fail).run("")
    with pytest.raises(ZeroDivisionError, match="boom"):
        await tool(crash).run("")


def test_a_function_that_cannot_be_a_tool_is_refused_with_the_reason() -> None:
    def unhinted(x) -> None: ...  # pyright: ignore

    def many(*xs: int) -> None: ...

    def positional(x: int, /) -> None: ...

    def odd(x: threading.Lock) -> None: ...  # pyright: ignore

    with pytest.raises(TypeError, match="parameter 'x' needs a type hint"):
        tool(unhinted)  # pyright: ignore
    with pytest.raises(TypeError, match=r"by name, which \*xs"):
        tool(many)
    with pytest.raises(TypeError, match="by name, which x"):
        tool(positional)
    with pytest.raises(TypeError, match=r"tool 'odd': .* JSON"):
        tool(odd)  # pyright: ignore
    with pytest.raises(TypeError, match="pass name="):
        tool(object())  # pyright: ignore
