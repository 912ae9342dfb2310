"""Connections between hosts: both sides show who they are, and strangers are turned away without a word reaching us."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest
from cluster_hosts import LOOPS, Ear, Hosts, LoopName, Plain, called, opened, run_on, until

from palmette.actors.cluster.admission import Limits
from palmette.actors.cluster.channel import Address, dial, listen, peer_name
from palmette.actors.cluster.credentials import Credentials
from palmette.actors.cluster.errors import CannotListen, Rejected, Unreached

on_both_loops = pytest.mark.parametrize("loop", LOOPS)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Hosts:
    return Hosts(tmp_path_factory.mktemp("hosts"))


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("host", Address("host", 1900)),
        ("host:2000", Address("host", 2000)),
        ("10.0.0.1:65535", Address("10.0.0.1", 65535)),
        ("[::1]", Address("::1", 1900)),
        ("[fe80::1]:2000", Address("fe80::1", 2000)),
    ],
)
def test_an_address_is_read_and_written(text: str, address: Address) -> None:
    assert Address.parse(text) == address
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "text", ["", ":1900", "host:", "host:0", "host:65536", "host:x", "::1", "fe80::1:2000", "h:-1", "h:１"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write HOST:PORT"):
        Address.parse(text)


# --- hosts of the cluster --------------------------------------------------------------------------------------------


@on_both_loops
def test_two_hosts_talk_and_know_each_other_by_name(hosts: Hosts, loop: LoopName) -> None:
    async def main() -> None:
        async with opened(hosts.head) as port, called(port, hosts.gpu) as ear:
            assert ear.transport is not None
            ear.transport.write(b"x" * 1_000_000)
            await until(lambda: ear.heard == b"x" * 1_000_000)
            [there] = port.ears
            assert there.transport is not None
            assert peer_name(ear.transport) == "head"
            assert peer_name(there.transport) == "gpu-a"
            assert port.address.host == "127.0.0.1"

    run_on(loop, main)


@on_both_loops
def test_what_the_listener_says_first_is_heard_first(hosts: Hosts, loop: LoopName) -> None:
    class Talker(Ear):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            cast("asyncio.Transport", transport).write(b"hello")

    async def main() -> None:
        listener = await listen(Talker, hosts.head, port=0)
        ear = Ear()
        transport = await dial(listener.address, lambda: ear, hosts.gpu, 30.0)
        await until(lambda: ear.heard == b"hello")
        transport.abort()
        await ear.lost
        listener.close()
        await asyncio.sleep(0.05)

    run_on(loop, main)


@on_both_loops
def test_two_hundred_hosts_may_call_at_once(hosts: Hosts, loop: LoopName) -> None:
    async def main() -> None:
        async with opened(hosts.head, Limits(waiting_per_address=256, seconds=60.0, patience=60.0)) as port:
            ears = [Ear() for _ in range(200)]
            transports = await asyncio.gather(
                *(dial(port.address, lambda ear=ear: ear, hosts.gpu, 60.0) for ear in ears)
            )
            assert port.refused() == 0
            for transport in transports:
                transport.abort()
            await asyncio.gather(*(ear.lost for ear in ears))

    run_on(loop, main)


def test_nothing_listens_beyond_loopback_unless_it_is_asked_for(hosts: Hosts) -> None:
    async def main() -> None:
        async with opened(hosts.head) as port:
            assert port.listener is not None
            listening = port.listener._socket  # pyright: ignore[reportPrivateUsage]
            assert listening.getsockname()[0] == "127.0.0.1"

    run_on("asyncio", main)


def test_an_address_that_cannot_be_listened_on_is_named(hosts: Hosts) -> None:
    async def main() -> None:
        async with opened(hosts.head) as port:
            with pytest.raises(CannotListen, match=f"127.0.0.1, port {port.number}: .*in use.*--port"):
                await listen(Ear, hosts.head, port=port.number)
        with pytest.raises(CannotListen, match=r"192\.0\.2\.1"):
            await listen(Ear, hosts.head, bind="192.0.2.1", port=0)

    run_on("asyncio", main)


def test_connections_notice_a_host_that_is_gone(hosts: Hosts) -> None:
    async def main() -> None:
        async with opened(hosts.head) as port, called(port, hosts.gpu) as ear:
            for end in (ear, *port.ears):
                assert end.transport is not None
                sock: socket.socket = end.transport.get_extra_info("socket")
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                if hasattr(socket, "TCP_USER_TIMEOUT"):
                    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 15_000

    run_on("asyncio", main)


# --- callers' troubles -----------------------------------------------------------------------------------------------


@asynccontextmanager
async def somebody_else(answer: Callable[[socket.socket], None] | None) -> AsyncGenerator[Address, None]:
    """A listener that is not ours."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = Address(*server.getsockname()[:2])

        def serve() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.settimeout(30.0)
                if answer is not None:
                    answer(connection)
                else:
                    connection.recv(1)
                    connection.recv(1 << 16)
                    while connection.recv(1 << 16):
                        pass

        serving = asyncio.create_task(asyncio.to_thread(serve))
        yield address
        await serving


@on_both_loops
def test_a_caller_is_told_who_does_not_answer(hosts: Hosts, loop: LoopName) -> None:
    async def refused(address: Address, credentials: Credentials, error: type[Exception], match: str) -> None:
        with pytest.raises(error, match=match) as raised:
            await dial(address, Ear, credentials, 0.5 if error is Unreached else 30.0)
        assert type(raised.value) is error
        assert str(address) in str(raised.value)

    def speak(connection: socket.socket) -> None:
        connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

    def other_version(connection: socket.socket) -> None:
        with hosts.head.server_context().wrap_socket(connection, server_side=True) as wrapped:
            wrapped.sendall(b"palmette 2\n")
            wrapped.recv(1)

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            gone = Address(*server.getsockname()[:2])
        await refused(gone, hosts.gpu, Unreached, "cannot be reached")
        await refused(Address("no-such-host.invalid"), hosts.gpu, Unreached, "cannot be reached")
        async with somebody_else(None) as address:
            await refused(address, hosts.gpu, Unreached, r"did not answer within 0\.5 s")
        async with somebody_else(speak) as address:
            await refused(address, hosts.gpu, Rejected, "no palmette node listens there")
        async with somebody_else(other_version) as address:
            await refused(address, hosts.gpu, Rejected, "another version of palmette: b'palmette 2")
        async with opened(hosts.head) as port:
            await refused(port.address, hosts.foreign, Rejected, "is not of this cluster")
            await refused(port.address, Plain(), Rejected, "does not take this host's certificate")
            await until(port.is_quiet)

    run_on(loop, main)


def test_a_call_that_is_cancelled_leaves_nothing(hosts: Hosts) -> None:
    async def main() -> None:
        async with somebody_else(None) as address:
            calling = asyncio.ensure_future(dial(address, Ear, hosts.gpu, 30.0))
            await asyncio.sleep(0.05)
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling

    run_on("asyncio", main)
