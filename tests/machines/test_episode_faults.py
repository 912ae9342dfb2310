"""Whole episodes on machines that are killed, frozen and filled: the outcome names the cause, or another one is had.

In each run there are two episodes. The first meets the fault in both of the attempts that it has; the second meets it
in its first attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from docker_support import containers, first_pid
from e2b import AsyncSandbox
from e2b_fixtures import mortal_stand_in as mortal_stand_in
from e2b_fixtures import sdk as sdk
from machines_support import list_root, until
from ssh_support import nothing_left, own_connections
from support.docker_daemon import IMAGE, DockerDaemon
from support.e2b_stand_in import StandIn
from support.ssh_server import SshServer
from support.sums import Played, Sums, new_run, play, settings_for

from palmette.agents.conversation import ToolSchema
from palmette.agents.tools import Tool
from palmette.benchmarks.journal.records import EpisodeKey
from palmette.benchmarks.outcomes import AgentFailed, InfraFailed, Scored
from palmette.machines import Machine
from palmette.machines.evidence import Cause

WITHIN = 5.0
"""Seconds in which whoever waits for a command must know that its machine is lost."""
EAT = "b'x' * (1 << 30)"


async def nothing() -> None: ...


class Meeting:
    """What a run's episodes meet: a ``fault`` while ``command`` runs, and its ``repair`` once they know."""

    def __init__(
        self,
        fault: Callable[[], Awaitable[None]] = nothing,
        command: str = "echo here; exec sleep 60",
        repair: Callable[[], None] | None = None,
    ) -> None:
        self.fault = fault
        self.command = command
        self.seconds: list[float] = []
        """From each fault until whoever waited for the command knew."""
        self.repairs: list[asyncio.Future[None]] = []
        self._repair = repair

    def known(self, begun: float) -> None:
        self.seconds.append(time.monotonic() - begun)
        if self._repair is not None:
            self.repairs.append(asyncio.ensure_future(asyncio.to_thread(self._repair)))


class Interrupted:
    """A tool that runs a command before it does its work, and has the fault strike when the command runs."""

    def __init__(self, tool: Tool, machine: Machine, meeting: Meeting) -> None:
        self._tool = tool
        self._machine = machine
        self._meeting = meeting

    @property
    def schema(self) -> ToolSchema:
        return self._tool.schema

    async def run(self, arguments: str) -> str:
        here = asyncio.Event()
        command = asyncio.ensure_future(
            self._machine.exec(self._meeting.command, timeout=90, on_output=lambda stream, data: here.set())
        )
        await here.wait()
        await self._meeting.fault()
        begun = time.monotonic()
        try:
            await command
        finally:
            self._meeting.known(begun)
        return await self._tool.run(arguments)


async def met(
    folder: Path, image: str, meeting: Meeting, *, pool: str | None = None, restarts: int = 1, only: bool = False
) -> Played:
    """Play both episodes (or the first ``only``) on machines of ``image``."""

    def wrap(tools: Sequence[Tool], machine: Machine | None, key: EpisodeKey, attempt: int) -> Sequence[Tool]:
        assert machine is not None
        strikes = key.task == "sums/0" or attempt == 1
        return [Interrupted(each, machine, meeting) for each in tools] if strikes else tools

    journal, run = new_run(folder)
    settings = settings_for(
        run,
        Sums(1 if only else 2, machine=True),
        machine=image,
        wrap_tools=wrap,
        max_restarts=restarts,
        pool=pool,
        warm=0,
        seconds=60.0,
    )
    played = await play(settings, journal, concurrency=1, timeout=60.0)
    await asyncio.gather(*meeting.repairs)
    assert all(each < WITHIN for each in meeting.seconds), meeting.seconds
    return played


def check(played: Played, cause: Cause) -> None:
    """The first episode has failed for ``cause``; the second was scored in its second attempt."""
    first, second = played.episodes
    assert isinstance(first.outcome, InfraFailed)
    assert (first.outcome.cause, first.attempt) == (cause, 2)
    assert isinstance(second.outcome, Scored)
    assert (second.outcome.reward, second.attempt) == (1.0, 2)


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


@pytest.fixture
def small_root(root: Path) -> Iterator[Path]:
    """The place of machines is a file system of one megabyte."""
    root.mkdir(mode=0o700)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", root], check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here: that takes root")
    yield root
    subprocess.run(["umount", root], check=True)


async def test_the_disk_is_full(tmp_path: Path, small_root: Path) -> None:
    large = small_root / "large"

    async def fill() -> None:
        with contextlib.suppress(OSError), large.open("wb", 0) as file:
            file.write(bytes(2 << 20))

    (one,) = (await met(tmp_path, "local", Meeting(fill, "echo here"), only=True)).episodes
    assert isinstance(one.outcome, InfraFailed)
    assert one.outcome.cause == "disk_full"
    assert list_root(small_root) == ["large"]


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


async def test_a_container_that_is_killed_for_memory_is_its_agents_failure(
    tmp_path: Path, docker: DockerDaemon
) -> None:
    async def expose() -> None:
        # The kernel would take the larger process, and the machine would be well.
        (name,) = containers(docker)
        with open(f"/proc/{first_pid(docker, name)}/oom_score_adj", "w") as score:  # noqa: ASYNC230 - procfs
            score.write("1000")

    meeting = Meeting(expose, f'echo here; sleep 0.5; exec python3 -c "{EAT}"')
    played = await met(tmp_path, f"docker:{IMAGE}?pids=64&memory=32m", meeting, restarts=3, only=True)
    (one,) = played.episodes
    if isinstance(one.outcome, Scored):
        pytest.skip("the kernel has chosen the command all the same, and left the container alone")
    assert isinstance(one.outcome, AgentFailed)
    assert (one.outcome.cause, one.attempt) == ("out_of_memory", 1)


async def test_a_command_that_is_killed_for_memory_is_for_its_agent_to_deal_with(
    tmp_path: Path, docker: DockerDaemon
) -> None:
    meeting = Meeting(command=f'echo here; exec python3 -c "{EAT}"')
    played = await met(tmp_path, f"docker:{IMAGE}?pids=64&memory=64m", meeting, only=True)
    assert (played.tally.scored, played.tally.reward_sum, played.episodes[0].attempt) == (1, 1.0, 1)


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
