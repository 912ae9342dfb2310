"""``@program``: an asynchronous function becomes an agent program, an actor under a supervisor.

>>> @program(timeout=60)
... async def double(x: int) -> int:
...     return 2 * x
>>> import asyncio
>>> asyncio.run(double.options(control=False)(21))
42

Called where no program runs it starts a system, with itself as the root, and closes it. Called in another program it
is a child of that one, and awaited; ``asyncio.gather`` of several such calls runs them side by side.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, ParamSpec, Self, TypeVar, Unpack, cast, overload

import msgspec

from palmette.actors import NodeError, System
from palmette.actors.arguments import hints_of
from palmette.actors.codec import decode, encode
from palmette.actors.scripts import importable_name, load
from palmette.agents.programs.options import Changes, ProgramOptions

P = ParamSpec("P")
R = TypeVar("R")


class Program(Generic[P, R]):
    """What ``@program`` makes of a function. Call it, :func:`spawn` it, or give it to a supervisor (:meth:`child`)."""

    def __init__(self, function: Callable[P, Awaitable[R]], options: ProgramOptions) -> None:
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"a program is an `async def` function; {function!r} is not")
        self.function = cast("Callable[..., Awaitable[object]]", function)
        self.set = options
        """Its options."""
        self.__name__ = function.__name__
        self.__qualname__ = function.__qualname__
        self.__module__ = function.__module__
        self.__doc__ = function.__doc__
        self.__wrapped__ = function

    def __repr__(self) -> str:
        return f"<program {self.__qualname__}>"

    def options(self, **changes: Unpack[Changes]) -> Program[P, R]:
        """The same program with other options; see :class:`ProgramOptions`.

        >>> handle = spawn(worker.options(restart="transient", timeout=300), task)  # doctest: +SKIP
        """
        return Program(cast("Callable[P, Awaitable[R]]", self.function), msgspec.structs.replace(self.set, **changes))

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it as a child of the present program, or as a root, and wait for its result.

        To cancel the wait is to cancel the program; it has ended when the cancellation comes out.

        Raises:
            TypeError: the arguments do not fit.
            ProgramFailed: it said ``fail``, took too long, was cancelled, or died.
            Exception: what its body raised, where it ran in this process.
        """
        from palmette.agents.programs.root import run_here

        return cast("R", await run_here(Call(cast("Program[..., object]", self), args, kwargs)))


class Call:
    """A program with its arguments. It crosses to another process by the program's name."""

    def __init__(self, program: Program[..., object], args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        self.program = program
        self.args = args
        self.kwargs = kwargs
        signature = inspect.signature(program.function)
        try:
            self._bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{program.__qualname__}{signature}: {error}") from None

    def begin(self) -> Awaitable[object]:
        """The body."""
        return self.program.function(*self.args, **self.kwargs)

    @property
    def return_type(self) -> object:
        """What the function says that it returns."""
        return hints_of(self.program.function).get("return", object)

    def to_wire(self) -> object:
        """Plain data. Raises NodeError where an argument cannot cross, or the program has no importable name."""
        program = self.program
        module = importable_name(program.__module__)
        if not module or "<locals>" in program.__qualname__:
            raise NodeError(
                f"{program!r} cannot be imported by another process; define it at the top of a module, or leave out "
                "isolation='process'"
            )
        arguments = dict(self._bound.arguments)
        for name, parameter in self._bound.signature.parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise NodeError(f"{program!r} takes {parameter}: only named parameters cross processes")
            arguments.setdefault(name, parameter.default)
        return {"program": f"{module}:{program.__qualname__}", "arguments": encode(arguments)}

    @classmethod
    def from_wire(cls, data: object, system: System) -> Self:
        """The counterpart. Raises NodeError or DecodeError."""
        told = cast("Mapping[str, object]", data)
        module, _, qualname = str(told["program"]).rpartition(":")
        found: object = load(module)
        for part in qualname.split("."):
            found = getattr(found, part, None)
        if not isinstance(found, Program):
            raise NodeError(f"{module} has no program {qualname}")
        program = cast("Program[..., object]", found)
        hints = hints_of(program.function)
        names = list(inspect.signature(program.function).parameters)
        shape = msgspec.defstruct("Arguments", [(name, cast("type", hints.get(name, object))) for name in names])
        arguments = decode(qualname, cast("bytes", told["arguments"]), shape, system)
        return cls(program, (), {name: getattr(arguments, name) for name in names})


@overload
def program(function: Callable[P, Awaitable[R]], /) -> Program[P, R]: ...


@overload
def program(**options: Unpack[Changes]) -> Callable[[Callable[P, Awaitable[R]]], Program[P, R]]: ...


def program(
    function: Callable[P, Awaitable[R]] | None = None, /, **options: Unpack[Changes]
) -> Program[P, R] | Callable[[Callable[P, Awaitable[R]]], Program[P, R]]:
    """Make an agent program of an ``async def`` function; bare, or with :class:`ProgramOptions`.

    Raises:
        TypeError: it is no coroutine function.
    """
    made = ProgramOptions(**options)
    return (lambda wrapped: Program(wrapped, made)) if function is None else Program(function, made)
