"""A node: one process that runs one actor, and everything that the actor starts below itself.

The process is a Thespian actor with an asyncio loop in it. Its first message tells it where the head listens; from
then on it talks to the head over that link only. When its actor has ended, or the head is gone, the process goes.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import faulthandler
import io
import os
import signal
import socket
import sys
import traceback
from typing import Final, NoReturn

import msgspec
from thespian.actors import Actor as ThespianActor

from palmette.actors import hosting, wire
from palmette.actors.actor import Actor
from palmette.actors.arguments import decode_arguments, initializer
from palmette.actors.codec import class_named
from palmette.actors.collector import tune_collector
from palmette.actors.errors import StartFailed
from palmette.actors.exits import reason_of
from palmette.actors.introspection import ExitRecord
from palmette.actors.link import Link
from palmette.actors.node_logging import forward_logging
from palmette.actors.proxy import Direct
from palmette.actors.serving import serve
from palmette.actors.system import System

# pyright: reportUntypedBaseClass=false, reportUnknownMemberType=false

IS_UP: Final = b"up "
"""What a node says to the keeper, with its process id, once it has introduced itself to the head."""
CONNECT_SECONDS: Final = 10.0
LAST_WORDS_SECONDS: Final = 10.0
"""For the head to take in the last frames of a node."""


class NodeActor(ThespianActor):
    """Thespian's view of a node. Its first message is the last that it takes part in."""

    def receiveMessage(self, msg: object, sender: object) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        if not isinstance(msg, bytes):
            return
        try:
            order = msgspec.json.decode(msg, type=wire.Order)
            _settle_in()
            connection = _introduce(order)
            self.send(sender, IS_UP + str(os.getpid()).encode())
            loop = asyncio.new_event_loop()
            asyncio.set_event_loop(loop)
            hosting.install(loop)
            # The loop holds tasks weakly.
            self.main = loop.create_task(Node(order.node, loop).run(connection))
        except BaseException:  # noqa: BLE001 - Thespian would call us a second time
            traceback.print_exc()
            leave()


def _introduce(order: wire.Order) -> socket.socket:
    """Call the head, and say who we are."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(CONNECT_SECONDS)
    connection.connect(order.socket)
    connection.sendall(b"".join(wire.encode_frame(wire.Hello(order.node, order.token, os.getpid()))))
    return connection


def _settle_in() -> None:
    """Make this process one that user code can expect: signals, output and process group as in a program's own."""
    # What the actor forks belongs to it: it is killed with this group.
    os.setpgid(0, 0)
    # Thespian catches every signal, and returns: a segmentation fault would be raised again for ever.
    for number in signal.valid_signals():
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    faulthandler.enable()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)  # what it has said must not die with it
    tune_collector()


class NodeSystem(System):
    """A node's part of the system: exits below its actor are news for the head."""

    _head: Link | None = None
    _path = ""

    def report_to(self, head: Link, path: str) -> None:
        """From now on; ``path`` is the node's own actor."""
        self._head, self._path = head, path

    def adopt_exit(self, record: ExitRecord) -> None:
        super().adopt_exit(record)
        # The end of the node's own actor is that of the process. News gives way to messages.
        if self._head is not None and record.path != self._path and not self._head.is_congested():
            self._head.write(wire.Exited(record))


class Node:
    """The node's life."""

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self.name = name
        self.loop = loop
        self.early: list[wire.Frame] | None = None
        """Frames that came right behind the order to start, before the actor's address exists."""

    async def run(self, connection: socket.socket) -> None:
        """Take up the connection to the head. Everything else happens by frames."""
        try:
            self.system = NodeSystem(name=self.name)
            _, self.link = await self.loop.create_unix_connection(
                lambda: Link(self.system, self._on_frame, self._on_lost, trusting=True), sock=connection
            )
            self.system.uplink = lambda path: Direct(self.system, self.link, path)
            os.register_at_fork(after_in_child=self._let_go)
        except BaseException:  # noqa: BLE001 - without a link there is nobody to tell
            traceback.print_exc()
            leave()

    def _let_go(self) -> None:
        # A forked child must not hold the connection open when this process is gone. The number stays taken: the
        # child inherits the socket object, too.
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, self.link.file_number(), inheritable=False)
        os.close(nothing)

    def _on_lost(self, link: Link, why: str) -> None:
        leave()

    def _on_frame(self, link: Link, frame: wire.Frame) -> None:
        if self.early is not None:
            self.early.append(frame)
        elif isinstance(frame, wire.StartActor):
            self.early = []
            self.life = self.loop.create_task(self._live(frame))
            self.loop.call_soon(self._catch_up)  # after the task's first step, which makes the actor's address
        elif not serve(self.system, link, frame):
            link.fail(f"it sent a {type(frame).__name__} out of turn")

    def _catch_up(self) -> None:
        early, self.early = self.early or [], None
        for frame in early:
            self._on_frame(self.link, frame)

    async def _live(self, order: wire.StartActor) -> None:
        system = self.system
        slot = system.own_slot(order.path)
        slot.incarnation = order.incarnation - 1
        system.report_to(self.link, order.path)
        forward_logging(system, self.link)
        try:
            cls = class_named(order.actor, Actor)
            kwargs = decode_arguments(initializer(cls), order.arguments, system)
            cell = await system.start_actor(slot, None, cls, (), kwargs, order.options)
        except StartFailed as failed:
            self.link.write(wire.NotStarted(order.path, failed.child, failed.reason))
        except BaseException as error:  # noqa: BLE001 - whatever keeps the actor from starting is the head's to hear
            self.link.write(wire.NotStarted(order.path, order.path, reason_of(error)))
        else:
            self.link.write(wire.Started(order.path))
            self.link.write(wire.Ended(order.path, await cell.ended()))
        await self.link.drain(LAST_WORDS_SECONDS)
        # The head counts the end of the process, not these words, as the actor's end; and it ends our patience with
        # exit handlers that hang.
        atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
        leave()


def leave() -> NoReturn:
    """End the process now, and what it forked. Thespian's parent sees the exit; the head sees the broken link."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os.killpg(0, signal.SIGKILL)
    os._exit(0)
