"""A daemon that is killed, frozen or not there: who waits learns of it in time, and by its name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from docker import APIClient
from docker_support import Make, backends, containers, printed, waiter
from support.docker_daemon import IMAGE, DockerDaemon, running_daemon

from palmette.machines import StreamName, connection, machine_for
from palmette.machines.docker import backend as docker
from palmette.machines.docker import calls as docker_calls
from palmette.machines.docker.reaper import delete_snapshot
from palmette.machines.errors import MachineError, MachineLost
from palmette.machines.evidence import Cause, Evidence

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false


@pytest.fixture(scope="module", autouse=True)
def _daemon(mortal_docker_home: DockerDaemon) -> None:  # pyright: ignore[reportUnusedFunction]
    """There before a test's own processes are counted."""


@pytest.fixture
async def make(mortal_docker: DockerDaemon) -> AsyncIterator[Make]:
    async with backends(mortal_docker) as make:
        yield make


def evidence_of(error: MachineLost) -> Evidence:
    assert error.evidence is not None
    return error.evidence


async def test_a_daemon_killed_while_a_program_runs_is_told_from_a_dead_container(
    mortal_docker: DockerDaemon, make: Make
) -> None:
    backend = make()
    await backend.start()
    channel = await waiter(backend)
    mortal_docker.kill()
    async with asyncio.timeout(5.0):
        assert await channel.read() == b""
        evidence = await backend.examine()
    assert evidence is not None
    assert (evidence.cause, evidence.agents_doing) == ("daemon_gone", False)
    with pytest.raises(MachineLost, match="DOCKER_HOST") as caught:
        await backend.open_channel(["true"])
    assert evidence_of(caught.value).cause == "daemon_gone"
    with pytest.raises(MachineError, match="may still be there"):
        await backend.stop()
    mortal_docker.start()
    await backend.stop()


async def test_a_frozen_daemon_is_named_within_five_seconds(mortal_docker: DockerDaemon, make: Make) -> None:
    backend = make()
    await backend.start()
    mortal_docker.freeze()
    try:
        began = time.monotonic()
        evidence = await backend.examine()
        assert time.monotonic() - began < 5.0
        assert evidence is not None
        assert evidence.cause == "daemon_frozen"
    finally:
        mortal_docker.thaw()
    assert await backend.examine() is None
    assert await printed(backend, "print('well')") == "well\n"


async def test_nothing_hangs_on_a_frozen_daemon(
    mortal_docker: DockerDaemon, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_calls, "CONNECT", 0.3)
    running, other = make(), make()
    await running.start()
    channel = await waiter(running)
    mortal_docker.freeze()
    try:
        for waits in (running.open_channel(["true"]), other.start(), running.kill_all(), running.snapshot("one")):
            with pytest.raises(MachineLost) as caught:
                await waits
            assert evidence_of(caught.value).cause == "daemon_frozen"
        with pytest.raises(MachineError, match="may still be there"):
            await running.stop()
    finally:
        mortal_docker.thaw()
    await channel.close()


@pytest.mark.parametrize(("how", "cause"), [("kill", "daemon_gone"), ("freeze", "daemon_frozen")])
async def test_a_command_that_runs_while_its_daemon_fails_is_lost_by_that_name(
    mortal_docker: DockerDaemon, monkeypatch: pytest.MonkeyPatch, how: str, cause: Cause
) -> None:
    monkeypatch.setenv("DOCKER_HOST", mortal_docker.url)
    machine = machine_for(f"docker:{IMAGE}?pids=64", owner="test-run")
    await machine.start()
    started = asyncio.Event()

    def heard(stream: StreamName, data: bytes) -> None:
        started.set()

    running = asyncio.create_task(machine.exec("echo here; sleep 1000", timeout=600, on_output=heard))
    await started.wait()
    if how == "kill":
        mortal_docker.kill()
    else:
        mortal_docker.freeze()
    async with asyncio.timeout(5.0):
        with pytest.raises(MachineLost) as caught:
            await running
    assert evidence_of(caught.value).cause == cause
    if how == "kill":
        mortal_docker.start()
    else:
        mortal_docker.thaw()
    await machine.stop()
    assert containers(mortal_docker) == []


