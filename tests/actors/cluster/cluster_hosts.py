"""Hosts of a small cluster on this one: credentials, protocols that note what they hear, and both kinds of loop."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal, TypeVar, cast

from palmette.actors.cluster import authority
from palmette.actors.cluster.admission import Limits
from palmette.actors.cluster.channel import Address, Listener, dial, listen
from palmette.actors.cluster.credentials import Credentials

T = TypeVar("T")
LoopName = Literal["asyncio", "uvloop"]
LOOPS: tuple[LoopName, ...] = ("asyncio", "uvloop")
PATIENCE = 30.0


class Hosts:
    """A cluster of a head and one more host, and somebody else's."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.head = authority.create(directory / "head", "head")
        self.gpu = self.join("gpu-a")
        self.foreign = authority.create(directory / "foreign", "gpu-a")

    def join(self, name: str) -> Credentials:
        """One more host."""
        return authority.accept(self.directory / name, authority.invite(self.directory / "head", name))


class Plain(Credentials):
    """What a stranger has: it trusts anybody, and shows the certificate in ``shown``, or none."""

    def __init__(self, shown: Path | None = None) -> None:
        super().__init__(Path(), "stranger")
        self.shown = shown

    def client_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if self.shown is not None:
            context.load_cert_chain(self.shown)
        return context


class Ear(asyncio.Protocol):
    """Notes what it hears, and echoes it if it is the listener's."""

    def __init__(self, *, echoes: bool = False) -> None:
        self.heard = b""
        self.lost = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None
        self._echoes = echoes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.heard += data
        if self._echoes and self.transport is not None:
            self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


class Port:
    """An open port, and whom it let in."""

    def __init__(self) -> None:
        self.ears: list[Ear] = []
        self.listener: Listener | None = None

    def ear(self) -> Ear:
        ear = Ear(echoes=True)
        self.ears.append(ear)
        return ear

    @property
    def address(self) -> Address:
        assert self.listener is not None
        return self.listener.address

    @property
    def number(self) -> int:
        return self.address.port

    def refused(self) -> int:
        assert self.listener is not None
        return self.listener.statistics().refused

    def is_quiet(self) -> bool:
        """Whether nobody is at the door."""
        assert self.listener is not None
        statistics = self.listener.statistics()
        return statistics.waiting == statistics.handshakes == 0


@asynccontextmanager
async def opened(credentials: Credentials, limits: Limits | None = None) -> AsyncGenerator[Port, None]:
    """A port that echoes what hosts of the cluster say. At the end, nothing of it is left."""
    port = Port()
    port.listener = await listen(port.ear, credentials, port=0, limits=limits)
    try:
        yield port
    finally:
        port.listener.close()
        for ear in port.ears:
            if ear.transport is not None:
                ear.transport.abort()
                await asyncio.wait_for(ear.lost, PATIENCE)


@asynccontextmanager
async def called(port: Port, credentials: Credentials) -> AsyncGenerator[Ear, None]:
    """A connection to ``port``."""
    ear = Ear()
    transport = await dial(port.address, lambda: ear, credentials, PATIENCE)
    try:
        yield ear
    finally:
        transport.abort()
        await asyncio.wait_for(ear.lost, PATIENCE)


async def answers(port: Port, credentials: Credentials) -> None:
    """Prove that a host of the cluster is let in and heard."""
    async with called(port, credentials) as ear:
        assert ear.transport is not None
        ear.transport.write(b"ping")
        await until(lambda: ear.heard == b"ping")


async def until(holds: Callable[[], bool]) -> None:
    """Wait for it."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.002)


def run_on(loop: LoopName, main: Callable[[], Coroutine[object, object, T]]) -> T:
    """Run ``main`` on the named kind of loop; it must leave no task behind."""
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop

    async def checked() -> T:
        result = await main()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:
            _, left = await asyncio.wait(left, timeout=3.0)
        assert not left
        await asyncio.sleep(0.01)  # transports that were aborted close their sockets in a later turn
        return result

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(checked())
