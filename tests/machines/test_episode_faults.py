"""Whole episodes on machines that are killed, frozen and cut off: the outcome names the cause, or another one is had.

In each run there are two episodes. The first meets the fault in both of the attempts that it has; the second meets it
in its first attempt.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from docker_support import containers, first_pid
from e2b import AsyncSandbox
from e2b_fixtures import mortal_stand_in as mortal_stand_in
from e2b_fixtures import sdk as sdk
from episode_support import Meeting, check, met
from machines_support import list_root, until
from ssh_support import nothing_left, own_connections
from support.docker_daemon import IMAGE, DockerDaemon
from support.e2b_stand_in import StandIn
from support.ssh_server import SshServer

from palmette.actors import ActorDied, describe, root_cause
from palmette.benchmarks.outcomes import InfraFailed
from palmette.machines import pool as machine_pool

# --- this host -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="there is no bwrap here")
async def test_namespaces_are_killed_and_their_directory_is_removed(tmp_path: Path, root: Path) -> None:
    async def kill() -> None:
        (directory,) = list_root(root)
        shutil.rmtree(root / directory)
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.name() == "bwrap":
                    child.kill()

    check(await met(tmp_path, "local+bwrap", Meeting(kill)), "machine_removed")
    assert list_root(root) == []


# --- docker ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def daemon(docker_daemon: DockerDaemon) -> DockerDaemon:
    return docker_daemon


@pytest.fixture
def docker(daemon: DockerDaemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[DockerDaemon]:
    """The daemon that all share."""
    monkeypatch.setenv("DOCKER_HOST", daemon.url)
    yield daemon
    assert containers(daemon) == []


@pytest.fixture(scope="module")
def mortal_home(mortal_docker_home: DockerDaemon) -> DockerDaemon:
    """There before a test's own processes are counted."""
    return mortal_docker_home


async def test_a_container_is_killed(tmp_path: Path, docker: DockerDaemon) -> None:
    async def kill() -> None:
        (name,) = containers(docker)
        os.kill(first_pid(docker, name), signal.SIGKILL)

    check(await met(tmp_path, f"docker:{IMAGE}?pids=64", Meeting(kill)), "machine_killed")


async def test_a_daemon_is_killed_and_comes_back(
    tmp_path: Path, mortal_home: DockerDaemon, mortal_docker: DockerDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def kill() -> None:
        mortal_docker.kill()

    monkeypatch.setenv("DOCKER_HOST", mortal_docker.url)
    meeting = Meeting(kill, repair=mortal_docker.start)
    check(await met(tmp_path, f"docker:{IMAGE}?pids=64", meeting, pool="machines"), "daemon_gone")
    await until(lambda: containers(mortal_docker) == [], "the containers of the time before to be gone")


async def test_a_daemon_is_frozen(
    tmp_path: Path, mortal_home: DockerDaemon, mortal_docker: DockerDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def freeze() -> None:
        mortal_docker.freeze()

    monkeypatch.setenv("DOCKER_HOST", mortal_docker.url)
    meeting = Meeting(freeze, repair=mortal_docker.thaw)
    try:
        check(await met(tmp_path, f"docker:{IMAGE}?pids=64", meeting, pool="machines"), "daemon_frozen")
    finally:
        mortal_docker.thaw()
    await until(lambda: containers(mortal_docker) == [], "the containers of the time before to be gone")


# --- ssh -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["theirs", "ours"])
async def test_the_connection_to_a_host_is_killed(
    tmp_path: Path, ssh_server: SshServer, mortal_sshd: SshServer, end: str
) -> None:
    async def kill() -> None:
        if end == "theirs":
            mortal_sshd.kill_sessions()
            return
        for descriptor in own_connections(mortal_sshd):
            with socket.socket(fileno=os.dup(descriptor)) as own:
                own.shutdown(socket.SHUT_RDWR)

    check(await met(tmp_path, mortal_sshd.image(), Meeting(kill)), "connection_lost")
    await nothing_left(mortal_sshd)


async def test_a_host_is_frozen(tmp_path: Path, ssh_server: SshServer, mortal_sshd: SshServer) -> None:
    frozen = contextlib.ExitStack()

    async def freeze() -> None:
        frozen.enter_context(mortal_sshd.frozen())

    with frozen:
        check(await met(tmp_path, mortal_sshd.image("lease=5"), Meeting(freeze, repair=frozen.close)), "daemon_frozen")
    await nothing_left(mortal_sshd)


# --- nobody is there -------------------------------------------------------------------------------------------------


async def test_without_a_daemon_a_run_ends_at_once_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_pool, "ABSENT_SECONDS", 0.2)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    with pytest.raises(ActorDied) as caught:
        await met(tmp_path, f"docker:{IMAGE}", Meeting(), pool="machines")
    said = describe(root_cause(caught.value.reason))
    assert "RunAborted" in said
    assert "is dockerd running, and does DOCKER_HOST name it?" in said


# --- e2b -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def e2b(mortal_stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    for name, value in mortal_stand_in.connection.items():
        monkeypatch.setenv(f"E2B_{name.upper()}", str(value))
    return mortal_stand_in


async def test_a_sandbox_is_removed(tmp_path: Path, e2b: StandIn) -> None:
    async def remove() -> None:
        (name,) = (await e2b.report()).sandboxes
        await AsyncSandbox.kill(name, **e2b.connection)

    check(await met(tmp_path, "e2b", Meeting(remove)), "machine_removed")
    assert (await e2b.report()).sandboxes == {}


async def test_the_provider_is_frozen(tmp_path: Path, e2b: StandIn) -> None:
    async def freeze() -> None:
        e2b.freeze()

    # One attempt: each takes the seconds after which silence is one.
    played = await met(tmp_path, "e2b", Meeting(freeze, repair=e2b.thaw), restarts=0, only=True)
    (one,) = played.episodes
    assert isinstance(one.outcome, InfraFailed)
    assert one.outcome.cause == "daemon_frozen"
    assert (await e2b.report()).sandboxes == {}


async def test_the_provider_is_killed(tmp_path: Path, e2b: StandIn) -> None:
    async def kill() -> None:
        e2b.kill()

    played = await met(tmp_path, "e2b", Meeting(kill), restarts=0, only=True)
    (one,) = played.episodes
    assert isinstance(one.outcome, InfraFailed)
    assert one.outcome.cause == "daemon_gone"
