"""A session is closed whatever its channel does with a cancellation."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from palmette.machines import session as sessions
from palmette.machines.backend import Place
from palmette.machines.session import Session, SessionEnded


class Swallower:
    """A channel that is in the middle of a request when it is cancelled, and finishes that first, as SDKs do."""

    complaint = ""

    def __init__(self) -> None:
        self.writing = asyncio.Event()
        self.swallowed = 0
        self.closed = False

    async def read(self) -> bytes:
        await asyncio.Event().wait()
        return b""

    async def write(self, data: bytes) -> None:
        self.writing.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        self.swallowed += 1

    async def close(self) -> None:
        self.closed = True


async def test_a_swallowed_cancellation_does_not_hold_up_a_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "AGAIN", 0.01)
    channel = Swallower()
    opening = asyncio.create_task(Session.open(channel, b"source", "m", Place(workdir="/w")))
    await channel.writing.wait()
    opening.cancel()
    async with asyncio.timeout(30.0):
        with suppress(asyncio.CancelledError, SessionEnded):
            await opening
    assert channel.swallowed >= 1
    assert channel.closed
