"""How the arguments and results of methods cross a process border, checked against the methods' own signatures.

Arguments travel as a map of parameter names, and are decoded into the types that the receiving method declares; a
value that does not fit is :class:`BadCall`, before the actor sees anything.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from palmette.actors.codec import bad_declaration, decode, encode
from palmette.actors.endpoints import Callee
from palmette.actors.errors import BadCall, NodeError
from palmette.actors.portable import carried, carrying, uncarried

if TYPE_CHECKING:
    from palmette.actors.system import System

_parameters: dict[object, Parameters] = {}
_results: dict[object, tuple[object, bool]] = {}
"""What methods return on the wire, and whether that may hold portable values."""


class Parameters:
    """The parameters of one method, ``self`` left out. Looked at once, for the rest is paid for by every message."""

    __slots__ = ("carriers", "name", "names", "ordered", "required", "shape", "signature")

    def __init__(self, function: Callable[..., object]) -> None:
        self.name = function.__qualname__
        self.signature = inspect.signature(function)
        parameters = list(self.signature.parameters.values())[1:]
        for parameter in parameters:
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "/")
                raise NodeError(f"{self.name} takes {stars}{parameter.name}: only named parameters cross processes")
        self.names = frozenset(parameter.name for parameter in parameters)
        self.ordered = tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
        self.required = frozenset(p.name for p in parameters if p.default is p.empty)
        hints = hints_of(function)
        types = {parameter.name: hints.get(parameter.name, object) for parameter in parameters}
        replaced = {name: carrying(hint) for name, hint in types.items()}
        self.carriers = [name for name in types if replaced[name] is not types[name]]
        """Those that may hold portable values."""
        self.shape = msgspec.defstruct(
            "Arguments",
            [(name, hint, msgspec.field(default=msgspec.UNSET)) for name, hint in replaced.items()],
            forbid_unknown_fields=True,
        )

    def bind(self, args: tuple[object, ...], kwargs: dict[str, object]) -> dict[str, object]:
        """The arguments by name. Raises BadCall if they do not fit."""
        given = dict(zip(self.ordered, args, strict=False))
        fits = len(args) <= len(self.ordered) and given.keys().isdisjoint(kwargs)
        given.update(kwargs)
        if not (fits and self.required <= given.keys() <= self.names):
            try:
                self.signature.bind(None, *args, **kwargs)
            except TypeError as error:
                raise BadCall(f"{self.name}{self.signature}: {error}") from None
        return given


def _parameters_of(function: Callable[..., object]) -> Parameters:
    found = _parameters.get(function)
    if found is None:
        found = _parameters[function] = Parameters(function)
    return found


def hints_of(function: Callable[..., object]) -> dict[str, object]:
    """A function's type hints, resolved. Raises NodeError naming the one that exists only for type checkers."""
    try:
        return typing.get_type_hints(function)
    except Exception as error:  # noqa: BLE001 - annotations are code
        raise bad_declaration(function.__qualname__, error) from None


def encode_arguments(function: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]) -> bytes:
    """Encode the arguments of a method by name, ``self`` left out. Raises BadCall, or NodeError."""
    parameters = _parameters_of(function)
    given = parameters.bind(args, kwargs)
    for name in parameters.carriers:
        if name in given:
            given[name] = carried(given[name])
    return encode(given)


def decode_arguments(function: Callable[..., object], payload: bytes, system: System) -> dict[str, object]:
    """Decode what :func:`encode_arguments` made, into the declared types. Raises BadCall if it does not fit."""
    parameters = _parameters_of(function)
    try:
        value = decode(parameters.name, payload, parameters.shape, system)
    except msgspec.DecodeError as error:
        raise BadCall(f"{parameters.name}: {error}") from None
    given = {name: item for name in parameters.names if (item := getattr(value, name)) is not msgspec.UNSET}
    for name in parameters.carriers:
        if name in given:
            given[name] = uncarried(given[name])
    return given


def encode_result(endpoint: Callee, value: object) -> bytes:
    """Encode an endpoint's reply. Raises NodeError."""
    _, is_carrier = _result_of(endpoint)
    return encode(carried(value) if is_carrier else value)


def decode_result(endpoint: Callee, payload: bytes, system: System) -> object:
    """Decode an endpoint's reply into its declared return type. Raises NodeError if it is of another."""
    name, (declared, is_carrier) = endpoint.function.__qualname__, _result_of(endpoint)
    try:
        value = decode(name, payload, declared, system)
    except msgspec.DecodeError as error:
        raise NodeError(f"{name} replied with something else than it declares: {error}") from None
    return uncarried(value) if is_carrier else value


def _result_of(endpoint: Callee) -> tuple[object, bool]:
    found = _results.get(endpoint.function)
    if found is None:
        hint = hints_of(endpoint.function).get("return", object)
        declared = carrying(hint)
        found = _results[endpoint.function] = (declared, declared is not hint)
    return found


def initializer(cls: type) -> Callable[..., object]:
    """The function whose signature a class is built by."""
    return _no_arguments if cls.__init__ is object.__init__ else cls.__init__


def _no_arguments(self: object) -> None:
    """Stands in for ``object.__init__``, whose signature claims to take anything."""
