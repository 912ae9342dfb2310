"""Machines with the same login share connections, within what the server allows, and close them with the last one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from ssh_support import backend_for, nothing_left, own_connections
from support.ssh_server import SshServer, generate_key, running_server

from palmette.machines.errors import ImageUnusable
from palmette.machines.ssh import SshBackend

pytestmark = pytest.mark.usefixtures("ssh_server")


async def start_all(image: str, count: int) -> list[SshBackend]:
    """As many backends, started at once, each with a program that echoes."""
    backends = [backend_for(image) for _ in range(count)]
    await asyncio.gather(*(backend.start() for backend in backends))
    channels = await asyncio.gather(*(backend.open_channel(["cat"]) for backend in backends))
    for number, channel in enumerate(channels):
        await channel.write(f"{number}\n".encode())
    for number, channel in enumerate(channels):
        assert await channel.read() == f"{number}\n".encode()
    return backends


async def test_thirty_machines_at_once_need_four_connections_and_the_last_one_closes_them(
    ssh_server: SshServer,
) -> None:
    backends = await start_all(ssh_server.image(), 30)
    assert len(own_connections(ssh_server)) == 4
    last = backends.pop()
    await asyncio.gather(*(backend.stop() for backend in backends))
    assert len(own_connections(ssh_server)) == 1
    await last.stop()
    assert own_connections(ssh_server) == []
    await nothing_left(ssh_server)


@pytest.mark.parametrize("allowed", [1, 2, 4])
async def test_a_server_that_allows_fewer_programs_gets_more_connections(sshd_program: Path, allowed: int) -> None:
    with running_server(sshd_program, max_sessions=allowed) as server:
        backends = await start_all(server.image(), 7)
        assert len(own_connections(server)) >= -(-7 // allowed)
        await asyncio.gather(*(backend.stop() for backend in backends))
        await nothing_left(server)


async def test_more_programs_of_one_machine_take_seats_of_their_own_and_give_them_back(ssh_server: SshServer) -> None:
    backend = backend_for(ssh_server.image())
    place = await backend.start()
    try:
        # The first one makes the working directory, as a runner does: from then on the place is nobody's to remove.
        channels = [await backend.open_channel(["sh", "-c", 'mkdir "$1"; echo; exec cat', "sh", place.workdir])]
        assert await channels[0].read() == b"\n"
        channels += [await backend.open_channel(["cat"]) for _ in range(11)]
        assert len(own_connections(ssh_server)) == 2
        for channel in channels:
            await channel.write(b"x")
            assert await channel.read() == b"x"
            await channel.close()
    finally:
        await backend.stop()
    assert own_connections(ssh_server) == []
    await nothing_left(ssh_server)


async def test_a_login_that_fails_fails_for_all_who_wait_for_it_and_is_made_once(
    ssh_server: SshServer, tmp_path: Path
) -> None:
    key = generate_key(tmp_path / "other")
    image = ssh_server.image().replace(str(ssh_server.key), str(key))
    before = ssh_server.log.read_text().count("Connection closed by authenticating user")
    outcomes = await asyncio.gather(*(backend_for(image).start() for _ in range(9)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ImageUnusable] * 9
    await nothing_left(ssh_server)
    assert ssh_server.log.read_text().count("Connection closed by authenticating user") - before == 1


@pytest.mark.parametrize("others", [0, 1])
async def test_a_start_that_is_cancelled_at_any_moment_leaves_nothing_and_disturbs_nobody(
    ssh_server: SshServer, others: int
) -> None:
    delay = 0.0005
    while True:
        companions = [backend_for(ssh_server.image()) for _ in range(others)]
        starts = [asyncio.create_task(companion.start()) for companion in companions]
        backend = backend_for(ssh_server.image())
        start = asyncio.create_task(backend.start())
        await asyncio.wait([start], timeout=delay)
        done = start.done()
        start.cancel()
        await asyncio.wait([start])
        await backend.stop()
        for task, companion in zip(starts, companions, strict=True):
            await task
            await companion.stop()
        if done:
            break
        delay *= 1.7
    assert own_connections(ssh_server) == []
    await nothing_left(ssh_server)
