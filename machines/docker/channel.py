"""A byte stream to a program in a container: an exec of the daemon, read and written by the event loop.

The daemon's answer to ``POST /exec/ID/start`` is the stream itself: after the headers the connection belongs to the
program. What it prints comes in frames (one byte for the stream, three unused, four for the length, most significant
first; Docker Engine API, "ContainerAttach"), what it reads goes as it is.

The request is made here and not by the SDK, whose ``exec_start(socket=True)`` blocks, leaves what came along with the
headers in a buffer of its own (those bytes are lost), and under TLS gives a socket that no event loop can take.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from palmette.machines.docker.calls import CONNECT, Daemon, refusal
from palmette.machines.errors import MachineError, MachineLost
from palmette.machines.evidence import Evidence

if TYPE_CHECKING:
    from docker.tls import TLSConfig

_OPEN = 10.0
"""Seconds from the connection to the daemon's headers. They do not wait for the program to start."""
_BUFFER = 1 << 18
_COMPLAINT = 4096
_STDOUT = 1
_NOT_STARTED = b"OCI runtime exec failed"
"""What a program that could not be started "prints", on standard output of all places."""


class DockerChannel:
    """A :class:`~palmette.machines.backend.Channel`. Made by :meth:`open`."""

    def __init__(self, exec_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.exec_id = exec_id
        self.closed = False
        """By us."""
        self.ended = False
        """By the other side."""
        self._reader = reader
        self._writer = writer
        writer.transport.set_write_buffer_limits(0)  # what was written is with the kernel when we hang up
        self._left = 0
        self._stderr = False
        self._fresh = True
        self._complaint = b""

    @classmethod
    async def open(cls, daemon: Daemon, version: str, exec_id: str, doing: str) -> DockerChannel:
        """Start the exec and take over its stream.

        Raises:
            MachineLost: the daemon is gone or frozen, or the container is.
        """
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(CONNECT):
                reader, writer = await _connect(daemon)
            async with asyncio.timeout(_OPEN):
                body = json.dumps({"Detach": False, "Tty": False}).encode()
                writer.write(
                    f"POST /v{version}/exec/{exec_id}/start HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\n"
                    f"Upgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                    + body
                )
                status, length = _status(await reader.readuntil(b"\r\n\r\n"))
                if status not in (101, 200):
                    raise refusal(doing, status, _message(await reader.readexactly(length)))
        except BaseException as error:
            if writer is not None:
                writer.transport.abort()
            if isinstance(error, TimeoutError):
                seen = Evidence(cause="daemon_frozen", detail=f"{daemon.url} takes connections and says nothing")
                raise MachineLost(doing, seen) from error
            if isinstance(error, ssl.SSLError):
                raise MachineError(f"{doing}: no TLS with {daemon.url}: {error}; see to DOCKER_CERT_PATH") from error
            if isinstance(error, OSError | EOFError):
                seen = Evidence(cause="daemon_gone", detail=f"nobody answers at {daemon.url}: {error}")
                raise MachineLost(doing, seen) from error
            raise
        return cls(exec_id, reader, writer)

    async def read(self) -> bytes:
        """See :meth:`palmette.machines.backend.Channel.read`."""
        try:
            while True:
                if self._left == 0:
                    header = await self._reader.readexactly(8)
                    self._stderr = header[0] != _STDOUT  # or the daemon's own words about the stream
                    self._left = int.from_bytes(header[4:], "big")
                    continue
                data = await self._reader.read(self._left)
                if not data:
                    break
                # No await between what was taken and the account of it: a cancellation cannot come in between.
                self._left -= len(data)
                if self._stderr or (self._fresh and data.startswith(_NOT_STARTED)):
                    self._complaint = (self._complaint + data)[-_COMPLAINT:]
                    continue
                self._fresh = False
                return data
        except (EOFError, ConnectionError, ssl.SSLError):  # its end, whatever ended it
            pass
        self.ended = True
        return b""

    async def write(self, data: bytes) -> None:
        """See :meth:`palmette.machines.backend.Channel.write`."""
        if not self._writer.transport.is_closing():
            self._writer.write(data)
            await self._writer.drain()
        if self._writer.transport.is_closing():  # drain() is content when we hung up meanwhile
            raise ConnectionResetError(f"the stream of exec {self.exec_id[:12]} has ended")

    async def close(self) -> None:
        """See :meth:`palmette.machines.backend.Channel.close`. The daemon ends the program's input when we hang up."""
        self.closed = True
        self._writer.transport.abort()

    @property
    def complaint(self) -> str:
        """See :attr:`palmette.machines.backend.Channel.complaint`."""
        return self._complaint.decode("utf-8", "replace").strip()


async def _connect(daemon: Daemon) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = urlsplit(daemon.address)
    if url.scheme == "http+unix":
        return await asyncio.open_unix_connection(url.path, limit=_BUFFER)
    context = None if daemon.tls is None else _context(daemon.tls)
    return await asyncio.open_connection(url.hostname, url.port, limit=_BUFFER, ssl=context)


def _context(tls: TLSConfig) -> ssl.SSLContext:
    """The SDK's settings for the standard library's TLS."""
    context = ssl.create_default_context(cafile=tls.ca_cert)
    if tls.verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.cert is not None:
        context.load_cert_chain(*tls.cert)
    return context


def _status(headers: bytes) -> tuple[int, int]:
    """The HTTP status, and the length of the body."""
    first, *rest = headers.decode("latin-1").split("\r\n")
    length = 0
    for line in rest:
        name, _, value = line.partition(":")
        if name.lower() == "content-length":
            length = int(value)
    return int(first.split(" ", 2)[1]), length


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode("utf-8", "replace")
