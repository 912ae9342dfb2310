"""Harnesses that do what no harness should: they do not start, end, break, or take their time to stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Literal, Self

from palmette.agents.conversation import Message
from palmette.agents.harness import HarnessEvent, HarnessFactory, HarnessSetup, Turned
from palmette.agents.transcript import Turn

Fault = Literal["never starts", "cannot start", "ends", "breaks", "breaks before it settles", "stops slowly", "none"]


class BrokenHarness:
    """One with that fault. ``diary``: what happened to all of them."""

    def __init__(self, setup: HarnessSetup, fault: Fault, diary: list[str]) -> None:
        self.setup = setup
        self.fault = fault
        self.diary = diary
        self.sent = asyncio.Event()

    async def __aenter__(self) -> Self:
        self.diary.append("entering")
        try:
            if self.fault == "never starts":
                await asyncio.Event().wait()
            if self.fault == "cannot start":
                raise OSError("no such program: pi")
        except BaseException:
            self.diary.append("cleaned up")
            raise
        self.diary.append("entered")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.fault == "stops slowly":
            await asyncio.sleep(4.0)
        self.diary.append("left")

    async def send(self, text: str) -> None:
        self.diary.append(f"sent {text}")
        self.sent.set()

    async def events(self) -> AsyncIterator[HarnessEvent]:
        await self.sent.wait()
        if self.fault == "breaks before it settles":
            said = Message(role="assistant", content="my last words")
            yield Turned(turn=Turn(index=0, heard=(Message(role="user", content="hello"),), said=said))
        if self.fault.startswith("breaks"):
            raise ConnectionResetError("the harness lost its program")
        if self.fault != "ends":
            await asyncio.Event().wait()

    async def interrupt(self) -> None:
        self.diary.append("interrupted")

    async def tools_changed(self) -> None:
        self.diary.append("tools changed")


def broken(fault: Fault, diary: list[str]) -> HarnessFactory:
    return lambda setup: BrokenHarness(setup, fault, diary)
