"""The keeper: a plain Thespian actor without an event loop, the parent of all node processes of a host.

It does two things, so that nothing can hold it up: it starts a node when told to, and tells the head of one that ended
before it could introduce itself. Node processes are *spawned* by it, and so inherit no descriptor of a process with a
running loop.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import Final

import msgspec
from thespian.actors import Actor as ThespianActor

from palmette.actors import wire
from palmette.actors.node import IS_UP, NodeActor
from palmette.actors.orphans import wait_for_death
from palmette.actors.sealed import child_process

# pyright: reportUntypedBaseClass=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

WHO_IS_THERE: Final = b"?"
"""The host's question for the process ids of the keeper and of Thespian's admin."""
REPORT_SECONDS: Final = 1.0


class Keeper(ThespianActor):
    """Takes orders as bytes."""

    def __init__(self) -> None:
        self.silent: set[int] = set()
        """Nodes that have not introduced themselves yet."""

    def receiveMessage(self, msg: object, sender: object) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        if not isinstance(msg, bytes):
            return
        if msg == WHO_IS_THERE:
            self.send(sender, msgspec.json.encode([os.getpid(), os.getppid()]))
        elif msg.startswith(IS_UP):
            self.silent.discard(int(msg[len(IS_UP) :]))
        else:
            self.start(msgspec.json.decode(msg, type=wire.Order), msg)

    def start(self, order: wire.Order, encoded: bytes) -> None:
        node = self.createActor(NodeActor)
        pid = child_process(self, node)
        if pid is None:
            report(order)  # there was no process to be had; Thespian keeps that to itself
            return
        self.silent.add(pid)
        # Thespian is silent, too, about a child that ends before it has called its parent.
        threading.Thread(target=self.watch, args=(pid, order), daemon=True).start()
        self.send(node, encoded)

    def watch(self, pid: int, order: wire.Order) -> None:
        wait_for_death(pid)
        if pid in self.silent:
            self.silent.discard(pid)
            report(order)


def report(order: wire.Order) -> None:
    """Tell the head that the node's process has ended. A head that knows, or is gone, does not listen."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as link:
        link.settimeout(REPORT_SECONDS)
        link.connect(order.socket)
        link.sendall(b"".join(wire.encode_frame(wire.Stillborn(order.node, order.token), 0)))
