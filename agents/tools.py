"""Tools for models, made from plain Python functions.

The type hints become the JSON Schema that the model is shown, the docstring's text and its ``Args:`` section become
the descriptions, and the model's arguments are decoded and checked against the hints before the function is called:

>>> async def add(x: int, y: int = 1) -> int:
...     '''Add two numbers.
...
...     Args:
...         x: The first.
...     '''
...     return x + y
>>> import asyncio
>>> asyncio.run(tool(add).run('{"x": 2}'))
'3'

A tool ends in one of three ways. It returns: the model sees the result. It raises
:class:`~palmette.agents.errors.ToolFailed` (or the arguments do not fit): the model sees the message. It raises
anything else: the agent crashes, and its supervisor decides.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Protocol, cast, get_type_hints

import msgspec

from palmette.agents.conversation import ToolSchema
from palmette.agents.errors import BadArguments, ToolFailed

__all__ = ["BadArguments", "Tool", "ToolFailed", "parameters_in_words", "tool"]


class Tool(Protocol):
    """Something a model can call. :func:`tool` makes one from a function; any object of this shape will do."""

    @property
    def schema(self) -> ToolSchema: ...

    async def run(self, arguments: str) -> str:
        """Call it with ``arguments`` as the model wrote them (JSON) and return what the model is to see.

        Raises:
            BadArguments: they do not fit :attr:`schema`.
            ToolFailed: the tool has bad news for the model.
        """
        ...


def tool(fn: Callable[..., object], *, name: str | None = None, description: str | None = None) -> Tool:
    """Make a tool of ``fn``, a function, bound method or partial whose parameters all have type hints.

    A coroutine function runs on the event loop. A plain function runs in a thread, so that it may block; a thread
    cannot be interrupted, so past its deadline it runs on with nobody listening (use an asynchronous function, or a
    machine, for what must be killable). A result that is not a string is shown to the model as JSON, ``None`` as
    nothing.

    Args:
        fn: What to call.
        name: What the model calls it; the function's own name by default.
        description: What the model is told; the docstring up to its first section by default.

    Raises:
        TypeError: a parameter has no hint, has one that JSON cannot express, or cannot be given by name.
    """
    return _FunctionTool(fn, name or getattr(fn, "__name__", ""), description)


class _FunctionTool:
    def __init__(self, fn: Callable[..., object], name: str, description: str | None) -> None:
        if not name:
            raise TypeError(f"{fn!r} has no name of its own; pass name=...")
        text, parameters = _read_docstring(inspect.getdoc(fn) or "")
        self._fn = fn
        self._is_async = inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__)
        self._struct = _parameter_struct(fn, name, parameters)
        self._decoder = msgspec.json.Decoder(self._struct)
        self._schema = ToolSchema(
            name=name,
            description=text if description is None else description,
            parameters=_json_schema(self._struct),
        )

    @property
    def schema(self) -> ToolSchema:
        return self._schema

    def __repr__(self) -> str:
        return f"tool({self._schema.name}: {parameters_in_words(self._schema) or 'no parameters'})"

    async def run(self, arguments: str) -> str:
        # Endpoints differ in what they send for a call without arguments: "{}" or nothing.
        try:
            decoded = self._decoder.decode(arguments if arguments.strip() else "{}")
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            wanted = parameters_in_words(self._schema) or "no parameters"
            raise BadArguments(
                f"bad arguments for {self._schema.name}: {_lower_first(str(error))}; it takes {wanted}"
            ) from None
        kwargs = {field: getattr(decoded, field) for field in self._struct.__struct_fields__}
        if self._is_async:
            result: object = await cast("Awaitable[object]", self._fn(**kwargs))
        else:
            result = await asyncio.to_thread(self._fn, **kwargs)
        if isinstance(result, str):
            return result
        return "" if result is None else msgspec.json.encode(result).decode()


def parameters_in_words(schema: ToolSchema) -> str:
    """``schema``'s parameters as one reads them aloud.

    >>> async def read(path: str, lines: int = 10) -> str: ...
    >>> parameters_in_words(tool(read).schema)
    'path (string), lines (integer, optional)'
    """
    properties = cast("Mapping[str, Mapping[str, object]]", schema.parameters.get("properties", {}))
    required = cast("list[str]", schema.parameters.get("required", []))
    words: list[str] = []
    for name, shape in properties.items():
        kind = str(shape.get("type", "")) or ("one of its listed values" if "enum" in shape else "see its schema")
        words.append(f"{name} ({kind}{'' if name in required else ', optional'})")
    return ", ".join(words)


def _parameter_struct(fn: Callable[..., object], name: str, descriptions: Mapping[str, str]) -> type[msgspec.Struct]:
    """A Struct with one field for each parameter: msgspec then writes the schema and checks the arguments."""
    hints, bound = _hints(fn)
    fields: list[tuple[str, object, object]] = []
    for parameter in inspect.signature(fn).parameters.values():
        if parameter.name in bound:
            continue
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"tool {name!r}: a model gives arguments by name, which {parameter} does not allow")
        if parameter.name not in hints:
            raise TypeError(f"tool {name!r}: parameter {parameter.name!r} needs a type hint")
        hint: object = hints[parameter.name]
        if parameter.name in descriptions:
            hint = Annotated[hint, msgspec.Meta(description=descriptions[parameter.name])]
        fields.append((parameter.name, hint, _default(parameter.default)))
    struct = msgspec.defstruct(
        f"{name}_arguments",
        cast("list[tuple[str, type, object]]", fields),
        kw_only=True,
        forbid_unknown_fields=True,
    )
    try:
        msgspec.json.schema_components((struct,))
    except TypeError as error:
        reason = str(error).splitlines()[-1]
        raise TypeError(f"tool {name!r}: a parameter's type cannot be written as JSON: {reason}") from error
    return struct


def _hints(fn: Callable[..., object]) -> tuple[dict[str, object], frozenset[str]]:
    """The type hints behind ``fn``, and the parameters that a partial has bound by name: not the model's to set."""
    if isinstance(fn, functools.partial):
        partial = cast("functools.partial[object]", fn)
        return get_type_hints(partial.func, include_extras=True), frozenset(partial.keywords)
    return get_type_hints(fn if inspect.isroutine(fn) else type(fn).__call__, include_extras=True), frozenset()


