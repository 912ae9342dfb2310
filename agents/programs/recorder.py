"""Where an agent's conversation is kept, as deltas, so that its next incarnation goes on where the last one ended.

An agent writes an entry before it acts on it: each message when it is accepted, each reply of the model, each result
of a tool. :class:`MemoryRecorder` keeps them for the next incarnation in this process; :class:`FileRecorder` also for
the next process. A store of your own (the benchmarks' journal) has the same two methods.

What an agent was told and had not been heard by the model is told again; a tool that ran when the agent died is not
run again: nobody knows what it did, and the model is told so.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from palmette.agents.harness import ToolEnded
from palmette.agents.transcript import Turn


class Accepted(msgspec.Struct, frozen=True, tag="accepted"):
    """A message to the agent, from its program, another agent or a person."""

    text: str


class Replied(msgspec.Struct, frozen=True, tag="replied"):
    """A turn of the model. What it had heard by then is in there."""

    turn: Turn


class Resulted(msgspec.Struct, frozen=True, tag="resulted"):
    """A tool of the last turn has ended."""

    result: ToolEnded


Entry = Accepted | Replied | Resulted


class Recorder(Protocol):
    """See the module's text. ``agent`` is the agent's address: the programs' names and its own, with slashes."""

    async def load(self, agent: str) -> Sequence[Entry]:
        """All entries, in order; none for an agent that was never there."""
        ...

    async def append(self, agent: str, entry: Entry) -> None:
        """Keep one more. When it returns, the entry is as safe as this recorder makes it."""
        ...


class MemoryRecorder:
    """Keeps entries in this process."""

    def __init__(self) -> None:
        self._entries: defaultdict[str, list[Entry]] = defaultdict(list)

    async def load(self, agent: str) -> Sequence[Entry]:
        return tuple(self._entries.get(agent, ()))

    async def append(self, agent: str, entry: Entry) -> None:
        self._entries[agent].append(entry)


_ENTRY = msgspec.json.Decoder[Entry](Entry)
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


class FileRecorder:
    """Keeps entries in ``folder``, one file of JSON lines for each agent, synced to the disk entry by entry.

    A last line that a crash cut short is no entry: it was never acknowledged, and the next one takes its place.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    async def load(self, agent: str) -> Sequence[Entry]:
        return await asyncio.to_thread(self._load, self._path(agent))

    async def append(self, agent: str, entry: Entry) -> None:
        await asyncio.to_thread(self._append, self._path(agent), msgspec.json.encode(entry) + b"\n")

    def _path(self, agent: str) -> Path:
        # Two agents never share a file: what is replaced is written out, and a dot in front hides nothing.
        safe = _UNSAFE.sub(lambda found: f"%{ord(found[0]):x}", agent.strip("/"))
        return self.folder / f"{safe}.jsonl"

    @staticmethod
    def _load(path: Path) -> list[Entry]:
        if not path.exists():
            return []
        *lines, torn = path.read_bytes().split(b"\n")
        if torn:
            with path.open("r+b") as file:
                file.truncate(sum(len(line) + 1 for line in lines))
        try:
            return [_ENTRY.decode(line) for line in lines]
        except msgspec.DecodeError as error:
            raise ValueError(f"{path} is no record of a conversation: {error}; move it away to begin anew") from None

    @staticmethod
    def _append(path: Path, line: bytes) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
