"""Episodes that meet faults: what strikes, when, and what it is to look like afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from support.sums import Played, Sums, new_run, play, settings_for

from palmette.agents.conversation import ToolSchema
from palmette.agents.tools import Tool
from palmette.benchmarks.journal.records import EpisodeKey
from palmette.benchmarks.outcomes import InfraFailed, Scored
from palmette.machines import ExecResult, Machine
from palmette.machines.evidence import Cause

WITHIN = 5.0
"""Seconds in which whoever waits for a command must know that its machine is lost."""
EAT = "b'x' * (1 << 30)"


async def nothing() -> None: ...


class Meeting:
    """What a run's episodes meet: a ``fault`` while ``command`` runs, and its ``repair`` once they know."""

    def __init__(
        self,
        fault: Callable[[], Awaitable[None]] = nothing,
        command: str = "echo here; exec sleep 60",
        repair: Callable[[], None] | None = None,
        afterwards: str = "",
    ) -> None:
        self.fault = fault
        self.command = command
        self.afterwards = afterwards
        """What the agent runs when the command has ended."""
        self.results: list[ExecResult] = []
        """Of the commands that came to an end in spite of it."""
        self.seconds: list[float] = []
        """From each fault until whoever waited for the command knew."""
        self.repairs: list[asyncio.Future[None]] = []
        self._repair = repair

    def known(self, begun: float) -> None:
        self.seconds.append(time.monotonic() - begun)
        if self._repair is not None:
            self.repairs.append(asyncio.ensure_future(asyncio.to_thread(self._repair)))


class Interrupted:
    """A tool that runs a command before it does its work, and has the fault strike when the command runs."""

    def __init__(self, tool: Tool, machine: Machine, meeting: Meeting) -> None:
        self._tool = tool
        self._machine = machine
        self._meeting = meeting

    @property
    def schema(self) -> ToolSchema:
        return self._tool.schema

    async def run(self, arguments: str) -> str:
        here = asyncio.Event()
        command = asyncio.ensure_future(
            self._machine.exec(self._meeting.command, timeout=90, on_output=lambda stream, data: here.set())
        )
        await here.wait()
        await self._meeting.fault()
        begun = time.monotonic()
        try:
            self._meeting.results.append(await command)
        finally:
            self._meeting.known(begun)
        if self._meeting.afterwards:
            assert (await self._machine.exec(self._meeting.afterwards)).ok
        return await self._tool.run(arguments)


async def met(
    folder: Path, image: str, meeting: Meeting, *, pool: str | None = None, restarts: int = 1, only: bool = False
) -> Played:
    """Play both episodes (or the first ``only``) on machines of ``image``."""

    def wrap(tools: Sequence[Tool], machine: Machine | None, key: EpisodeKey, attempt: int) -> Sequence[Tool]:
        assert machine is not None
        strikes = key.task == "sums/0" or attempt == 1
        return [Interrupted(each, machine, meeting) for each in tools] if strikes else tools

    journal, run = new_run(folder)
    settings = settings_for(
        run,
        Sums(1 if only else 2, machine=True),
        machine=image,
        wrap_tools=wrap,
        max_restarts=restarts,
        pool=pool,
        warm=0,
        seconds=60.0,
    )
    played = await play(settings, journal, concurrency=1, timeout=60.0)
    await asyncio.gather(*meeting.repairs)
    assert all(each < WITHIN for each in meeting.seconds), meeting.seconds
    return played


def check(played: Played, cause: Cause) -> None:
    """The first episode has failed for ``cause``; the second was scored in its second attempt."""
    first, second = played.episodes
    assert isinstance(first.outcome, InfraFailed)
    assert (first.outcome.cause, first.attempt) == (cause, 2)
    assert isinstance(second.outcome, Scored)
    assert (second.outcome.reward, second.attempt) == (1.0, 2)