def _default(value: object) -> object:
    if value is inspect.Parameter.empty:
        return msgspec.NODEFAULT
    if isinstance(value, list | dict | set):
        # As Python has it, the one default object is shared by all calls; msgspec wants that said.
        shared = cast("object", value)
        return msgspec.field(default_factory=lambda: shared)
    return value


def _json_schema(struct: type[msgspec.Struct]) -> dict[str, object]:
    """The schema of ``struct`` itself, its helpers under ``$defs``: models are shown an object, not a reference."""
    (reference,), components = msgspec.json.schema_components((struct,), ref_template="#/$defs/{name}")
    own = str(reference["$ref"]).rpartition("/")[2]
    schema: dict[str, object] = dict(components.pop(own))
    schema.pop("title", None)
    if components:
        schema["$defs"] = components
    return schema


_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns|Yields|Raises|Examples?|Notes?|Attributes|See Also):\s*$")
_ENTRY = re.compile(r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")


def _read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """The description and the parameters' descriptions of a Google-style docstring (pyguide §3.8.3)."""
    lead: list[str] = []
    entries: dict[str, list[str]] = {}
    section = ""
    indent: int | None = None
    current: list[str] | None = None
    for line in text.splitlines():
        if heading := _SECTION.match(line):
            section, indent, current = heading[1], None, None
        elif not section:
            lead.append(line)
        elif section in {"Args", "Arguments", "Parameters"} and line.strip():
            depth = len(line) - len(line.lstrip())
            indent = depth if indent is None else indent
            entry = _ENTRY.match(line.strip()) if depth <= indent else None
            if entry:
                current = entries.setdefault(entry[1], [])
                current.append(entry[2])
            elif current is not None:
                current.append(line.strip())
    described = {name: " ".join(lines).strip() for name, lines in entries.items()}
    return "\n".join(lead).strip(), {name: words for name, words in described.items() if words}


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:] if not text[:2].isupper() else text