async def test_a_start_that_freezes_midway_is_lost_for_that_and_stopping_tries_again(
    mortal_docker: DockerDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", mortal_docker.url)
    monkeypatch.setattr(docker_calls, "CONNECT", 0.3)
    monkeypatch.setattr(docker, "START", 1.0)
    create = APIClient.create_container

    def create_and_freeze(*args: object, **options: object) -> object:
        made: object = create(*args, **options)  # pyright: ignore[reportArgumentType, reportUnknownVariableType]
        mortal_docker.freeze()
        return made

    monkeypatch.setattr(APIClient, "create_container", create_and_freeze)
    machine = machine_for(f"docker:{IMAGE}?pids=64", owner="test-run")
    try:
        with pytest.raises(MachineLost) as caught:
            await machine.start()
        assert evidence_of(caught.value).cause == "daemon_frozen"
        assert any("may still be there" in note for note in caught.value.__notes__)
    finally:
        mortal_docker.thaw()
    monkeypatch.undo()
    assert len(containers(mortal_docker)) == 1
    await machine.stop()
    assert containers(mortal_docker) == []


async def test_a_long_snapshot_is_not_taken_for_a_dead_runner(
    mortal_docker: DockerDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", mortal_docker.url)
    monkeypatch.setattr(connection, "SILENCE", 0.3)
    commit = APIClient.commit

    def commit_slowly(client: APIClient, container: str, **options: object) -> object:
        client.pause(container)
        time.sleep(1.5)
        client.unpause(container)
        return commit(client, container, **options)  # pyright: ignore[reportArgumentType, reportUnknownVariableType]

    monkeypatch.setattr(APIClient, "commit", commit_slowly)
    machine = machine_for(f"docker:{IMAGE}?pids=64", owner="test-run")
    await machine.start()
    try:
        running = asyncio.create_task(machine.exec("read line; echo $line", stdin=b"well\n"))
        long = asyncio.create_task(machine.exec("sleep 1; echo well", timeout=30))
        snapshot = await machine.snapshot()
        assert ((await running).text, (await long).text) == ("well\n", "well\n")
        await delete_snapshot(snapshot.image)
    finally:
        await machine.stop()


async def test_a_full_disk_is_named(
    docker_image: Path, mortal_docker_home: DockerDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_daemon(docker_image, disk="110m") as daemon:
        monkeypatch.setenv("DOCKER_HOST", daemon.url)
        machine = machine_for(f"docker:{IMAGE}?pids=64", owner="test-run")
        await machine.start()
        try:
            result = await machine.exec("dd if=/dev/zero of=large bs=1M count=500")
            assert result.exit_code == 1
            assert result.evidence is not None
            assert (result.evidence.cause, result.evidence.agents_doing) == ("disk_full", True)
            with pytest.raises(MachineLost) as caught:
                await machine.snapshot()
            assert evidence_of(caught.value).cause == "disk_full"
            assert (await machine.exec("rm large; echo well")).text == "well\n"
        finally:
            await machine.stop()


async def test_a_channel_over_a_daemon_that_freezes_midway_can_be_given_up(
    mortal_docker: DockerDaemon, make: Make
) -> None:
    backend = make()
    await backend.start()
    channel = await waiter(backend)
    mortal_docker.freeze()
    try:
        writer = asyncio.create_task(channel.write(b"x" * (4 << 20)))
        reader = asyncio.create_task(channel.read())
        done, _ = await asyncio.wait([reader, writer], timeout=0.1)
        assert not done
        await channel.close()
        async with asyncio.timeout(5.0):
            assert await reader == b""
            with pytest.raises(ConnectionError):
                await writer
    finally:
        mortal_docker.thaw()
