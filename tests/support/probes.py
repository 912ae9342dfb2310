"""Actors for tests of the kernel, and a clock that lets minutes pass in no time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import TypeVar

from support.worlds import turns

from palmette.actors import Actor, Crashed, ExitRecord, Reason, Ref, System, TaskDone, endpoint
from palmette.supervisors import ChildSpec, Supervisor, child

T = TypeVar("T")
A = TypeVar("A", bound=Actor)


@asynccontextmanager
async def running(*children: ChildSpec[Actor]) -> AsyncGenerator[System]:
    """A system with these children, none of which brings the others down."""
    async with System.start(Supervisor.spec(children=children, max_restarts=1000)) as system:
        yield system


def worker(actor: type[A], *args: object, name: str = "it", **options: object) -> ChildSpec[A]:
    """A child that is not restarted."""
    return child(actor, *args, name=name, restart="temporary", **options)  # pyright: ignore[reportArgumentType]


async def begun(*calls: Coroutine[object, object, T]) -> list[asyncio.Task[T]]:
    """Begin these, each after the one before has come as far as it can."""
    tasks: list[asyncio.Task[T]] = []
    for call in calls:
        tasks.append(asyncio.create_task(call))
        await turns()
    return tasks


async def ended(ref: Ref[object], timeout: float = 100.0) -> Reason:
    """Wait for the end of the present incarnation, or take that of the last one, where nobody lives any more."""
    target = ref._slot.target  # pyright: ignore[reportPrivateUsage]
    if target is None:
        reason = ref._slot.last_exit  # pyright: ignore[reportPrivateUsage]
        assert reason is not None, f"nobody lived at {ref}"
        return reason
    return await asyncio.wait_for(asyncio.shield(target.ended()), timeout)


def text_of(reason: Reason | None) -> str:
    """The text of a crash."""
    assert isinstance(reason, Crashed), reason
    return reason.text


def last_exit(system: System, path: str) -> ExitRecord:
    """The newest exit recorded at an address."""
    return system.why(path)[-1]


class Boom(Exception):
    """What tests crash with."""


class Probe(Actor):
    """Keeps what it receives, and does what it is told to."""

    def __init__(self) -> None:
        self.got: list[object] = []
        self.gate = asyncio.Event()
        self.entered = asyncio.Event()

    async def receive(self, message: object) -> None:
        self.got.append(message)

    @endpoint
    async def do(self, action: Callable[[Probe], T]) -> T:
        """Run ``action`` inside this actor."""
        return action(self)

    @endpoint
    async def go(self, action: Callable[[Probe], Awaitable[T]]) -> T:
        """Run ``action`` inside this actor, and wait for it."""
        return await action(self)

    @endpoint
    async def keep(self, item: object) -> int:
        """Keep ``item`` as if it had been sent; how many there are."""
        self.got.append(item)
        return len(self.got)

    @endpoint
    async def seen(self) -> list[object]:
        """What was received so far."""
        return list(self.got)

    @endpoint
    async def pass_gate(self) -> str:
        """Answer when the gate opens."""
        self.entered.set()
        await self.gate.wait()
        return "passed"

    @endpoint
    async def fail(self, text: str = "boom") -> None:
        """Crash."""
        raise Boom(text)


class Trapping(Probe):
    """A probe that is told of its links' ends instead of sharing them."""

    trap_exit = True


class Stubborn(Probe):
    """Swallows its cancellations until ``release`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.release = asyncio.Event()

    @endpoint
    async def hang(self) -> str:
        self.entered.set()
        await insist(self.release)
        return "done at last"


async def insist(until: asyncio.Event) -> None:
    """Wait for ``until``, whoever cancels."""
    while not until.is_set():
        try:
            await until.wait()
        except asyncio.CancelledError:
            continue


def actor_of(ref: Ref[A]) -> A:
    """The object behind a reference, to look into it from a test."""
    target = ref._slot.target  # pyright: ignore[reportPrivateUsage]
    actor: object = getattr(target, "actor", None)
    assert isinstance(actor, Actor)
    return actor  # pyright: ignore[reportReturnType]


def done(messages: list[object]) -> list[tuple[str, object]]:
    """The task results among ``messages``."""
    return [(message.tag, message.value) for message in messages if isinstance(message, TaskDone)]
