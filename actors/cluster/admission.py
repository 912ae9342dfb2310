"""The door between a port and the hosts of the cluster: who has connected and not shown a certificate yet.

Strangers can exhaust nothing. A connection that says nothing costs a descriptor, and no more; one whose first byte is
not TLS's is closed; the others get one of few places for a handshake (whose buffers are the greatest part of what a
stranger can cost: about 300 KiB each), in the order of their words. Each address has a share of all these. Where
others wait for a place, whoever has held one for ``patience`` seconds gives it up; and nobody stands at the door for
longer than ``seconds``.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Final, cast

import msgspec

from palmette.actors.cluster.complaints import Complaints
from palmette.actors.cluster.credentials import Credentials
from palmette.actors.cluster.errors import ClusterError

HANDSHAKE: Final = b"\x16"
"""The first byte of whoever speaks TLS."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """On connections that have not shown a certificate."""

    handshakes: int = 64
    """Handshakes at a time."""
    handshakes_per_address: int = 16
    waiting: int = 256
    """Connections that have said nothing, or wait for a handshake."""
    waiting_per_address: int = 128
    seconds: float = 10.0
    """For the first word, and for the handshake."""
    patience: float = 1.0
    """Seconds that a handshake has for itself, though others wait."""


class AdmissionStatistics(msgspec.Struct, frozen=True):
    """Who is at the door at present, and what became of the others."""

    waiting: int
    handshakes: int
    admitted: int
    refused: int


class Admission:
    """See the module's text."""

    def __init__(
        self,
        factory: Callable[[], asyncio.Protocol],
        credentials: Credentials,
        limits: Limits,
        complaints: Complaints,
        greeting: bytes,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._factory = factory
        self._credentials = credentials
        self._limits = limits
        self._complaints = complaints
        self._greeting = greeting
        self._silent: dict[_Newcomer, None] = {}
        self._ready: dict[_Newcomer, None] = {}
        self._shaking: dict[_Newcomer, asyncio.Task[None]] = {}
        self._waiting_from: Counter[str] = Counter()
        self._shaking_from: Counter[str] = Counter()
        self._admitted = 0
        self._refused = 0
        self._closed = False

    def statistics(self) -> AdmissionStatistics:
        """What is at present."""
        waiting = len(self._silent) + len(self._ready)
        return AdmissionStatistics(waiting, len(self._shaking), self._admitted, self._refused)

    def admit(self, connection: socket.socket, host: str) -> None:
        """Somebody has connected."""
        limits, newcomer = self._limits, _Newcomer(connection, host)
        if self._waiting_from[host] >= limits.waiting_per_address:
            self._make_room(host)
        elif len(self._silent) + len(self._ready) >= limits.waiting:
            self._make_room(None)
        newcomer.timer = self._loop.call_later(limits.seconds, self._turn_away, newcomer, "it was too slow")
        self._silent[newcomer] = None
        self._waiting_from[host] += 1
        self._loop.add_reader(connection, self._speaks, newcomer)

    def _make_room(self, host: str | None) -> None:
        """Turn away whoever has waited longest (from ``host``), and rather one that says nothing."""
        for waiting in (self._silent, self._ready):
            for newcomer in waiting:
                if host is None or newcomer.host == host:
                    self._turn_away(newcomer, "too many connect at once")
                    return

    def _speaks(self, newcomer: _Newcomer) -> None:
        try:
            first = newcomer.socket.recv(1, socket.MSG_PEEK)
        except OSError:
            first = b""
        if first != HANDSHAKE:
            self._turn_away(newcomer, "it does not speak TLS" if first else "it hung up without a word")
            return
        self._loop.remove_reader(newcomer.socket)
        del self._silent[newcomer]
        self._ready[newcomer] = None
        self._go_on()

    # --- handshakes ------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Give free places to those who wait for one."""
        limits = self._limits
        for newcomer in list(self._ready):
            if len(self._shaking) >= limits.handshakes:
                self._hurry(None)
                return
            if self._shaking_from[newcomer.host] >= limits.handshakes_per_address:
                self._hurry(newcomer.host)
                continue
            self._forget(newcomer)
            self._shaking_from[newcomer.host] += 1
            newcomer.began = self._loop.time()
            task = self._shaking[newcomer] = self._loop.create_task(self._shake_hands(newcomer))
            task.add_done_callback(lambda task, newcomer=newcomer: self._finished(newcomer, task))

    def _hurry(self, host: str | None) -> None:
        """Have the oldest handshake (of ``host``) end when its patience is over: somebody waits for its place."""
        for newcomer, task in self._shaking.items():
            if host is None or newcomer.host == host:
                if newcomer.timer is None:
                    until = newcomer.began + self._limits.patience
                    newcomer.timer = self._loop.call_at(until, task.cancel)
                return

    async def _shake_hands(self, newcomer: _Newcomer) -> None:
        # On uvloop, too, this is the one way to TLS on a connection that was accepted already.
        await self._loop.connect_accepted_socket(
            lambda: _Doorkeeper(self._factory, self._greeting),
            newcomer.socket,
            ssl=self._credentials.server_context(),
            ssl_handshake_timeout=self._limits.seconds,
        )

    def _finished(self, newcomer: _Newcomer, task: asyncio.Task[None]) -> None:
        if newcomer.timer is not None:
            newcomer.timer.cancel()
        del self._shaking[newcomer]
        _one_less(self._shaking_from, newcomer.host)
        if task.cancelled():
            self._refuse(newcomer, "its handshake was too slow")
        elif (error := task.exception()) is None:
            self._admitted += 1
        elif isinstance(error, OSError | ClusterError):
            self._refuse(newcomer, cause_of(error))
        else:
            self._loop.call_exception_handler({"message": "a handshake failed on our side", "exception": error})
        self._go_on()

    # --- the others ------------------------------------------------------------------------------------------------

    def _turn_away(self, newcomer: _Newcomer, cause: str) -> None:
        self._loop.remove_reader(newcomer.socket)
        self._forget(newcomer)
        self._refuse(newcomer, cause)

    def _refuse(self, newcomer: _Newcomer, cause: str) -> None:
        newcomer.socket.close()
        if not self._closed:
            self._refused += 1
            self._complaints.note(newcomer.host, cause)

    def _forget(self, newcomer: _Newcomer) -> None:
        """It does not wait any more."""
        self._silent.pop(newcomer, None)
        self._ready.pop(newcomer, None)
        _one_less(self._waiting_from, newcomer.host)
        if newcomer.timer is not None:
            newcomer.timer.cancel()
            newcomer.timer = None

    def close(self) -> None:
        """Turn everybody away, without a word about it."""
        self._closed = True
        for newcomer in [*self._silent, *self._ready]:
            self._loop.remove_reader(newcomer.socket)
            self._forget(newcomer)
            newcomer.socket.close()
        for task in self._shaking.values():
            task.cancel()


class _Newcomer:
    """One connection."""

    def __init__(self, connection: socket.socket, host: str) -> None:
        self.socket = connection
        self.host = host
        self.timer: asyncio.TimerHandle | None = None
        self.began = 0.0
        """When its handshake did, on the loop's clock."""


class _Doorkeeper(asyncio.Protocol):
    """What a connection talks to until its handshake is over: it then greets, and gives way to the real protocol."""

    def __init__(self, factory: Callable[[], asyncio.Protocol], greeting: bytes) -> None:
        self._factory = factory
        self._greeting = greeting

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        connection = cast("asyncio.Transport", transport)
        connection.write(self._greeting)
        protocol = self._factory()
        connection.set_protocol(protocol)
        protocol.connection_made(connection)


def _one_less(counts: Counter[str], host: str) -> None:
    counts[host] -= 1
    if not counts[host]:
        del counts[host]  # there are more addresses than memory


def cause_of(error: Exception) -> str:
    """Why a handshake failed, in words of ours."""
    if isinstance(error, ClusterError):
        return f"this host's own credentials cannot be used: {error}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not taken: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or "it spoke nonsense"
        return _REASONS.get(reason, f"its handshake failed: {reason.replace('_', ' ').lower()}")
    return "its handshake was too slow" if "taking longer" in str(error) else "it hung up during the handshake"


_REASONS: Final = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it showed no certificate",
    "UNSUPPORTED_PROTOCOL": "it does not speak TLS 1.3",
    "WRONG_VERSION_NUMBER": "it does not speak TLS",
}
