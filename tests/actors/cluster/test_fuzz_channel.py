"""Strangers, replays and tampering at a listening port with real links behind it: nothing of them is deserialised.

``PALMETTE_STRANGERS=1000000`` sends as many frames; by default it is a few thousand.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import ssl
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from cluster_hosts import LOOPS, PATIENCE, Hosts, LoopName, Plain, run_on, until

from palmette.actors import wire
from palmette.actors.cluster import authority
from palmette.actors.cluster.channel import Address, Listener, dial, listen
from palmette.actors.cluster.credentials import Credentials
from palmette.actors.cluster.errors import Unreached
from palmette.actors.link import Link
from palmette.actors.node_life import NodeSystem

FRAMES = int(os.environ.get("PALMETTE_STRANGERS", "4000"))
FRAMES_EACH = 50
"""Frames on a connection: as many as a stranger may get rid of."""
AT_ONCE = 6
SEED = int(os.environ.get("PALMETTE_SEED", "1"))
FRAME = b"".join(wire.encode_frame(wire.Hello("gpu-a", "guess", 1), 0))


class Readings:
    """What was read by whom, and decoded."""

    def __init__(self) -> None:
        self.readers = set[int]()
        self.decoded: list[object] = []


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> Readings:
    """Notes all that comes to a frame reader, and all that comes out of a decoder."""
    found, feed = Readings(), wire.FrameReader.feed

    def noted(reader: wire.FrameReader, data: bytes) -> Iterator[wire.Frame]:
        found.readers.add(id(reader))
        return feed(reader, data)

    class Noted:
        def __init__(self, decoder: Any) -> None:
            self.decoder = decoder

        def decode(self, body: Any) -> object:
            found.decoded.append(self.decoder.decode(body))
            return found.decoded[-1]

    monkeypatch.setattr(wire.FrameReader, "feed", noted)
    for name in ("_decoder", "_greeting_decoder"):
        monkeypatch.setattr(wire, name, Noted(getattr(wire, name)))
    return found


def ignore(*_: object) -> None: ...


class Server:
    """A port with links behind it, which answer calls."""

    def __init__(self) -> None:
        self.system = NodeSystem(name="head")
        self.links: list[Link] = []
        self.heard: list[wire.Frame] = []
        self.errors: list[dict[str, Any]] = []
        self.listener: Listener | None = None
        self.system.loop.set_exception_handler(lambda _, context: self.errors.append(context))

    def link(self) -> Link:
        link = Link(self.system, self._on_frame, ignore, trusting=True)
        self.links.append(link)
        return link

    def _on_frame(self, link: Link, frame: wire.Frame) -> None:
        self.heard.append(frame)
        if isinstance(frame, wire.Call):
            link.write(wire.Reply(frame.id, frame.arguments))

    @property
    def port(self) -> int:
        assert self.listener is not None
        return self.listener.address.port

    def refused(self) -> int:
        assert self.listener is not None
        return self.listener.statistics().refused


@asynccontextmanager
async def serving(credentials: Credentials) -> AsyncGenerator[Server, None]:
    server = Server()
    server.listener = await listen(server.link, credentials, port=0)
    try:
        yield server
    finally:
        server.listener.close()
        for link in server.links:
            link.fail("the test is over")
        await asyncio.sleep(0.05)


class Caller:
    """A host of the cluster that calls."""

    def __init__(self, server: Server) -> None:
        self.system = server.system
        self.link = Link(self.system, ignore, ignore, trusting=True)
        self.answers = 0

    async def dial(self, address: Address, credentials: Credentials, timeout: float = 30.0) -> None:
        await dial(address, lambda: self.link, credentials, timeout)

    async def call(self) -> None:
        answer: asyncio.Future[wire.Reply | wire.CallFailed] = self.system.loop.create_future()
        self.link.relay(wire.Call(0, "/a", "e", b"ping", 5.0), answer.set_result)
        frame = await asyncio.wait_for(answer, 60.0)
        assert isinstance(frame, wire.Reply)
        self.answers += 1


# --- what strangers do -----------------------------------------------------------------------------------------------


class Strangers:
    """Everything that somebody without a key of the cluster can send, by threads of their own."""

    def __init__(self, hosts: Hosts, old: Path, session: bytes) -> None:
        self.shown = {"none": None, "foreign": hosts.foreign.directory / "host.pem", "old": old}
        self.session = session
        self.kinds: list[Callable[[socket.socket, random.Random], None]] = [
            self.garbage, self.frames, self.records, self.half_a_hello, self.replay, self.changed_replay,
            *(self.handshake(shown) for shown in self.shown.values()),
        ]  # fmt: skip

    def visit(self, port: int, number: int) -> None:
        """One connection."""
        rng = random.Random(f"{SEED}/{number}")
        source = (f"127.0.0.{2 + number % 5}", 0)
        with socket.create_connection(("127.0.0.1", port), 60.0, source) as connection, contextlib.suppress(OSError):
            self.kinds[number % len(self.kinds)](connection, rng)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):
                pass

    def garbage(self, connection: socket.socket, rng: random.Random) -> None:
        connection.sendall(rng.randbytes(rng.randrange(1, 60 * FRAMES_EACH)))

    def frames(self, connection: socket.socket, rng: random.Random) -> None:
        connection.sendall(FRAME * FRAMES_EACH)

    def records(self, connection: socket.socket, rng: random.Random) -> None:
        for _ in range(FRAMES_EACH):
            body = rng.randbytes(rng.randrange(1, 100))
            kind = rng.choice((b"\x16", b"\x16", b"\x14", b"\x15", b"\x17"))
            connection.sendall(kind + b"\x03\x03" + len(body).to_bytes(2, "big") + body)

    def half_a_hello(self, connection: socket.socket, rng: random.Random) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = Plain().client_context().wrap_bio(incoming, outgoing)
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        hello = outgoing.read()
        connection.sendall(hello[: rng.randrange(1, len(hello))] + FRAME * rng.randrange(FRAMES_EACH))

    def replay(self, connection: socket.socket, rng: random.Random) -> None:
        for byte in range(0, len(self.session), 97):
            connection.sendall(self.session[byte : byte + 97])

    def changed_replay(self, connection: socket.socket, rng: random.Random) -> None:
        changed = bytearray(self.session)
        for _ in range(rng.randrange(1, 5)):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        connection.sendall(changed)

    def handshake(self, shown: Path | None) -> Callable[[socket.socket, random.Random], None]:
        context = Plain(shown).client_context()

        def attack(connection: socket.socket, rng: random.Random) -> None:
            # In TLS 1.3 our handshake is over before the other side has judged us: what we say may be there first.
            with context.wrap_socket(connection, suppress_ragged_eofs=True) as tls:
                for _ in range(FRAMES_EACH):
                    tls.sendall(FRAME)
                while tls.recv(1 << 16):
                    pass

        return attack


@asynccontextmanager
async def man_in_the_middle(port: int, change: Callable[[str, int, bytes], bytes]) -> AsyncGenerator[Address, None]:
    """A proxy before ``port``: ``change`` is given the direction, the offset and the data."""
    tasks = list[asyncio.Task[None]]()

    async def pump(way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        offset = 0
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(change(way, offset, data))
                offset += len(data)
                await writer.drain()
        writer.transport.abort()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        tasks.extend(asyncio.ensure_future(pump(*ends)) for ends in (("there", reader, back), ("back", there, writer)))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield Address(*server.sockets[0].getsockname()[:2])
    finally:
        server.close()
        await asyncio.wait_for(asyncio.gather(*tasks), 60.0)


async def recorded(server: Server, credentials: Credentials) -> bytes:
    """All that a host says in a session, byte by byte."""
    said = bytearray()

    def record(way: str, offset: int, data: bytes) -> bytes:
        if way == "there":
            said.extend(data)
        return data

    async with man_in_the_middle(server.port, record) as address:
        caller = Caller(server)
        await caller.dial(address, credentials)
        await caller.call()
        caller.link.fail("recorded")
    return bytes(said)


@pytest.mark.parametrize("loop", LOOPS)
def test_nothing_that_a_stranger_says_is_deserialised_and_hosts_go_on(
    loop: LoopName, tmp_path: Path, readings: Readings, caplog: pytest.LogCaptureFixture
) -> None:
    hosts = Hosts(tmp_path)
    old = tmp_path / "old.pem"
    old.write_bytes((hosts.gpu.directory / "host.pem").read_bytes())
    authority.rotate(hosts.head.directory)
    authority.accept(hosts.gpu.directory, authority.invite(hosts.head.directory, "gpu-a"))
    authority.finish_rotation(hosts.gpu.directory)
    authority.finish_rotation(hosts.head.directory)

    async def main() -> None:
        async with serving(hosts.head) as server:
            strangers = Strangers(hosts, old, await recorded(server, hosts.gpu))
            caller = Caller(server)
            await caller.dial(Address("127.0.0.1", server.port), hosts.gpu)
            await caller.call()
            readings.readers.clear()
            readings.decoded.clear()
            admitted, answered, visits = len(server.links), caller.answers, max(FRAMES // FRAMES_EACH, 1)
            memory = psutil.Process().memory_info().rss
            left = iter(range(visits))

            async def visit() -> None:
                for number in left:
                    await asyncio.to_thread(strangers.visit, server.port, number)

            siege = asyncio.gather(*(visit() for _ in range(AT_ONCE)))
            while not siege.done():
                await caller.call()
                await asyncio.sleep(0.01)
            await siege
            await until(lambda: server.refused() == visits)
            await caller.call()
            latecomer = Caller(server)
            await latecomer.dial(Address("127.0.0.1", server.port), hosts.gpu)
            await latecomer.call()

            assert server.errors == []
            assert len(server.links) == admitted + 1
            calls = caller.answers - answered + latecomer.answers
            assert Counter(map(type, readings.decoded)) == {wire.Call: calls, wire.Reply: calls}
            assert len(readings.readers) == 4  # of two links, with two ends each
            assert psutil.Process().memory_info().rss - memory < 128 << 20
            for link in (caller.link, latecomer.link):
                link.fail("the test is over")

    began = time.monotonic()
    with caplog.at_level(logging.INFO, "palmette.cluster"):
        run_on(loop, main)
    told = Counter(line for line in map(logging.LogRecord.getMessage, caplog.records) if " more times" not in line)
    assert max(told.values()) <= 1 + (time.monotonic() - began) // 60
    causes = {line.partition(" was refused: ")[2] for line in told}
    assert {"it showed no certificate", "it does not speak TLS"} <= causes
    assert any("its certificate is not taken" in cause for cause in causes)
    assert len(causes) < 30


@pytest.mark.parametrize("loop", LOOPS)
def test_who_changes_a_byte_in_the_middle_ends_the_connection_and_adds_nothing(loop: LoopName, tmp_path: Path) -> None:
    hosts, rng = Hosts(tmp_path), random.Random(SEED)
    sent = [wire.Call(number, "/a", "e", bytes([number]) * 500, 5.0) for number in range(20)]

    async def main() -> None:
        async with serving(hosts.head) as server:
            whole = len(await recorded(server, hosts.gpu))
            for _ in range(min(max(FRAMES // 100, 20), 2000)):
                server.heard.clear()
                tamper = Tamper(rng.choice(("there", "back")), rng.randrange(2 * whole), rng.randrange(8))
                async with man_in_the_middle(server.port, tamper) as address:
                    caller = Caller(server)
                    try:
                        # Where it is a length that was changed, both sides wait for more.
                        await caller.dial(address, hosts.gpu, 10.0)
                    except Unreached:
                        assert tamper.has_struck
                        continue
                    for frame in sent:
                        caller.link.write(frame)
                    deadline = caller.system.loop.time() + PATIENCE
                    # A few bits are nobody's: what the first records say of TLS's version, for one. Then all goes on.
                    enough = None
                    while caller.link.lost is None and (enough is None or len(server.heard) < enough):
                        assert caller.system.loop.time() < deadline
                        await asyncio.sleep(0.002)
                        caller.link.write(sent[0])
                        if enough is None and tamper.has_struck:
                            enough = len(server.heard) + 40
                    assert tamper.has_struck
                    caller.link.fail("over")
                    heard = list(server.heard)
                    assert heard[: len(sent)] == sent[: len(heard)]
                    assert all(frame == sent[0] for frame in heard[len(sent) :])
            assert server.errors == []

    run_on(loop, main)


class Tamper:
    """Changes one bit on the way."""

    def __init__(self, way: str, place: int, bit: int) -> None:
        self.way, self.place, self.bit = way, place, bit
        self.has_struck = False

    def __call__(self, way: str, offset: int, data: bytes) -> bytes:
        at = self.place - offset
        if way != self.way or not 0 <= at < len(data):
            return data
        self.has_struck = True
        changed = bytearray(data)
        changed[at] ^= 1 << self.bit
        return bytes(changed)
