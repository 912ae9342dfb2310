"""Values that know by themselves how to cross a process border: a child spec, which holds a class and its arguments.

MessagePack would encode such a Struct field by field, and could not decode the arguments into their types. So while it
crosses, each is wrapped in a :class:`Carried`, which the codec's hooks see; and in the shape that arguments are decoded
against, its class is replaced likewise.
"""

from __future__ import annotations

import functools
import operator
import types
import typing
from typing import TYPE_CHECKING, Protocol, Self, TypeGuard, cast

if TYPE_CHECKING:
    from palmette.actors.system import System


class Portable(Protocol):
    """A class that turns itself into plain data and back. Arguments may be such, or lists, tuples and dicts of such."""

    def to_wire(self) -> object:
        """Plain data. Raises NodeError."""
        ...

    @classmethod
    def from_wire(cls, data: object, system: System) -> Self:
        """The counterpart. Raises NodeError or BadCall."""
        ...


class Carried:
    """Stands in for a portable value while it is encoded, and (as ``Carried[cls]``) for its type in a signature."""

    def __init__(self, value: Portable) -> None:
        self.value = value

    def __class_getitem__(cls, portable: type[Portable]) -> type[Carried]:
        return type("Carried", (Carried,), {"portable": portable})

    portable: type[Portable]


def _is_portable(cls: object) -> TypeGuard[type[Portable]]:
    return isinstance(cls, type) and hasattr(cls, "from_wire")


def carrying(hint: object) -> object:
    """``hint`` with portable classes replaced by what carries them."""
    origin = typing.get_origin(hint)
    if _is_portable(origin or hint):
        return Carried[cast("type[Portable]", origin or hint)]
    inner = typing.get_args(hint)
    replaced = tuple(carrying(part) for part in inner)
    if replaced == inner or origin is None:
        return hint
    if origin is typing.Union or origin is types.UnionType:
        return functools.reduce(operator.or_, replaced)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    return origin[replaced]


def carried(value: object) -> object:
    """``value`` with portable values in it replaced by what carries them."""
    if _is_portable(type(value)):
        return Carried(cast("Portable", value))
    if isinstance(value, list | tuple):
        return [carried(item) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        return {key: carried(item) for key, item in cast("dict[object, object]", value).items()}
    return value


def uncarried(value: object) -> object:
    """The counterpart of :func:`carried`, after decoding."""
    if isinstance(value, Carried):
        return value.value
    if isinstance(value, list | tuple):
        items = [uncarried(item) for item in cast("list[object]", value)]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, dict):
        return {key: uncarried(item) for key, item in cast("dict[object, object]", value).items()}
    return value
