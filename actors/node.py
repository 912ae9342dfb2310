"""The process of a node: a Thespian actor with an event loop in it.

Its first message tells it where the head listens; from then on it talks to the head over that link only
(:mod:`palmette.actors.node_life`). When its actor has ended, or the head is gone, the process goes.

The loop is uvloop's, where that can be imported; ``PALMETTE_NODE_LOOP=asyncio`` in the head's environment has nodes use
asyncio's own.
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
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

import msgspec
from thespian.actors import Actor as ThespianActor

from palmette.actors import hosting, wire
from palmette.actors.cluster.output import connect_output
from palmette.actors.collector import tune_collector
from palmette.actors.fingerprint import this_build
from palmette.actors.node_life import NodeLife, NodeSystem
from palmette.actors.node_logging import forward_logging

# pyright: reportUntypedBaseClass=false, reportUnknownMemberType=false

IS_UP: Final = b"up "
"""What a node says to the keeper, with its process id, once it has introduced itself to the head."""
CONNECT_SECONDS: Final = 10.0


class NodeActor(ThespianActor):
    """Thespian's view of a node. Its first message is the last that it takes part in."""

    def receiveMessage(self, msg: object, sender: object) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        if not isinstance(msg, bytes):
            return
        try:
            order = msgspec.json.decode(msg, type=wire.Order)
            os.environ.update(order.environment)
            if order.output:
                connect_output(order.output, order.node, order.token)
            _settle_in()
            connection = _introduce(order)
            self.send(sender, IS_UP + str(os.getpid()).encode())
            loop = hosting.new_loop()
            asyncio.set_event_loop(loop)
            hosting.install(loop)
            # The loop holds tasks weakly.
            self.main = loop.create_task(Node().run(order, connection))
        except BaseException:  # noqa: BLE001 - Thespian would call us a second time
            traceback.print_exc()
            leave()


def _introduce(order: wire.Order) -> socket.socket:
    """Call the head, and say who we are."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(CONNECT_SECONDS)
    connection.connect(order.socket)
    connection.sendall(b"".join(wire.encode_frame(wire.Hello(order.node, order.token, os.getpid(), this_build()), 0)))
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


class Node(NodeLife):
    """The life of a node that has a process of its own."""

    async def run(self, order: wire.Order, connection: socket.socket) -> None:
        """Take up the connection to the head. Everything else happens by frames."""
        try:
            self.system = NodeSystem(name=order.node)
            self.system.heartbeat = order.heartbeat
            if order.address:
                self.far = True
                transports = [await self._watch_launcher(connection), await self._call_program(order)]
            else:
                loop = self.system.loop
                transport, _ = await loop.create_unix_connection(lambda: self.meet_head(written=1), sock=connection)
                transports = [transport]
            # The head need not be watched: its end breaks the link, and where it is stopped it comes back. On another
            # host, the launcher watches it for us.
            self.link.keep_alive(order.heartbeat, None)
            self.descriptors = [int(transport.get_extra_info("socket").fileno()) for transport in transports]
            os.register_at_fork(after_in_child=self._let_go)
        except BaseException:  # noqa: BLE001 - without a link there is nobody to tell
            traceback.print_exc()
            leave()

    async def _watch_launcher(self, connection: socket.socket) -> asyncio.BaseTransport:
        """On another host than the program's: when the launcher goes, so does this process."""
        transport, _ = await self.system.loop.create_unix_connection(lambda: _Lifeline(self.leave), sock=connection)
        return transport

    async def _call_program(self, order: wire.Order) -> asyncio.BaseTransport:
        from palmette.actors.cluster.channel import Address, dial
        from palmette.actors.cluster.credentials import Credentials

        credentials = await asyncio.to_thread(Credentials.load, Path(order.credentials))
        address = Address.parse(order.address)
        transport = await dial(address, lambda: self.meet_head(written=0), credentials, CONNECT_SECONDS)
        self.link.write(wire.Hello(order.node, order.token, os.getpid(), this_build()))
        return transport

    def _let_go(self) -> None:
        # A forked child must not hold the connections open when this process is gone. The numbers stay taken: the
        # child inherits the socket objects, too.
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in self.descriptors:
            os.dup2(nothing, descriptor, inheritable=False)
        os.close(nothing)

    def move_in(self) -> None:
        forward_logging(self.system, self.link)

    def last_acts(self) -> None:
        # The head counts the end of the process, not its last words, as the actor's end; and it ends our patience with
        # exit handlers that hang.
        atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]

    def leave(self) -> None:
        leave()


class _Lifeline(asyncio.Protocol):
    def __init__(self, lost: Callable[[], None]) -> None:
        self._lost = lost

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost()


def leave() -> NoReturn:
    """End the process now, and what it forked. Thespian's parent sees the exit; the head sees the broken link."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os.killpg(0, signal.SIGKILL)
    os._exit(0)
