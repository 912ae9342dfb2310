"""What an agent was told and what became of it: its conversation as deltas, and how the next incarnation goes on.

It lives beside the agent's actor, not in it, so that a crash of the actor costs nothing; with a recorder it also
outlives this process. What is accepted is on record before anybody acts on it.
"""

from __future__ import annotations

import asyncio

import msgspec

from palmette.agents.harness import Stop, ToolEnded
from palmette.agents.programs.recorder import Accepted, Entry, Recorder, Replied, Resulted
from palmette.agents.transcript import Turn


class AgentAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The data of an event ``settled``: what a run of the model came to."""

    text: str | None
    """The model's last words; ``None`` where it was interrupted or cut short."""
    stop: Stop
    reason: str = ""
    heard: int
    """Messages that the model had heard by then, from the agent's beginning."""


class Talk:
    """See the module's text. Of the agent at ``path``."""

    def __init__(self, path: str, recorder: Recorder) -> None:
        self._path = path
        self._recorder = recorder
        self._lock = asyncio.Lock()
        self.inbox: list[str] = []
        """Every message that was accepted."""
        self.turns: list[Turn] = []
        self.results: list[ToolEnded] = []
        """Of the last turn's tools, those that ended."""
        self.heard = 0
        """Messages that the model has heard and replied to."""

    async def load(self) -> None:
        """Take up what is on record."""
        for entry in await self._recorder.load(self._path):
            self._take(entry)

    async def accept(self, text: str) -> int:
        """A message; its number, from 1."""
        await self._keep(Accepted(text))
        return len(self.inbox)

    async def replied(self, turn: Turn) -> None:
        """A turn of the model."""
        await self._keep(Replied(turn))

    async def resulted(self, result: ToolEnded) -> None:
        """The end of a tool."""
        await self._keep(Resulted(result))

    async def _keep(self, entry: Entry) -> None:
        async with self._lock:  # the record has one order, and what is in memory has the same
            await self._recorder.append(self._path, entry)
            self._take(entry)

    def _take(self, entry: Entry) -> None:
        match entry:
            case Accepted(text):
                self.inbox.append(text)
            case Replied(turn):
                self.turns.append(turn)
                self.results.clear()
                self.heard += sum(message.role == "user" for message in turn.heard)
            case Resulted(result):
                self.results.append(result)
