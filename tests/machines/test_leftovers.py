"""Before a run, what dead controllers left is removed where its machines are; what cannot be asked is told of."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from docker_support import containers, images, killed_controller
from e2b_fixtures import sdk as sdk
from e2b_fixtures import shared_stand_in as shared_stand_in
from e2b_fixtures import stand_in as stand_in
from support.docker_daemon import DockerDaemon
from support.e2b_stand_in import StandIn

from palmette.machines import UnknownImage, leftovers
from palmette.machines.leftovers import reap_backend, reap_before_run


@pytest.fixture(scope="module")
def daemon(docker_daemon: DockerDaemon) -> DockerDaemon:
    return docker_daemon


@pytest.mark.parametrize("image", ["local", "local+bwrap", "theirs:x", "local@/tmp/snapshot.tar"])
async def test_machines_of_this_host_and_of_other_peoples_backends_are_no_matter_of_this(image: str) -> None:
    assert await reap_before_run(image) is None


async def test_containers_of_the_dead_are_removed_and_snapshots_stay(
    daemon: DockerDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", daemon.url)
    await asyncio.to_thread(killed_controller, daemon)
    report = await reap_before_run("docker:anything")
    assert report is not None
    assert (report.backend, report.failed, containers(daemon)) == ("docker", (), [])
    kept = images(daemon)
    assert [name.partition(":")[0] for name in kept] == ["palmette-snapshot"]
    assert (await reap_backend("docker")).removed == tuple(kept)
    assert images(daemon) == []


async def test_a_daemon_that_cannot_be_asked_is_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    report = await reap_before_run("docker:python:3.12")
    assert report is not None
    assert report.removed == ()
    (problem,) = report.failed
    assert "DOCKER_HOST" in problem


async def test_one_that_says_nothing_is_waited_for_no_longer_than_so_long(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(leftovers, "SECONDS", 0.1)
    address = str(tmp_path / "mute.sock")
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(address)
        mute.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{address}")
        report = await reap_before_run("docker:python:3.12")
    assert report is not None
    assert report.failed == ("it took more than 0.1 s; `palmette machines reap` has patience",)


async def test_an_account_without_a_key_is_told_of(monkeypatch: pytest.MonkeyPatch, sdk: None) -> None:
    monkeypatch.delenv("E2B_API_KEY", raising=False)
    report = await reap_before_run("e2b")
    assert report is not None
    assert "E2B_API_KEY" in report.failed[0]


async def test_an_account_with_nothing_left_has_nothing_to_tell(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in stand_in.connection.items():
        monkeypatch.setenv(f"E2B_{name.upper()}", str(value))
    assert await reap_before_run("e2b") == leftovers.Reaped(backend="e2b")


async def test_a_host_that_cannot_be_reached_is_told_of(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    report = await reap_before_run(f"ssh://somebody@127.0.0.1:{port}?known_hosts=/dev/null&config=/dev/null")
    assert report is not None
    assert len(report.failed) == 1


async def test_a_misspelt_address_is_an_error() -> None:
    with pytest.raises(UnknownImage):
        await reap_before_run("ssh://somebody@host?colour=red")
