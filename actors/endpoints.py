"""Endpoints: the methods of an actor that others may call.

``@endpoint`` marks a method; ``Counter.add`` is then an :class:`Endpoint` that :meth:`Ref.call` takes together with
typed arguments, while ``self.add(…)`` inside the actor stays a plain method call. Endpoints are data: their names,
docstrings and parameter types are what the command line calls, what agents are given as tools, and what the wire
decodes arguments against.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Concatenate, Generic, ParamSpec, Protocol, TypeVar, cast, overload
from weakref import WeakKeyDictionary

from palmette.actors.errors import BadCall

A_contra = TypeVar("A_contra", contravariant=True)
A = TypeVar("A")
P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")


class Endpoint(Generic[A_contra, P, R_co]):
    """A callable method of actors of type ``A``; see :func:`endpoint`."""

    def __init__(self, function: Callable[Concatenate[A_contra, P], Awaitable[R_co]]) -> None:
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"an endpoint is an `async def` method; {function.__qualname__} is not")
        self.function = function
        self.__wrapped__ = function
        self.name = function.__name__
        self.__doc__ = function.__doc__
        self.signature = inspect.signature(function)

    @overload
    def __get__(self, instance: None, owner: type, /) -> Endpoint[A_contra, P, R_co]: ...

    @overload
    def __get__(self, instance: object, owner: type, /) -> Callable[P, Awaitable[R_co]]: ...

    def __get__(
        self, instance: object | None, owner: type, /
    ) -> Endpoint[A_contra, P, R_co] | Callable[P, Awaitable[R_co]]:
        if instance is None:
            return self
        return cast("Callable[P, Awaitable[R_co]]", self.function.__get__(instance, owner))

    def __repr__(self) -> str:
        return f"<endpoint {self.function.__qualname__}>"

    def check(self, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        """Raise :class:`BadCall` unless the arguments fit the parameters."""
        try:
            self.signature.bind(None, *args, **kwargs)
        except TypeError as error:
            raise BadCall(f"{self.function.__qualname__}{self.signature}: {error}") from None


def endpoint(function: Callable[Concatenate[A, P], Awaitable[R]]) -> Endpoint[A, P, R]:
    """Make an ``async def`` method callable through a :class:`~palmette.actors.Ref`."""
    return Endpoint(function)


def endpoints_of(actor: type) -> dict[str, Endpoint[object, ..., object]]:
    """All endpoints of an actor class, inherited ones included, by name."""
    found: dict[str, Endpoint[object, ..., object]] = {}
    for base in reversed(actor.__mro__):
        for name, value in vars(base).items():
            if isinstance(value, Endpoint):
                found[name] = cast("Endpoint[object, ..., object]", value)
            else:
                found.pop(name, None)  # an override without @endpoint withdraws it
    return found


class Callee(Protocol):
    """An endpoint as a request knows it: whosever it is, and not as the descriptor that it is in its class."""

    @property
    def name(self) -> str: ...

    @property
    def function(self) -> Callable[..., Awaitable[object]]: ...


class EndpointTable:
    """What the kernel looks up for every request to an actor of one class."""

    __slots__ = ("by_name", "functions")

    def __init__(self, actor: type) -> None:
        self.by_name = endpoints_of(actor)
        self.functions: dict[object, Callable[..., Awaitable[object]]] = {}
        """By endpoint, the overridden ones of base classes included: one look-up finds what a request runs."""
        for base in actor.__mro__:
            for name, value in vars(base).items():
                if isinstance(value, Endpoint) and name in self.by_name and value.name == name:
                    self.functions[value] = self.by_name[name].function

    def named(self, name: str, path: str) -> Endpoint[object, ..., object]:
        """The endpoint ``name`` of the actor at ``path``. Raises BadCall naming those that exist."""
        found = self.by_name.get(name)
        if found is None:
            known = ", ".join(sorted(self.by_name)) or "none"
            raise BadCall(f"{path} has no endpoint {name!r}; it has: {known}")
        return found


_tables: WeakKeyDictionary[type, EndpointTable] = WeakKeyDictionary()


def table_of(actor: type) -> EndpointTable:
    """The table of an actor class, made on first use."""
    found = _tables.get(actor)
    if found is None:
        found = _tables[actor] = EndpointTable(actor)
    return found
