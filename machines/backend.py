"""What a backend must supply to become a machine: five things. Everything else stands above it, once.

A backend knows how to make a place (a container, a namespace, a login on another host, a cloud sandbox), to open a
byte stream to a program inside it, to say how the place is, and to take it down. On that,
:class:`~palmette.machines.hosted.HostedMachine` sends its *runner* (:mod:`palmette.machines.runner`, one Python file
without dependencies) through one such stream and keeps it open: commands, their deadlines and whole-tree kills, output
caps, terminals, files and archives are spoken over it, so that they are alike on every backend. The place must
have ``python3`` (3.6 or newer) on its PATH.

A backend of your own::

    class Jail(Backend):
        name = "jail"
        ...

    register_backend("jail", lambda rest, id: Jail(rest, id))      # image strings: jail:WHATEVER
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal, Protocol

import msgspec

from palmette.machines.contract import SnapshotGrade
from palmette.machines.errors import SnapshotNotPossible
from palmette.machines.evidence import Evidence


class Channel(Protocol):
    """A duplex byte stream to a program inside the machine: its standard input and output."""

    async def read(self) -> bytes:
        """Some bytes of its output; ``b""`` at the end, whatever ended it (the caller asks ``examine`` why).

        One reader at a time; cancelling it loses nothing.
        """
        ...

    async def write(self, data: bytes) -> None:
        """All of ``data``, waiting while the other side does not read. One writer at a time.

        Raises:
            ConnectionError: the stream has ended.
        """
        ...

    async def close(self) -> None:
        """Give the stream up; the program sees the end of its input. Waits for nothing; twice is fine."""
        ...

    @property
    def complaint(self) -> str:
        """The last of what the program, or the backend about it, wrote to standard error. For error messages."""
        ...


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What the runner is told about where it runs, and what :meth:`Machine.describe` says of it."""

    workdir: str
    """Absolute; the runner makes it, and empties it on ``reset``."""
    root: str = "/"
    """Where absolute paths of ``put`` and ``get`` start: ``/`` where the place has a file system of its own, the
    working directory's parent where it shares one with others."""
    temporary: bool = False
    """Whether the runner removes ``root`` when it ends (it shares a file system and must leave nothing there)."""
    lease: float = 60.0
    """Seconds without a word from the controller after which the runner kills everything and ends; it also does at
    the end of its input."""
    lease_file: str | None = None
    """A file whose modification time the runner renews with every word from the controller, for a keeper inside the
    place that ends it when the lease has run out."""
    environment: dict[str, str] = {}
    """Added to the runner's own for every command."""
    cpus: float | None = None
    memory: int | None = None
    network: bool = True


class Backend(ABC):
    """One place. Its methods are called one after another, except ``examine`` and ``open_channel``, at any time.

    Every method has a deadline of its own making, never blocks the event loop, and puts its SDK's exceptions through
    one context manager into :class:`MachineLost` (with :class:`Evidence`), or another :class:`MachineError` when a
    fresh place would fail alike.
    """

    name: ClassVar[str]
    isolation: ClassVar[Literal["namespaces", "container", "host", "vm"]]
    snapshot_grade: SnapshotGrade | None = None
    """The best that :meth:`snapshot` can do; ``None``: the working directory as an archive, by the runner."""

    @abstractmethod
    async def start(self) -> Place:
        """Make the place, labelled with the machine's id; what a failing start has made it removes itself."""

    @abstractmethod
    async def open_channel(self, argv: Sequence[str]) -> Channel:
        """Run ``argv`` inside. Not a terminal. It need not die when the channel closes."""

    @abstractmethod
    async def examine(self) -> Evidence | None:
        """How the place is, by another way than the channels; ``None``: all is well. At most 5 seconds.

        ``evidence.agents_doing`` says whether what happened is the doing of what runs inside.
        """

    @abstractmethod
    async def stop(self) -> None:
        """Kill what runs inside and remove the place, whatever state it is in. Twice is fine.

        Raises:
            MachineError: it may still be there; what to do about it.
        """

    async def kill_all(self) -> None:
        """Kill everything inside except what keeps the place up; the files stay. Called when the runner was killed.

        The default trusts the next runner, which kills every process that carries the machine's tag.
        """
        return

    async def renew(self, seconds: float) -> None:
        """Make the place live for ``seconds`` more, where its life is bounded by others. Called at a third of that."""
        del seconds

    async def snapshot(self, name: str) -> str:
        """Keep the place's state under ``name`` (letters, digits, ``-``); the image string to start from it.

        Raises:
            SnapshotNotPossible
        """
        del name
        raise SnapshotNotPossible(f"the {self.name} backend keeps no state of its own")

    async def fork(self, id: str) -> Backend | None:
        """A started twin, labelled ``id`` and its place alike, where there is a way; ``None``: by :meth:`snapshot`.

        Such a snapshot is deleted once the twin has started from it: a backend whose twins go on needing it forks
        in a way of its own.
        """
        del id
        return None
