"""What two processes must have in common to understand each other, and what differs where they do not.

A node's greeting carries a :class:`Build`: palmette's version, Python's, and a hash of all frames. One that is not the
same as the program's is not let in. (Python's alone may differ: nothing on the wire depends on it.) The order to start
an actor carries its class's *interface* as the program sees it: the signatures of ``__init__`` and of the endpoints,
and the fields of the structs in them, as text, so that what differs can be named:

>>> here = {"endpoint add": "add(step: int) -> int", "endpoint get": "get() -> int"}
>>> there = {"endpoint add": "add(step: float) -> int"}
>>> differences(here, there)
['endpoint `add(step: int) -> int` here, `add(step: float) -> int` there', 'endpoint `get() -> int` here only']

Both are made once, and kept.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import inspect
import platform
import sys
import types
import typing
from collections.abc import Callable, Iterable
from typing import Final, cast
from weakref import WeakKeyDictionary

import msgspec

from palmette.actors.endpoints import endpoints_of
from palmette.actors.errors import NodeError

TOLD: Final = 5
"""Differences that an error names; the others are counted."""

_interfaces: WeakKeyDictionary[type, dict[str, str]] = WeakKeyDictionary()


class Build(msgspec.Struct, frozen=True, array_like=True):
    """The code that a process runs."""

    palmette: str
    python: str
    frames: str
    """A hash of what the frames of the wire look like."""

    def __str__(self) -> str:
        return f"palmette {self.palmette} (Python {self.python}, frames {self.frames})"


@functools.cache
def this_build() -> Build:
    """Of this process."""
    from palmette import __version__
    from palmette.actors import wire

    return Build(__version__, platform.python_version(), hash_of(wire.Frame))


def check_build(there: Build | None) -> None:
    """Raise NodeError where a process cannot be talked to."""
    here = this_build()
    if there is None or (there.palmette, there.frames) != (here.palmette, here.frames):
        other = "an older palmette" if there is None else str(there)
        raise NodeError(f"its process runs other code: {here} here, {other} there; install the same version on both")


def hash_of(hint: object) -> str:
    """A short hash of a type and all that it is made of."""
    found = _Types()
    lines = [found.show(hint), *(f"{name}: {text}" for name, text in sorted(found.described().items()))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def interface_of(actor: type) -> dict[str, str]:
    """What one must know of an actor class to talk to it, by name."""
    known = _interfaces.get(actor)
    if known is None:
        known = _interfaces[actor] = _interface_of(actor)
    return known


def check_interface(actor: type, here: dict[str, str]) -> None:
    """Raise NodeError where ``actor`` is another class in this process (``there``) than in the program (``here``)."""
    found = differences(here, interface_of(actor))
    if found:
        more = f"; and {len(found) - TOLD} more" if len(found) > TOLD else ""
        raise NodeError(
            f"{actor.__module__}.{actor.__qualname__} is not the same in the program and in the process that is to run "
            f"it: {'; '.join(found[:TOLD])}{more}. Put the same code on both hosts, and start the program anew"
        )


def differences(here: dict[str, str], there: dict[str, str]) -> list[str]:
    """One line for each.

    A struct that one side alone has is none: if it is needed, something else differs; and if not, a module may well
    define it only where, say, torch can be imported.
    """
    found: list[str] = []
    for name in sorted(here.keys() | there.keys()):
        kind, mine, other = name.partition(" ")[0], here.get(name), there.get(name)
        if mine is not None and other is not None:
            if mine != other:
                found.append(f"{kind} `{mine}` here, `{other}` there")
        elif kind != "struct":
            found.append(f"{kind} `{mine}` here only" if other is None else f"{kind} `{other}` there only")
    return found


def _interface_of(actor: type) -> dict[str, str]:
    found = _Types()
    lines = {f"endpoint {name}": found.signature(name, item.function) for name, item in endpoints_of(actor).items()}
    if actor.__init__ is not object.__init__:
        lines["class"] = found.signature(actor.__name__, actor.__init__)
    # Messages for `receive` are in no signature, but mostly beside their actor.
    module = sys.modules.get(actor.__module__)
    for value in list(vars(module).values()) if module is not None else ():
        if isinstance(value, type) and issubclass(value, msgspec.Struct) and value.__module__ == actor.__module__:
            found.show(value)
    return lines | found.described()


class _Types:
    """Writes types down, and keeps the classes with fields that it comes across."""

    def __init__(self) -> None:
        self._met: dict[type, None] = {}

    def described(self) -> dict[str, str]:
        """All classes met, and those met in their fields."""
        done: dict[type, str] = {}
        while left := [cls for cls in self._met if cls not in done]:
            for cls in left:
                done[cls] = self._fields(cls)
        return {f"struct {cls.__qualname__}": text for cls, text in done.items()}

    def _fields(self, cls: type) -> str:
        if issubclass(cls, enum.Enum):
            return f"{cls.__qualname__}({', '.join(f'{item.name}={item.value!r}' for item in cls)})"
        hints = _hints(cast("type[object]", cls))
        tag = cls.__struct_config__.tag if issubclass(cls, msgspec.Struct) else None
        shown = [f"{name}: {self.show(hint)}" for name, hint in hints.items()]
        return f"{cls.__qualname__}({', '.join(shown)})" + (f" tagged {tag!r}" if tag is not None else "")

    def signature(self, name: str, function: Callable[..., object]) -> str:
        """A method's, without ``self``."""
        signature = inspect.signature(function)
        hints = _hints(function)
        shown: list[str] = []
        for parameter in list(signature.parameters.values())[1:]:
            stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
            hint = f": {self.show(hints[parameter.name])}" if parameter.name in hints else ""
            default = "" if parameter.default is parameter.empty else " = ..."
            shown.append(f"{stars}{parameter.name}{hint}{default}")
        result = f" -> {self.show(hints['return'])}" if function.__name__ != "__init__" and "return" in hints else ""
        return f"{name}({', '.join(shown)}){result}"

    def show(self, hint: object) -> str:
        """One type, the same in every Python."""
        origin, inner = typing.get_origin(hint), typing.get_args(hint)
        if origin is typing.Literal:
            return f"Literal[{', '.join(map(repr, inner))}]"
        if origin is typing.Annotated:
            return f"Annotated[{self.show(inner[0])}, {', '.join(map(repr, inner[1:]))}]"
        if origin in (typing.Union, types.UnionType):
            return " | ".join(self._all(inner))
        if origin is not None:
            return f"{self.show(origin)}[{', '.join(self._all(inner))}]"
        if hint is None or hint is type(None):
            return "None"
        if hint is ...:
            return "..."
        if isinstance(hint, list):
            return f"[{', '.join(self._all(cast('list[object]', hint)))}]"
        if isinstance(hint, type):
            self._meet(cast("type[object]", hint))
            return hint.__qualname__
        return hint if isinstance(hint, str) else repr(hint)

    def _meet(self, cls: type[object]) -> None:
        is_struct = issubclass(cls, msgspec.Struct | enum.Enum)
        if is_struct or dataclasses.is_dataclass(cls) or typing.is_typeddict(cls):
            self._met[cls] = None

    def _all(self, hints: Iterable[object]) -> list[str]:
        return [self.show(hint) for hint in hints]


def _hints(thing: type[object] | Callable[..., object]) -> dict[str, object]:
    """Type hints; as they are written where they name what exists for type checkers only."""
    try:
        return typing.get_type_hints(thing, include_extras=True)
    except Exception:  # noqa: BLE001 - annotations are code
        return inspect.get_annotations(thing)
