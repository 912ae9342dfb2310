"""What the body of a program says: functions that mean the program whose code is running.

They work in the body, in its endpoints, in its agents' tools, and in tasks that any of these made; each always means
the program that it was written in, also across nested calls and spawns.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import ParamSpec, TypeVar, cast

from palmette.actors import System
from palmette.agents.conversation import ModelClient
from palmette.agents.harness import HarnessFactory
from palmette.agents.programs.agent_actor import BACKOFF, RULES
from palmette.agents.programs.agent_handle import Agent
from palmette.agents.programs.decorator import Call, Program
from palmette.agents.programs.errors import ProgramFailed
from palmette.agents.programs.handle import Handle
from palmette.agents.programs.populating import START_SECONDS, AgentOrder, start_agent, start_machine
from palmette.agents.programs.root import here, spawn_call
from palmette.agents.programs.stream import EventStream
from palmette.agents.react_harness import react_harness
from palmette.agents.toolbox import TOOL_SECONDS
from palmette.machines import Machine
from palmette.supervisors import Backoff
from palmette.supervisors.policy import Directive, Restart

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Awaitable[object]])


def spawn(program: Program[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Handle[R]:
    """Start ``program`` as a child of this one, and go on. It ends when this one does, at the latest.

    Its options say how it is supervised: ``spawn(worker.options(restart="transient", timeout=300), task)``.

    Raises:
        TypeError: the arguments do not fit, or ``program`` is none.
        ValueError: its name is taken.
        NoProgram: no program runs here.
    """
    if not isinstance(program, Program):  # pyright: ignore[reportUnnecessaryIsInstance] - for those who do not check
        raise TypeError(f"spawn takes a program, not {program!r}; put @program above the function")
    call = Call(cast("Program[..., object]", program), args, kwargs)
    return cast("Handle[R]", spawn_call(here(), call))


async def agent(
    name: str,
    *,
    system_prompt: str | None = None,
    model: str | ModelClient = "",
    harness: HarnessFactory | str | None = None,
    image: str | None = None,
    machine: Machine | None = None,
    tool_seconds: float = TOOL_SECONDS,
    restart: Restart = "transient",
    backoff: Backoff = BACKOFF,
    rules: Mapping[str, Directive] = RULES,
    start_timeout: float = START_SECONDS,
) -> Agent:
    """Start an agent of this program; returns when it takes messages.

    Args:
        name: Unique in this program.
        system_prompt: Comes before everything.
        model: A model client, for a ``react`` harness; or a model's name, which the harness understands: for one that
            is named here, as on the command line (``openai/NAME``, ``openai/NAME@http://HOST:PORT/v1``).
        harness: What drives the model; by default the program's, else ``react``. ``pi`` (on a machine that has the pi
            coding agent; ``pi:COMMAND`` where it is called otherwise) and ``cli:COMMAND`` need a machine. Their models
            are behind a recording proxy of this system, which keeps the key here. All requests to one endpoint, of
            named harnesses, go through one limiter.
        image: The image of a machine of its own; by default the program's. It ends with the agent.
        machine: A machine that it shares; it stays when the agent ends.
        tool_seconds: Deadline of its tools, unless a tool has one of its own.
        restart: What happens when it crashes: by default it is started again, after ``backoff``, and goes on with its
            conversation.
        rules: Errors that are treated specially; by default an endpoint's plain No fails the program at once, and one
            that is not there costs none of the program's restart budget.
        start_timeout: Seconds for its machine and its harness to come up.

    Raises:
        ValueError: there is an agent of this name, or both ``image`` and ``machine`` were given.
        DeadlineExceeded: it was not up in time.
        Exception: what its harness or its machine raised; nothing of it is left.
    """
    if image is not None and machine is not None:
        raise ValueError(f"agent {name!r}: give it an image or a machine, not both")
    if not isinstance(model, str):
        model, harness = "", react_harness(model)
    order = AgentOrder(
        system_prompt=system_prompt,
        model=model,
        harness=harness,
        image=image,
        machine=machine,
        tool_seconds=tool_seconds,
        restart=restart,
        backoff=backoff,
        rules=rules,
        seconds=start_timeout,
    )
    return await start_agent(here(), name, order)


async def machine(image: str | None = None, *, start_timeout: float = START_SECONDS) -> Machine:
    """Start a machine of this program; it is there when this returns, and ends with the program.

    One that is lost is replaced by a fresh one: its files are gone, who uses it is told by an exit.

    Raises:
        ValueError: neither it nor the program says of which image.
        UnknownImage: no backend understands the image.
        ActorDied: it could not come up.
        DeadlineExceeded: it was not up in time.
    """
    return await start_machine(here(), image, seconds=start_timeout)


def done(result: object = None) -> None:
    """This program has come to ``result``, whatever its body returns. The first word counts; see :func:`wait`."""
    here().settle(result)


def fail(reason: str) -> None:
    """This program has failed: it ends as :class:`ProgramFailed` when its body ends, at the latest."""
    here().settle(failure=ProgramFailed(reason))


async def wait() -> object:
    """Wait until somebody (a tool, an endpoint) says ``done`` or ``fail``; what was done comes back.

    The program's ``timeout`` bounds it.

    Raises:
        ProgramFailed: somebody said ``fail``.
    """
    return await here().wait()


def emit(type: str, data: object = None) -> None:
    """Tell whoever observes this program. In a process of its own ``data`` must be plain data or a Struct.

    It is told when this returns. A program that is killed before has not told it, and its next incarnation can see that
    in :func:`own_events`.
    """
    here().record.events.append(type, data)


def own_events() -> EventStream:
    """What this program has told, its earlier incarnations included: one that is started again tells nothing twice.

    >>> if total not in [event.data for event in own_events().snapshot()]:     # doctest: +SKIP
    ...     emit("total", total)

    In a process of its own a program sees only what its present incarnation told.
    """
    return here().record.events


def expose(function: F) -> F:
    """Let others call ``function`` by its name: ``handle.call``, attached agents, ``palmette call``.

    It runs in this program. What it raises goes to its caller. Its type hints and docstring are what a model or a
    person is told of it. Also usable as a decorator.

    Raises:
        TypeError: it is no ``async def`` function.
    """
    if not inspect.iscoroutinefunction(function):
        raise TypeError(f"an endpoint is an `async def` function; {function!r} is not")
    here().expose(function)
    return function


def bubble(handle: Handle[object], *, source: str | None = None) -> Callable[[], None]:
    """Have all that a child tells told by this program, too, from the child's first event on.

    An event that names a source keeps it (the deepest one wins); others are marked ``source``. The returned function
    ends it; twice is fine.
    """
    return handle.events.copy_to(here().record.events, source=source)


def current_system() -> System:
    """The system that this program runs in. Raises NoProgram."""
    return here().system
