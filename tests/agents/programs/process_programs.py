"""Programs that other processes import."""

from __future__ import annotations

import asyncio
import os

import msgspec
from program_support import echo, thinking

from palmette.agents.programs import agent, emit, expose, fail, program, spawn, wait


class Point(msgspec.Struct, frozen=True):
    x: int
    y: int


@program
async def flip(point: Point, *, times: int = 1) -> Point:
    for n in range(times):
        point = Point(point.y, point.x)
        emit("flipped", n)
    return point


@program
async def tells_pid() -> int:
    return os.getpid()


@program
async def breaks(text: str) -> None:
    raise ValueError(text)


@program
async def gives_up() -> None:
    fail("too hard")


@program
async def lasts() -> None:
    emit("begun", os.getpid())
    await asyncio.Event().wait()


@program
async def serves() -> None:
    @expose
    async def move(point: Point, by: int) -> Point:
        """Move a point to the right."""
        emit("moved")
        return Point(point.x + by, point.y)

    await wait()


@program
async def family() -> list[int]:
    """A program with a nested one, a spawned one in a process of its own, and an agent."""
    helper = await agent("helper", harness=thinking(echo))
    assert await helper.ask("x") == "heard: x"
    nested = await tells_pid()
    spawned = spawn(tells_pid.options(isolation="process"))
    return [os.getpid(), nested, await spawned.result()]


@program(isolation="process", image="local")
async def coding(model: str, harness: str) -> str:
    coder = await agent("coder", model=model, harness=harness)
    return await coder.ask("hello", timeout=60)
