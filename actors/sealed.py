"""Thespian's transport, sealed: it listens on loopback only, and unpickles nothing that this cluster did not sign.

Stock Thespian executes whatever a stranger sends to any of its ports. Here every frame carries an HMAC-SHA256 under a
key that only this run's processes can read, and what is inside may name only the classes of Thespian's own protocol.
Importing this module puts the seal on, and ties the process's life to the host's; Thespian passes the transport class
to its children by reference, so each of them imports this module before it opens a socket.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import logging
import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from palmette.actors.orphans import die_with_parent, wait_for_death

# Thespian has no type hints; this module is the one place that touches its inside.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingParameterType=false, reportUnknownParameterType=false, reportUntypedBaseClass=false

STANDARD_LOGGING: Final = (logging.root, logging.Logger.manager)
"""Python's own root logger and manager, before Thespian replaces them in its processes."""


@contextmanager
def _no_name_service() -> Generator[None]:
    # Thespian asks the name service for this machine's names when it is imported, and would wait for one that is down.
    was = socket.gethostname, socket.getfqdn
    socket.gethostname = socket.getfqdn = lambda name="": "localhost"
    try:
        yield
    finally:
        socket.gethostname, socket.getfqdn = was


with _no_name_service():
    from thespian.system.multiprocCommon import MultiProcAdmin
    from thespian.system.multiprocTCPBase import ActorSystemBase
    from thespian.system.transport import IPBase, TCPTransport
    from thespian.system.transport.streamBuffer import ackDataErrPacket, ackPacket, toSendBuffer

DIRECTORY: Final = "PALMETTE_HOST_DIR"
"""The environment variable that names the run's private directory. The key itself is in a file there."""

HOST_PID: Final = "PALMETTE_HOST_PID"

SEAL: Final = hashlib.sha256().digest_size

ALLOWED: Final = {
    ("builtins", "object"),
    ("copyreg", "_reconstructor"),
    ("datetime", "timedelta"),
    ("logging", "LogRecord"),
    ("socket", "AddressFamily"),
    ("socket", "SocketKind"),
}
ALLOWED_MODULES: Final = (
    "thespian.actors",
    "thespian.system.addressManager",
    "thespian.system.logdirector",
    "thespian.system.messages.",
    "thespian.system.transport.",
)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # A dotted name would lead through a module to whatever it has imported.
        if "." not in name and (module, name) in ALLOWED:
            return super().find_class(module, name)
        if "." not in name and module.startswith(ALLOWED_MODULES):
            found = super().find_class(module, name)
            if isinstance(found, type) and found.__module__ == module:
                return found
        raise pickle.UnpicklingError(f"{module}.{name} has no business in a Thespian message")


class Sealer:
    """Stands in for the ``pickle`` module in Thespian's TCP transport."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def dumps(self, value: object) -> bytes:
        body = pickle.dumps(value)
        return hmac.digest(self._key, body, "sha256") + body

    def loads(self, data: bytes) -> object:
        """Raises UnpicklingError unless the seal is right."""
        seal, body = bytes(data[:SEAL]), bytes(data[SEAL:])
        if not hmac.compare_digest(seal, hmac.digest(self._key, body, "sha256")):
            raise pickle.UnpicklingError("a frame without this cluster's seal")
        return _Unpickler(io.BytesIO(body)).load()


class SealedTransport(TCPTransport.TCPTransport):
    """Named apart so that it travels to children by reference to this module."""


class SealedBase(ActorSystemBase):
    """The system base to give to Thespian's ``ActorSystem``."""

    transportType = SealedTransport


def tie_to_host() -> None:
    """End this process, and Thespian's others with it, when the host process ends, however it ends.

    Thespian's admin detaches itself from the host by a double fork, into a session (and group) of its own that its
    other processes share, nodes excepted; so whichever of them notices first kills the group.
    """
    if "--multiprocessing-fork" not in sys.orig_argv:  # the host itself
        return
    host = int(os.environ[HOST_PID])
    if os.getppid() == host:
        # The one that forks the admin off; a thread is not part of what is forked.
        os.register_at_fork(after_in_child=lambda: _watch(host))
    else:
        die_with_parent()
    _watch(host)


def _watch(host: int) -> None:
    threading.Thread(target=_outlive_nobody, args=(host,), daemon=True).start()


def _outlive_nobody(host: int) -> None:
    wait_for_death(host)
    os.killpg(0, signal.SIGKILL)


def put_seal_on() -> None:
    """Replace what Thespian's transport module uses to read and write frames, and what it binds to."""
    sealer = Sealer((Path(os.environ[DIRECTORY]) / "key").read_bytes())
    TCPTransport.serializer = sealer
    TCPTransport.ackMsg = toSendBuffer(ackPacket, sealer.dumps)
    TCPTransport.ackDataErrMsg = toSendBuffer(ackDataErrPacket, sealer.dumps)
    IPBase.IPActorAddress.bindArgs = property(lambda self: (("127.0.0.1", self.bindname[1]),))  # pyright: ignore[reportAttributeAccessIssue]
    # A misspelt attribute: an admin whose logger dies would die of it, instead of starting another logger.
    MultiProcAdmin.logDefs = property(lambda self: self.logdefs)  # pyright: ignore[reportAttributeAccessIssue]


def child_process(parent: Any, child: object) -> int | None:
    """The process id of an actor's child that was just created; ``None`` if no process could be started for it."""
    for info in getattr(parent._myRef, "_child_procs", ()):
        if info.childAddr == child:
            return info.childProc.pid
    return None


tie_to_host()
put_seal_on()
