"""Connections between hosts: mutual TLS 1.3, and nothing before it.

:func:`listen` and :func:`dial` carry any asyncio protocol, on asyncio's loop and on uvloop. A protocol is made for a
peer that has shown a certificate of this cluster, and not before: no byte of anybody else reaches one. The first bytes
within TLS are the listener's: a line that names the version of what is spoken, by which the caller also knows that its
own certificate was taken (in TLS 1.3 the caller's handshake is over before that is decided).

Listens on loopback unless told otherwise. What strangers can cost is bounded: see
:mod:`palmette.actors.cluster.admission`.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from typing import Final, Self, cast

import msgspec

from palmette.actors.cluster.admission import Admission, AdmissionStatistics, Limits
from palmette.actors.cluster.complaints import Complaints
from palmette.actors.cluster.credentials import Credentials
from palmette.actors.cluster.errors import CannotListen, Rejected, Unreached

PORT: Final = 1900
LOOPBACK: Final = "127.0.0.1"
BACKLOG: Final = 512
ACCEPTED_AT_ONCE: Final = 64
"""Connections that are taken in one turn of the loop."""
PAUSE_SECONDS: Final = 0.5
"""Without a descriptor (or memory) for one more connection, until it is tried again."""
UNHEARD_SECONDS: Final = 15.0
"""What was sent must be acknowledged by the other host's kernel within this, where the system can see to it."""
GREETING: Final = b"palmette 1\n"

_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Address(msgspec.Struct, frozen=True):
    """A place to call."""

    host: str
    port: int = PORT

    @classmethod
    def parse(cls, text: str) -> Self:
        """``HOST``, ``HOST:PORT``, ``[IPV6]`` or ``[IPV6]:PORT``.

        Raises:
            ValueError: it is none of these.
        """
        host, separator, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
        if not separator:
            host, port = text, str(PORT)
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            host = ""  # half an IPv6 address may be taken for a port
        if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 1 << 16:
            raise ValueError(f"{text!r} is no address: write HOST:PORT, or [IPV6]:PORT, with a port from 1 to 65535")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Listener:
    """A port that is open to the hosts of the cluster. Made by :func:`listen`."""

    def __init__(self, sock: socket.socket, admission: Admission, complaints: Complaints) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self._admission = admission
        self._complaints = complaints
        self._pause: asyncio.TimerHandle | None = None
        self.address = Address(*sock.getsockname()[:2])
        """With the port that was chosen, if 0 was asked for."""
        self._resume()

    def statistics(self) -> AdmissionStatistics:
        """Who is at the door, and how many were let in or not."""
        return self._admission.statistics()

    def close(self) -> None:
        """Take no more connections. Those that are there stay."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._admission.close()
        self._complaints.close()

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, peer = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._complaints.note("everybody", f"this process cannot take a connection: {error.strerror}")
                self._loop.remove_reader(self._socket)
                self._pause = self._loop.call_later(PAUSE_SECONDS, self._resume)
                return
            tune(connection)
            connection.setblocking(False)
            self._admission.admit(connection, str(peer[0]))


async def listen(
    factory: Callable[[], asyncio.Protocol],
    credentials: Credentials,
    bind: str = LOOPBACK,
    port: int = PORT,
    *,
    limits: Limits | None = None,
) -> Listener:
    """Open a port. ``factory`` makes the protocol for each peer that is of the cluster.

    Raises:
        CannotListen: the address is taken, or is not this host's.
        BadCredentials, CredentialsMissing: see :meth:`Credentials.load`.
    """
    loop = asyncio.get_running_loop()
    credentials.server_context()
    try:
        [(family, *_, where), *_] = await loop.getaddrinfo(bind, port, type=socket.SOCK_STREAM)
        sock = socket.create_server(where[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        raise CannotListen(
            f"cannot listen on {bind}, port {port}: {error.strerror}; choose another (--bind, --port)"
        ) from None
    sock.setblocking(False)
    complaints = Complaints(loop)
    return Listener(sock, Admission(factory, credentials, limits or Limits(), complaints, GREETING), complaints)


async def dial(
    address: Address, factory: Callable[[], asyncio.Protocol], credentials: Credentials, timeout: float
) -> asyncio.Transport:
    """Call a host of the cluster, and return once both sides have taken each other's certificate.

    Raises:
        Unreached: nobody answered within ``timeout`` seconds.
        Rejected: somebody did, who is not of this cluster, or says that we are not.
        BadCredentials, CredentialsMissing: see :meth:`Credentials.load`.
    """
    loop = asyncio.get_running_loop()
    context = credentials.client_context()
    caller: _Caller | None = None
    try:
        async with asyncio.timeout(timeout):
            _, caller = await loop.create_connection(
                lambda: _Caller(factory), address.host, address.port, ssl=context, server_hostname=""
            )
            return await caller.welcomed
    except TimeoutError:
        raise Unreached(f"{address} did not answer within {timeout:g} s") from None
    except ssl.SSLCertVerificationError as error:
        raise Rejected(f"{address} is not of this cluster: {error.verify_message}") from None
    except (ssl.SSLError, ConnectionResetError, ConnectionAbortedError, BrokenPipeError) as error:
        raise Rejected(f"{address} hung up before anything was said ({error}): {_NOT_TAKEN}") from None
    except Rejected as error:
        raise Rejected(f"{address} {error}") from None
    except OSError as error:
        raise Unreached(f"{address} cannot be reached: {error.strerror or error}") from None
    finally:
        if caller is not None and not caller.is_welcome:
            caller.give_up()


_NOT_TAKEN: Final = (
    "no palmette node listens there, or it does not take this host's certificate (of another cluster, expired, or "
    "older than a rotation); the log over there says which"
)


class _Caller(asyncio.Protocol):
    """The caller's end, until it has been greeted."""

    def __init__(self, factory: Callable[[], asyncio.Protocol]) -> None:
        self._factory = factory
        self._heard = b""
        self._transport: asyncio.Transport | None = None
        self.welcomed: asyncio.Future[asyncio.Transport] = asyncio.get_running_loop().create_future()

    @property
    def is_welcome(self) -> bool:
        return self.welcomed.done() and not self.welcomed.cancelled() and self.welcomed.exception() is None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = connection = cast("asyncio.Transport", transport)
        tune(connection.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        self._heard += data
        if self.welcomed.done() or (len(self._heard) < len(GREETING) and GREETING.startswith(self._heard)):
            return
        assert self._transport is not None
        if not self._heard.startswith(GREETING):
            self.welcomed.set_exception(Rejected(f"speaks another version of palmette: {self._heard[:40]!r}"))
            return
        protocol = self._factory()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        self.welcomed.set_result(self._transport)
        if len(self._heard) > len(GREETING):
            protocol.data_received(self._heard[len(GREETING) :])

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.welcomed.done():
            self.welcomed.set_exception(exc or ConnectionResetError("without a word"))
            self.welcomed.exception()  # nobody asks where the time was up

    def give_up(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def peer_name(transport: asyncio.BaseTransport) -> str:
    """The name of the host at the other end, from its certificate. Names are the cluster's own: see `invite`."""
    certificate = cast("dict[str, tuple[tuple[tuple[str, str], ...], ...]]", transport.get_extra_info("peercert"))
    return next(value for part in certificate["subject"] for key, value in part if key == "commonName")


def tune(sock: socket.socket) -> None:
    """Small frames leave at once; a host that is gone breaks its connections."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNHEARD_SECONDS * 1000))
