"""A harness on a local machine, behind a proxy, in front of the planned server; and what it tells."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import psutil

from palmette.agents import Message
from palmette.agents.harness import Harness, HarnessEvent, HarnessFactory, HarnessSetup, Settled, ToolEnded, Turned
from palmette.agents.toolbox import Toolbox
from palmette.agents.transcript import Turn
from palmette.machines import LocalMachine, Machine


class Run:
    """An entered harness, and its events so far."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.told: list[HarnessEvent] = []
        self._events: AsyncIterator[HarnessEvent] = harness.events()

    async def until(self, wanted: Callable[[HarnessEvent], bool]) -> HarnessEvent:
        """Read on until an event is as wanted. What breaks the harness is raised."""
        async with asyncio.timeout(60):
            while not wanted(event := await anext(self._events)):
                self.told.append(event)
        self.told.append(event)
        return event

    async def settled(self) -> Settled:
        event = await self.until(lambda event: isinstance(event, Settled))
        assert isinstance(event, Settled)
        return event

    async def asked(self, text: str) -> Settled:
        """Say something, and wait for the end of the run."""
        await self.harness.send(text)
        return await self.settled()

    @property
    def turns(self) -> list[Turn]:
        return [event.turn for event in self.told if isinstance(event, Turned)]

    @property
    def results(self) -> list[ToolEnded]:
        return [event for event in self.told if isinstance(event, ToolEnded)]

    @property
    def order(self) -> list[str]:
        return [str(event.__struct_config__.tag) for event in self.told]


def setup_of(
    machine: Machine,
    *,
    toolbox: Toolbox | None = None,
    turns: tuple[Turn, ...] = (),
    results: tuple[ToolEnded, ...] = (),
    system_prompt: str | None = None,
    may_go_on: asyncio.Event | None = None,
) -> HarnessSetup:
    if may_go_on is None:
        may_go_on = asyncio.Event()
        may_go_on.set()
    return HarnessSetup(
        name="worker",
        session="run-1-worker",
        toolbox=toolbox or Toolbox(),
        machine=machine,
        system_prompt=system_prompt,
        turns=turns,
        results=results,
        may_go_on=may_go_on,
    )


@contextlib.asynccontextmanager
async def running(factory: HarnessFactory, setup: HarnessSetup) -> AsyncGenerator[Run]:
    async with factory(setup) as harness:
        yield Run(harness)


@contextlib.asynccontextmanager
async def local_machine() -> AsyncGenerator[LocalMachine]:
    async with LocalMachine("test-run") as machine:
        yield machine


def heard_from_users(turns: list[Turn]) -> list[str]:
    """What an agent's actor counts as heard."""
    return [message.content for turn in turns for message in turn.heard if message.role == "user"]


def said(turns: list[Turn]) -> list[Message]:
    return [turn.said for turn in turns]


async def written(machine: Machine, path: str) -> str:
    """What a line of a file says, once it is there."""
    async with asyncio.timeout(30):
        while True:
            result = await machine.exec(["cat", path])
            if result.text.endswith("\n"):
                return result.text.strip()


async def until(check: Callable[[], bool]) -> None:
    """Wait for something that tells nobody."""
    async with asyncio.timeout(30):
        while True:
            if check():
                return
            await asyncio.sleep(0.02)


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
