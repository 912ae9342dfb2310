"""A running command's control socket: one JSON line in, one JSON line out.

``{"verb": "tree"}``, ``{"verb": "status"}``, ``{"verb": "why", "path": "/pool"}`` and ``{"verb": "stop"}``; the answer
is a :class:`Reply`. The socket is a file of mode 0600 in a directory of mode 0700: whoever can open it is this user.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import cast

import msgspec

from palmette.actors import Actor, Crashed, PalmetteError, Reason, TaskDone, TreeNode, describe, root_cause
from palmette.console.runtime_dir import socket_path
from palmette.console.snapshot import Snapshot
from palmette.console.stage import Stage

MOST_BYTES = 1 << 16
"""Of a request."""
SECONDS = 5.0
"""For a peer to send its line, and to take ours."""


class TreeVerb(msgspec.Struct, frozen=True, tag_field="verb", tag="tree"):
    """The tree of what is alive."""


class StatusVerb(msgspec.Struct, frozen=True, tag_field="verb", tag="status"):
    """What the live view shows."""


class WhyVerb(msgspec.Struct, frozen=True, tag_field="verb", tag="why"):
    """Why an actor ended: by address, or by registered name."""

    path: str


class StopVerb(msgspec.Struct, frozen=True, tag_field="verb", tag="stop"):
    """Stop the run in order."""


Verb = TreeVerb | StatusVerb | WhyVerb | StopVerb
VERB = cast("type[Verb]", Verb)


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


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to any verb; ``error`` is a sentence for a person."""

    run: str = ""
    error: str = ""
    tree: TreeNode | None = None
    status: Snapshot | None = None
    why: Why | None = None


class Control(Actor):
    """Serves the socket of one run."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._path: Path | None = None
        self._server: asyncio.Server | None = None

    async def started(self) -> None:
        path = self._path = socket_path(self._stage.run)
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
            await self._within(self._converse(reader, writer))
        finally:
            writer.close()

    async def _within(self, work: Coroutine[object, object, None]) -> None:
        try:
            async with asyncio.timeout(SECONDS):
                await work
        except (TimeoutError, ConnectionError):
            return  # the peer is slow or gone: it alone is concerned

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            return  # somebody looked whether we are there
        except asyncio.LimitOverrunError:
            line = b""
        writer.write(msgspec.json.encode(self._answer(line)) + b"\n")
        await writer.drain()

    def _answer(self, line: bytes) -> Reply:
        stage = self._stage
        try:
            verb = msgspec.json.decode(line, type=VERB)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return Reply(run=stage.run, error=f"not a request ({error}); the verbs are tree, status, why and stop")
        system = stage.system
        match verb:
            case StopVerb():
                stage.stop()
                return Reply(run=stage.run)
            case StatusVerb():
                return Reply(run=stage.run, status=stage.snapshot)
            case _ if system is None:
                return Reply(run=stage.run, error=f"run {stage.run} is starting; ask again in a moment")
            case TreeVerb():
                return Reply(run=stage.run, tree=system.tree())
            case WhyVerb(path=name):
                try:
                    path = name if name.startswith("/") else system.whereis(name, Actor).path
                except PalmetteError as error:
                    return Reply(run=stage.run, error=str(error))
                slot = system.slots.get(path)
                target = None if slot is None else slot.target
                state = "absent" if slot is None else "down" if target is None else target.state
                exits = tuple(_told(r.at, r.path, r.kind, r.incarnation, r.reason) for r in system.why(path))
                blocked = tuple(str(record) for record in system.blocked_by(path))
                return Reply(run=stage.run, why=Why(path=path, state=state, exits=exits, blocked=blocked))


def _told(at: float, path: str, kind: str, incarnation: int, reason: Reason) -> Ended:
    cause = root_cause(reason)
    trace = cause.traceback if isinstance(cause, Crashed) else ""
    return Ended(at=at, path=path, kind=kind, incarnation=incarnation, reason=describe(reason), traceback=trace)
