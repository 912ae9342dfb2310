"""Strangers at an open port: turned away for what they are, at a bounded cost, and written down once."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from pathlib import Path
from typing import cast

import pytest
from cluster_hosts import LOOPS, Ear, Hosts, LoopName, Plain, Port, answers, opened, run_on, until

from palmette.actors import simulation
from palmette.actors.cluster import authority, certificates, channel
from palmette.actors.cluster.admission import Limits
from palmette.actors.cluster.channel import dial, listen
from palmette.actors.cluster.complaints import MAX_KEYS, OTHERS, Complaints
from palmette.actors.cluster.errors import BadCredentials, Rejected

on_both_loops = pytest.mark.parametrize("loop", LOOPS)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Hosts:
    return Hosts(tmp_path_factory.mktemp("hosts"))


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
        async with opened(hosts.head, Limits(seconds=3.0)) as port:
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
