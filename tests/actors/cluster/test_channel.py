"""Connections between hosts: both sides show who they are, and strangers are turned away without a word reaching us."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
from cluster_hosts import LOOPS, Ear, Hosts, LoopName, Plain, Port, answers, called, opened, run_on, until

from palmette.actors import simulation
from palmette.actors.cluster import authority, certificates, channel
from palmette.actors.cluster.admission import Limits
from palmette.actors.cluster.channel import Address, dial, listen, peer_name
from palmette.actors.cluster.complaints import MAX_KEYS, OTHERS, Complaints
from palmette.actors.cluster.credentials import Credentials
from palmette.actors.cluster.errors import BadCredentials, CannotListen, Rejected, Unreached

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


# --- strangers -------------------------------------------------------------------------------------------------------


def expired(hosts: Hosts, tmp_path: Path) -> Path:
    pem = (hosts.head.directory / "authority.pem").read_bytes()
    issuer = certificates.Authority(certificates.read_certificates(pem)[0], certificates.read_key(pem))
    path = tmp_path / "expired.pem"
    path.write_bytes(certificates.host_pem(issuer, "gpu-a", days=-0.5))
    return path


class Old(Plain):
    """Speaks an old version of TLS, and shows a good certificate."""

    def client_context(self) -> ssl.SSLContext:
        context = super().client_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        return context


@on_both_loops
def test_strangers_are_turned_away_for_what_they_are(
    hosts: Hosts, loop: LoopName, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with opened(hosts.head, Limits(seconds=0.2)) as port:
            for credentials in (
                Plain(),
                Plain(hosts.foreign.directory / "host.pem"),
                Plain(expired(hosts, tmp_path)),
                Old(hosts.gpu.directory / "host.pem"),
            ):
                with pytest.raises(Rejected):
                    await dial(port.address, Ear, credentials, 30.0)
            for words in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01nonsense", b"", None):
                _, writer = await asyncio.open_connection("127.0.0.1", port.number)
                if words is None:
                    await until(lambda: port.refused() == 8)  # its time is up
                else:
                    refused = port.refused()
                    writer.write(words)
                    writer.close()
                    await until(lambda refused=refused: port.refused() == refused + 1)
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
            await answers(port, hosts.gpu)
            assert len(port.ears) == 1

    with caplog.at_level(logging.INFO, "palmette.cluster"):
        run_on(loop, main)
    causes = [record.getMessage().partition("127.0.0.1 was refused: ")[2] for record in caplog.records]
    assert causes[:5] == [
        "it showed no certificate",
        "its certificate is not taken: unable to get local issuer certificate",
        "its certificate is not taken: certificate has expired",
        "it does not speak TLS 1.3",
        "it does not speak TLS",
    ]
    assert causes[6:8] == ["it hung up without a word", "it was too slow"]


@on_both_loops
@pytest.mark.parametrize(
    "words", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], ids=["silent", "half a hello"]
)
def test_hosts_get_in_while_strangers_from_elsewhere_hold_all_that_they_may(
    hosts: Hosts, loop: LoopName, words: bytes
) -> None:
    limits = Limits(handshakes=8, handshakes_per_address=4, waiting=40, waiting_per_address=20, seconds=60.0)

    async def main() -> None:
        async with opened(hosts.head, limits) as port:
            strangers = [
                await asyncio.open_connection("127.0.0.1", port.number, local_addr=("127.0.0.2", 0)) for _ in range(60)
            ]
            for _, writer in strangers:
                writer.write(words)
            await until(lambda: port.refused() >= 36)
            statistics = port.listener.statistics() if port.listener else None
            assert statistics is not None
            assert statistics.waiting <= 20
            assert statistics.handshakes <= 4
            for _ in range(3):
                await answers(port, hosts.gpu)
            for _, writer in strangers:
                writer.transport.abort()
            await until(port.is_quiet)

    run_on(loop, main)


@on_both_loops
def test_even_from_the_same_address_handshakes_that_stand_still_give_way(hosts: Hosts, loop: LoopName) -> None:
    limits = Limits(handshakes=4, handshakes_per_address=4, seconds=60.0, patience=0.05)

    async def main() -> None:
        async with opened(hosts.head, limits) as port:
            strangers = [await asyncio.open_connection("127.0.0.1", port.number) for _ in range(20)]
            for _, writer in strangers:
                writer.write(b"\x16\x03\x01\x02\x00\x01")
            await until(lambda: not port.is_quiet())
            await answers(port, hosts.gpu)
            for _, writer in strangers:
                writer.transport.abort()
            await until(port.is_quiet)

    run_on(loop, main)


def test_a_process_without_descriptors_takes_connections_again_when_it_has_some(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "PAUSE_SECONDS", 0.01)

    class Exhausted:
        """A socket that says so twice."""

        def __init__(self, real: socket.socket) -> None:
            self.real = real
            self.left = 2

        def accept(self) -> tuple[socket.socket, object]:
            if self.left:
                self.left -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return self.real.accept()

        def fileno(self) -> int:
            return self.real.fileno()

        def close(self) -> None:
            self.real.close()

    async def main() -> None:
        async with opened(hosts.head) as port:
            assert port.listener is not None
            real = port.listener._socket  # pyright: ignore[reportPrivateUsage]
            exhausted = Exhausted(real)
            port.listener._socket = cast("socket.socket", exhausted)  # pyright: ignore[reportPrivateUsage]
            await answers(port, hosts.gpu)
            assert exhausted.left == 0

    run_on("asyncio", main)


@on_both_loops
def test_a_listener_whose_own_credentials_are_gone_says_so_and_goes_on(
    loop: LoopName, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hosts = Hosts(tmp_path)

    async def main() -> None:
        async with opened(hosts.head) as port:
            file = hosts.head.directory / "trusted.pem"
            kept = file.read_bytes()
            file.unlink()
            with pytest.raises(Rejected):
                await answers(port, hosts.gpu)
            await until(port.is_quiet)
            certificates.write_private(file, kept)
            await answers(port, hosts.gpu)

    run_on(loop, main)
    assert "own credentials cannot be used" in caplog.text


def test_a_listener_without_credentials_is_not_opened(tmp_path: Path) -> None:
    head = authority.create(tmp_path / "head", "head")
    (head.directory / "host.pem").write_text("")

    async def main() -> None:
        with pytest.raises(BadCredentials):
            await listen(Ear, head, port=0)

    run_on("asyncio", main)


# --- the log ---------------------------------------------------------------------------------------------------------


def test_a_cause_is_told_once_a_minute_for_each_address_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        complaints = Complaints(asyncio.get_running_loop())
        for _ in range(1000):
            complaints.note("10.0.0.1", "a")
            complaints.note("10.0.0.1", "b")
            complaints.note("10.0.0.2", "a")
        await asyncio.sleep(61.0)
        complaints.note("10.0.0.1", "a")
        await asyncio.sleep(120.0)
        complaints.note("10.0.0.1", "a")
        complaints.close()

    simulation.run(main)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[:3] == ["10.0.0.1 was refused: a", "10.0.0.1 was refused: b", "10.0.0.2 was refused: a"]
    assert sorted(lines[3:6]) == [
        "10.0.0.1 was refused 999 more times within 60 s: a",
        "10.0.0.1 was refused 999 more times within 60 s: b",
        "10.0.0.2 was refused 999 more times within 60 s: a",
    ]
    assert lines[6:] == ["10.0.0.1 was refused 1 more times within 60 s: a", "10.0.0.1 was refused: a"]


def test_a_million_addresses_do_not_fill_the_log_or_the_memory(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> int:
        complaints = Complaints(asyncio.get_running_loop())
        for number in range(10 * MAX_KEYS):
            complaints.note(f"host-{number}", "a")
        kept = len(complaints._open)  # pyright: ignore[reportPrivateUsage]
        complaints.close()
        return kept

    assert simulation.run(main).value <= MAX_KEYS + 1
    assert len(caplog.records) == MAX_KEYS + 2
    assert OTHERS in caplog.records[-1].getMessage()


def test_an_open_port_is_one_socket(hosts: Hosts) -> None:
    """What is not closed would be found by the checks after each test; this one closes in the middle of things."""

    async def main() -> None:
        port = Port()
        port.listener = await listen(port.ear, hosts.head, port=0)
        _, silent = await asyncio.open_connection("127.0.0.1", port.number)
        _, half = await asyncio.open_connection("127.0.0.1", port.number)
        half.write(b"\x16\x03\x01\x02\x00\x01")
        await until(lambda: not port.is_quiet())
        port.listener.close()
        for writer in (silent, half):
            writer.transport.abort()

    run_on("asyncio", main)
