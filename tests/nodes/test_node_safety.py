"""Strangers get nothing: not from the head's socket, and not from Thespian's ports."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import os
import pickle
import socket
import stat
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from node_actors import Worker
from node_bench import Bench
from node_processes import Family, family, host_of, is_alive, until

from palmette.actors import Heartbeat, wire
from palmette.actors import nodes as nodes_module
from palmette.actors.fingerprint import this_build

pytestmark = pytest.mark.asyncio(loop_scope="module")


def directory_of(bench: Bench) -> Path:
    directory = bench.system.nodes._directory  # pyright: ignore[reportPrivateUsage]
    assert directory is not None
    return directory.path


async def family_of(bench: Bench) -> Family:
    return family(host_of(bench.system), await bench.there.call(Worker.pid))


# --- files -----------------------------------------------------------------------------------------------------------


async def test_the_directory_and_what_is_in_it_belong_to_this_user_alone(bench: Bench) -> None:
    directory = directory_of(bench)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "key").stat().st_mode) == 0o600
    assert stat.S_IMODE((directory / "lock").stat().st_mode) == 0o600
    assert {path.name for path in directory.iterdir()} == {"key", "link", "lock"}


async def test_the_key_and_the_tokens_are_in_nobodys_arguments_environment_or_open_files(bench: Bench) -> None:
    key = (directory_of(bench) / "key").read_bytes()
    assert len(key) == 32
    secrets = [key, key.hex().encode()]
    for pid in (os.getpid(), *(await family_of(bench)).all):
        for file in ("cmdline", "environ"):
            data = Path(f"/proc/{pid}/{file}").read_bytes()  # noqa: ASYNC240
            assert not any(secret in data for secret in secrets)
            assert b"token" not in data
    assert not any("key" in name for name in await bench.there.call(Worker.open_files))


async def test_frames_with_a_token_do_not_show_it() -> None:
    for frame in (
        wire.Order("n", "/s", "SECRET", Heartbeat()),
        wire.Hello("n", "SECRET", 1),
        wire.Stillborn("n", "SECRET"),
    ):
        assert "SECRET" not in repr(frame)
        assert "SECRET" not in f"{frame}"


# --- the head's socket -----------------------------------------------------------------------------------------------


async def say(bench: Bench, *frames: wire.Frame | bytes) -> bytes:
    """Connect to the head as a stranger, say something, and return all that it answers before it hangs up."""
    reader, writer = await asyncio.open_unix_connection(directory_of(bench) / "link")
    try:
        for number, frame in enumerate(frames):
            writer.write(frame if isinstance(frame, bytes) else b"".join(wire.encode_frame(frame, number)))
        with contextlib.suppress(ConnectionError):
            return await asyncio.wait_for(reader.read(), 20)
        return b""
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


CALL = wire.Call(1, "/there", "pid", b"\x80", 5.0)


@pytest.mark.parametrize(
    "frames",
    [
        (wire.Hello("there", "guess", 1),),
        (wire.Hello("there", "é", 1), CALL),
        (wire.Hello("there", "", 1), CALL),
        (CALL,),
        (wire.Stillborn("there", "guess"), CALL),
        (wire.Started("/there"),),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",),
        (b"\x00\x00\x00\x05hello",),
        (wire.HEADER.pack(wire.MAX_GREETING + 1, 0),),
        (wire.HEADER.pack(0xFFFFFFFF, 0),),
        (wire.HEADER.pack(5, 1),),
    ],
    ids=repr,
)
async def test_a_stranger_is_cut_off_and_learns_nothing(
    bench: Bench, frames: tuple[wire.Frame | bytes, ...], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert await say(bench, *frames) == b""
    assert caplog.records == []
    assert await bench.there.call(Worker.pid)


async def test_a_token_is_good_for_its_own_node_and_for_one_time(bench: Bench) -> None:
    nodes = bench.system.nodes
    expected = nodes._expected  # pyright: ignore[reportPrivateUsage]
    arrived: asyncio.Future[nodes_module.Link] = bench.system.loop.create_future()
    host = nodes._host  # pyright: ignore[reportPrivateUsage]
    assert host is not None
    expected["node-1"] = nodes_module._Expected("right", arrived, host)  # pyright: ignore[reportPrivateUsage]
    try:
        assert await say(bench, wire.Hello("node-1", "wrong", 1), wire.Hello("node-1", "right", 1)) == b""
        assert await say(bench, wire.Hello("node-2", "right", 1)) == b""
        assert not arrived.done()
        asking = asyncio.ensure_future(say(bench, wire.Hello("node-1", "right", os.getpid(), this_build())))
        link = await asyncio.wait_for(arrived, 20)
        assert await say(bench, wire.Hello("node-1", "right", 1)) == b""
        # It is in; and out, as soon as it claims a frame that would exhaust memory.
        assert link.lost is None
        link.fail("the test is over")
        assert await asking == b""
    finally:
        del expected["node-1"]


async def test_a_connection_that_says_nothing_is_dropped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes_module, "GREETING_SECONDS", 0.02)
    assert await say(bench) == b""
    assert await say(bench, b"\x00\x00") == b""
    assert not bench.system.nodes._strangers  # pyright: ignore[reportPrivateUsage]


async def test_too_many_strangers_push_out_the_oldest_and_keep_nobody_out(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes_module, "MAX_STRANGERS", 4)
    crowd = [asyncio.ensure_future(say(bench)) for _ in range(10)]
    strangers = bench.system.nodes._strangers  # pyright: ignore[reportPrivateUsage]
    await until(lambda: sum(task.done() for task in crowd) == 6)
    assert len(strangers) == 4
    worker = await bench.spare("welcome")
    assert await worker.call(Worker.pid)
    for link in list(strangers):
        link.fail("the test is over")
    assert set(await asyncio.gather(*crowd)) == {b""}


async def test_a_frame_beyond_the_limit_ends_the_link_that_it_came_on(bench: Bench) -> None:
    worker = await bench.spare("babbler")
    target = bench.system.slots[worker.path].target
    assert isinstance(target, nodes_module.Hosted)
    target.link.data_received(wire.HEADER.pack(wire.MAX_FRAME + 1, 0))
    await until(lambda: not worker.is_alive())
    assert f"more than {wire.MAX_FRAME}" in str(bench.system.why(worker.path)[-1])
    await until(lambda: not is_alive(target.pid))


# --- Thespian's ports ------------------------------------------------------------------------------------------------


def listening(pid: int) -> set[tuple[str, int]]:
    """Addresses that the process listens on, from the kernel's tables."""
    inodes = set[str]()
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            link = os.readlink(f"/proc/{pid}/fd/{descriptor}")
            if link.startswith("socket:["):
                inodes.add(link[len("socket:[") : -1])
    found = set[tuple[str, int]]()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            address, state, inode = fields[1], fields[3], fields[9]
            if state == "0A" and inode in inodes:
                host, port = address.split(":")
                found.add((host, int(port, 16)))
    return found


