"""Whoever waits for something in an E2B sandbox learns within seconds that the way there is gone, and why."""

from __future__ import annotations

import asyncio

import pytest
from e2b import AsyncSandbox
from e2b_fixtures import SOON, read_exactly
from e2b_fixtures import backend as backend
from e2b_fixtures import made as made
from e2b_fixtures import mortal_stand_in as mortal_stand_in
from e2b_fixtures import sdk as sdk
from support.e2b_stand_in import StandIn

from palmette.machines.e2b import E2bBackend


@pytest.fixture
def stand_in(mortal_stand_in: StandIn) -> StandIn:
    return mortal_stand_in


@pytest.mark.parametrize("how", ["killed", "frozen", "gone", "expired"])
async def test_a_waiter_learns_soon_that_the_way_to_the_program_is_gone(
    how: str, backend: E2bBackend, stand_in: StandIn
) -> None:
    channel = await backend.open_channel(["cat"])
    await channel.write(b"x")
    await read_exactly(channel, 1)
    reading = asyncio.create_task(channel.read())
    match how:
        case "killed":
            stand_in.kill()
        case "frozen":
            stand_in.freeze()
        case "gone":
            await AsyncSandbox.kill(str(backend.sandbox_id), **stand_in.connection)
        case _:
            await backend.renew(0.2)  # E2B counts whole seconds
    async with asyncio.timeout(SOON + (how == "expired")):
        assert await reading == b""
        evidence = await backend.examine()
    assert evidence is not None
    causes = {"killed": "daemon_gone", "frozen": "daemon_frozen", "gone": "machine_removed", "expired": "expired"}
    assert evidence.cause == causes[how]
    assert not evidence.agents_doing
    stand_in.thaw()


async def test_a_short_freeze_is_suffered(backend: E2bBackend, stand_in: StandIn) -> None:
    channel = await backend.open_channel(["cat"])
    stand_in.freeze()
    await asyncio.sleep(1.6)  # longer than the pulse, shorter than the examination after it
    stand_in.thaw()
    await channel.write(b"alive")
    assert await read_exactly(channel, 5) == b"alive"
