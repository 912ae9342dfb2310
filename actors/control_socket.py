"""The control socket of a running system: one JSON line in, one JSON line out, or several.

The socket is a file of mode 0600 in a directory of mode 0700: whoever can open it is this user. What is answered is up
to the subclass (:meth:`ControlSocket.answer`). A peer that is slow concerns itself alone.
"""

from __future__ import annotations

import asyncio
import os
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

import msgspec

from palmette.actors.actor import Actor
from palmette.actors.exits import Crashed, Reason, describe, root_cause
from palmette.actors.messages import TaskDone
from palmette.actors.runtime_dir import socket_path
from palmette.actors.system import System

MOST_BYTES = 1 << 16
"""Of a request."""
SECONDS = 5.0
"""For a peer to send its line, and to take each of ours."""


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """One end of one incarnation."""

    at: float
    path: str
    kind: str = ""
    incarnation: int | None = None
    """``None`` where it was read from the journal, which does not keep it."""
    reason: str
    traceback: str = ""


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an address."""

    path: str
    state: str
    """As in the tree; ``absent`` where nothing lives there."""
    exits: tuple[Ended, ...] = ()
    """At or below it, oldest first."""
    blocked: tuple[str, ...] = ()
    """Each time that its code held up the event loop, for people to read."""


Takeover = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[object, object, None]]
"""Talks to a peer until one of them has had enough."""


class ControlSocket(Actor):
    """Serves the socket ``name`` of this process. See the module's text."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._path: Path | None = None
        self._server: asyncio.Server | None = None

    @abstractmethod
    async def answer(self, line: bytes) -> msgspec.Struct | AsyncIterator[msgspec.Struct] | Takeover:
        """What to say to a request, whatever stands in it (empty where it was too long). Has its own deadlines.

        Several answers end when the peer hangs up. A :data:`Takeover` has the connection for itself.
        """

    async def started(self) -> None:
        path = self._path = socket_path(self._name)
        # Whoever sees the final name can connect to it: a socket that is bound and does not listen yet looks stale.
        new = path.with_suffix(".new")
        new.unlink(missing_ok=True)  # of an earlier incarnation of ours: the name holds our pid
        self._server = await asyncio.start_unix_server(self._connected, new, limit=MOST_BYTES)
        os.chmod(new, 0o600)
        os.replace(new, path)

    async def stopping(self, reason: Reason) -> None:
        if self._server is not None:
            self._server.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    async def receive(self, message: object) -> None:
        if not isinstance(message, TaskDone):
            await super().receive(message)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.start_task(self._serve(reader, writer), tag="peer")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._converse(reader, writer)
        except (TimeoutError, ConnectionError):
            return  # the peer is slow or gone: it alone is concerned
        finally:
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(SECONDS):
                line = await reader.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            return  # somebody looked whether we are there
        except asyncio.LimitOverrunError:
            line = b""
        answer = await self.answer(line)
        if isinstance(answer, msgspec.Struct):
            await say(writer, answer)
            return
        if callable(answer):
            await answer(reader, writer)
            return
        gone = asyncio.ensure_future(reader.read())  # the peer says no more: this is its end
        telling = asyncio.ensure_future(_tell(writer, answer))
        try:
            await asyncio.wait([gone, telling], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (gone, telling):
                task.cancel()
            await asyncio.wait([gone, telling])
        if not telling.cancelled():
            telling.result()


async def _tell(writer: asyncio.StreamWriter, answers: AsyncIterator[msgspec.Struct]) -> None:
    async for each in answers:
        await say(writer, each)


async def say(writer: asyncio.StreamWriter, answer: msgspec.Struct) -> None:
    """One line to a peer. Raises TimeoutError where it does not take it, and ConnectionError."""
    async with asyncio.timeout(SECONDS):
        writer.write(msgspec.json.encode(answer) + b"\n")
        await writer.drain()


def why_of(system: System, name: str) -> Why:
    """What is known of an address, or of a registered name. Raises ActorDied for a name that nobody has."""
    path = name if name.startswith("/") else system.whereis(name, Actor).path
    slot = system.slots.get(path)
    target = None if slot is None else slot.target
    state = "absent" if slot is None else "down" if target is None else target.state
    return Why(
        path=path,
        state=state,
        exits=tuple(_told(r.at, r.path, r.kind, r.incarnation, r.reason) for r in system.why(path)),
        blocked=tuple(str(record) for record in system.blocked_by(path)),
    )


def _told(at: float, path: str, kind: str, incarnation: int, reason: Reason) -> Ended:
    cause = root_cause(reason)
    trace = cause.traceback if isinstance(cause, Crashed) else ""
    return Ended(at=at, path=path, kind=kind, incarnation=incarnation, reason=describe(reason), traceback=trace)