LOOPBACK = "0100007F"


async def test_every_port_is_bound_to_loopback_only(bench: Bench) -> None:
    people = await family_of(bench)
    found = {pid: listening(pid) for pid in people.all}
    assert all(found[pid] for pid in (people.admin, people.keeper, people.logger, *people.nodes))
    assert {host for addresses in found.values() for host, _ in addresses} == {LOOPBACK}
    assert listening(os.getpid()) == set()


class Attack:
    """What a pickle runs that is loaded without asking."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return subprocess.call, (["touch", str(self.file)],)


def framed(data: bytes) -> bytes:
    return b"%d>" % len(data) + data


def throw(port: int, data: bytes) -> None:
    """Send ``data`` to a port, and wait until the other side hangs up, answers, or has had its time."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.settimeout(0.3)
        with contextlib.suppress(OSError):
            connection.sendall(data)
            connection.recv(100)


async def test_pickles_without_the_seal_execute_nothing_and_everybody_goes_on(bench: Bench, tmp_path: Path) -> None:
    people = await family_of(bench)
    evil = pickle.dumps((None, Attack(tmp_path / "owned")))
    pickle.loads(pickle.dumps(Attack(tmp_path / "control")))
    assert (tmp_path / "control").exists()  # the attack works where nobody guards against it
    blows = [
        framed(evil),
        framed(bytes(32) + evil),
        framed(hmac.digest(b"guess", evil, "sha256") + evil),
        framed(evil[:40]),
        b"not a number>" + evil,
        b"99999999999999>" + evil,
        b"x" * 500,
        b"",
    ]
    ports = {port for pid in (*people.all[1:],) for _, port in listening(pid)}
    assert len(ports) >= 5
    for port in ports:
        await asyncio.gather(*(asyncio.to_thread(throw, port, blow) for blow in blows))
    assert not (tmp_path / "owned").exists()
    assert await family_of(bench) == people
    assert all(psutil.Process(pid).is_running() for pid in people.all)
    worker = await bench.spare("after-the-attack")
    assert await worker.call(Worker.pid) in (await family_of(bench)).nodes
    assert not (tmp_path / "owned").exists()


async def test_even_under_the_seal_only_thespians_own_classes_are_unpickled(bench: Bench, tmp_path: Path) -> None:
    key = (directory_of(bench) / "key").read_bytes()
    people = await family_of(bench)
    payloads = [
        pickle.dumps((None, Attack(tmp_path / "owned"))),
        # Through modules that are allowed, to what they have imported: by a dotted name, and by a plain one.
        reach("palmette.actors.node", "os.system", f"touch {tmp_path / 'owned'}"),
        reach("thespian.system.transport.TCPTransport", "socket.socket"),
        reach("thespian.system.transport.TCPTransport", "ReceiveBuffer"),
        reach("builtins", "eval", f"open({str(tmp_path / 'owned')!r}, 'w')"),
    ]
    for pid in (people.admin, people.keeper, people.nodes[0]):
        for _, port in listening(pid):
            for payload in payloads:
                sealed = hmac.digest(key, payload, "sha256") + payload
                await asyncio.to_thread(throw, port, framed(sealed))
    assert not (tmp_path / "owned").exists()
    pickle.loads(reach("node_actors", "os.system", f"touch {tmp_path / 'control'}"))
    assert (tmp_path / "control").exists()
    assert await family_of(bench) == people
    assert await (await bench.spare("unharmed")).call(Worker.pid)


def reach(module: str, name: str, *arguments: str) -> bytes:
    """A pickle, protocol 4, that calls ``module.name`` with ``arguments``."""

    def text(value: str) -> bytes:
        data = value.encode()
        return pickle.BINUNICODE + len(data).to_bytes(4, "little") + data

    tuple_of = pickle.MARK + b"".join(map(text, arguments)) + pickle.TUPLE
    return (
        pickle.PROTO
        + b"\x04"
        + text(module)
        + text(name)
        + pickle.STACK_GLOBAL
        + tuple_of
        + pickle.REDUCE
        + pickle.STOP
    )


async def test_a_flood_of_half_open_connections_does_not_keep_a_node_from_starting(bench: Bench) -> None:
    people = await family_of(bench)
    with contextlib.ExitStack() as crowd:
        for _, port in listening(people.keeper):
            for _ in range(30):
                connection = crowd.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
                connection.sendall(b"1000>half")
        began = time.monotonic()
        worker = await bench.spare("through-the-crowd")
        assert await worker.call(Worker.pid)
        assert time.monotonic() - began < 30
