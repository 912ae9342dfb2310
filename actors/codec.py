"""How values cross a process border: MessagePack, into declared types. Nothing is pickled.

References travel as addresses, classes as names. For the arguments and results of methods see
:mod:`palmette.actors.arguments`.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

import msgspec

from palmette.actors.errors import ActorError, NodeError
from palmette.actors.portable import Carried
from palmette.actors.ref import Ref
from palmette.actors.scripts import importable_name, load
from palmette.actors.wire import MAX_FRAME

if TYPE_CHECKING:
    from palmette.actors.system import System

MAX_MESSAGE: Final = MAX_FRAME - (1 << 16)
"""Bytes of one message or result. What is left of a frame is for the envelope."""


def _encode_hook(value: object) -> object:
    if isinstance(value, Ref):
        return cast("Ref[object]", value).path
    if isinstance(value, Carried):
        return value.value.to_wire()
    raise NodeError(f"a {type(value).__name__} cannot cross to another process; send a Struct or plain data")


def decode_hook(system: System) -> Callable[[type, object], object]:
    """What turns addresses back into references of ``system``."""

    def hook(wanted: type, value: object) -> object:
        if wanted is object:
            return value  # plain data; msgspec takes `object` for a class like any other
        origin = typing.get_origin(wanted) or wanted
        if origin is Ref and isinstance(value, str):
            return system.ref_at(value, object)
        if issubclass(origin, Carried):
            return origin(origin.portable.from_wire(value, system))
        raise NodeError(f"a {wanted!r} cannot cross to another process; send a Struct or plain data")

    return hook


def encode(value: object) -> bytes:
    """Encode one value. Raises NodeError, naming the type, if it cannot travel."""
    try:
        encoded = msgspec.msgpack.encode(value, enc_hook=_encode_hook)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise NodeError(f"{type(value).__name__} cannot cross to another process: {error}") from None
    if len(encoded) > MAX_MESSAGE:
        raise NodeError(
            f"{type(value).__name__} is {len(encoded)} bytes on the wire, and {MAX_MESSAGE} may cross at once; "
            "pass a file's name, or pieces"
        )
    return encoded


def encode_message(message: object) -> tuple[str, bytes]:
    """A message for ``receive``: its class's name, and itself. Raises NodeError if it is no Struct."""
    if not isinstance(message, msgspec.Struct):
        raise NodeError(f"only a Struct can be sent to another process, not a {type(message).__name__}")
    return name_of(type(message)), encode(message)


def decode_message(name: str, payload: bytes, system: System) -> object:
    """The counterpart of :func:`encode_message`. Raises NodeError."""
    try:
        return decode(name, payload, class_named(name, msgspec.Struct), system)
    except (msgspec.DecodeError, ImportError) as error:
        raise NodeError(f"a message of class {name} cannot be read here: {error}") from None


def decode(what: str, payload: bytes, wanted: object, system: System) -> object:
    """Decode one value into a declared type. Raises DecodeError if it is of another, and NodeError."""
    try:
        return cast(
            "object",
            msgspec.msgpack.decode(payload, type=wanted, dec_hook=decode_hook(system)),  # pyright: ignore
        )
    except (ActorError, msgspec.DecodeError):
        raise
    except Exception as error:
        raise bad_declaration(what, error) from error


def bad_declaration(what: str, error: Exception) -> NodeError:
    """What goes wrong with declared types as a NodeError: it is the code that must change, not a value."""
    match error:
        case NameError():
            return NodeError(f"{what}: {error}; types of what crosses processes must be importable at run time")
        case TypeError():
            return NodeError(f"{what}: {error}; declare Structs or plain data to cross processes")
        case _:
            # A value that comes with code of its own: a portable one, or a class whose module fails on import.
            return NodeError(f"{what}: {type(error).__name__}: {error}")


def name_of(cls: type) -> str:
    """``module:QualifiedName``, importable in another process of the same program. Raises NodeError."""
    module = importable_name(cls.__module__)
    if not module or "<locals>" in cls.__qualname__:
        raise NodeError(f"{cls.__qualname__} cannot be imported by another process; define it at the top of a module")
    return f"{module}:{cls.__qualname__}"


def class_named(name: str, base: type[object]) -> type:
    """The class behind :func:`name_of`'s text, if it is a ``base``. Raises NodeError, or what the import raises."""
    module, _, qualname = name.rpartition(":")
    found: object = load(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise NodeError(f"{module} has no {base.__name__} class named {qualname}")
    return found
