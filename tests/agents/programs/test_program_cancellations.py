"""Cancelled programs: they tell so, their streams end, and what they started has ended with them."""

from __future__ import annotations

import asyncio

import pytest
from program_support import for_ever, root, types
from support.worlds import everywhere, turns

from palmette.agents.programs import (
    Event,
    ProgramCancelled,
    current_system,
    spawn,
)


@root
async def lasts() -> None:
    await for_ever()


@everywhere
async def test_a_cancelled_program_tells_so_and_its_stream_ends() -> None:
    @root
    async def main() -> None:
        handle = spawn(lasts)
        await turns()
        handle.cancel()
        assert [event async for event in handle.events] == handle.events.snapshot()
        assert types(handle.events) == ["cancelled"]
        with pytest.raises(ProgramCancelled):
            await handle.result()

    await main()


@everywhere
async def test_a_program_that_is_cancelled_at_once_tells_so_and_its_stream_ends() -> None:
    """Failure 7: there nothing was told, and whoever read the stream waited for ever."""
    begun: list[str] = []

    @root
    async def eager() -> None:
        begun.append("begun")
        await for_ever()

    @root
    async def main() -> None:
        handle = spawn(eager)
        handle.cancel()
        assert [event async for event in handle.events] == [Event(1, "cancelled")]
        handle.cancel()

    await main()
    assert begun == []


@everywhere
async def test_to_cancel_a_call_is_to_cancel_the_called_program_and_what_it_started() -> None:
    log: list[str] = []

    @root
    async def leaf() -> None:
        try:
            await for_ever()
        finally:
            log.append("leaf")

    @root
    async def middle() -> None:
        try:
            await leaf()
        finally:
            log.append("middle")

    @root
    async def main() -> str:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3.0):
                await middle()
        assert [each.name for each in current_system().tree().children[0].children] == []
        return "on"

    assert await main() == "on"
    assert sorted(log) == ["leaf", "middle"]


@everywhere
async def test_a_root_that_is_cancelled_ends_its_children_first() -> None:
    log: list[str] = []

    @root
    async def child() -> None:
        try:
            await for_ever()
        finally:
            log.append("child")

    @root
    async def main() -> None:
        spawn(child)
        try:
            await for_ever()
        finally:
            log.append("main")

    running = asyncio.create_task(main())
    await asyncio.sleep(1.0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert log == ["main", "child"]
