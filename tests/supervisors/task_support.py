"""A system with a task supervisor, and functions to run as tasks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from support.probes import Boom, Probe
from support.worlds import turns

from palmette.actors import Ref, System
from palmette.supervisors import Supervisor, TaskSupervisor, child

nolink = TaskSupervisor.async_nolink


@asynccontextmanager
async def tasks_running(**options: object) -> AsyncGenerator[tuple[System, Ref[TaskSupervisor]]]:
    """A system with a task supervisor and an actor that can be an owner; proves that no task is left."""
    children = [
        TaskSupervisor.spec(name="tasks", **options),  # pyright: ignore[reportArgumentType]
        child(Probe, name="owner", restart="temporary"),
    ]
    async with System.start(Supervisor.spec(children=children, max_restarts=100)) as system:
        yield system, system.whereis("tasks", TaskSupervisor)
    assert system.statistics().actors == 0


async def double(number: int) -> int:
    await asyncio.sleep(1)
    return 2 * number


async def fail(text: str = "boom") -> None:
    await asyncio.sleep(1)
    raise Boom(text)


async def for_ever() -> None:
    await asyncio.sleep(1e6)


async def tidy(log: list[str], seconds: float) -> None:
    """Takes ``seconds`` to clean up."""
    try:
        log.append("begun")
        await asyncio.sleep(1e6)
    finally:
        await asyncio.sleep(seconds)
        log.append("tidy")


async def present(tasks: Ref[TaskSupervisor]) -> list[str]:
    """The names of the tasks."""
    await turns(50)
    return [info.name for info in await tasks.call(TaskSupervisor.which_children)]
