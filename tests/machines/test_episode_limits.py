"""Episodes on machines that run out of disk or memory: what the agent is told, and what the outcome is.

A command that used up what its machine has is the agent's own doing: it is told so, and may go on. Where the host has
no room for a machine, that is infrastructure.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker_support import containers, first_pid
from episode_support import Meeting, met
from machines_support import list_root
from ssh_support import nothing_left
from support.docker_daemon import IMAGE, DockerDaemon, running_daemon
from support.ssh_server import SshServer
from support.sums import Played

from palmette.benchmarks.outcomes import AgentFailed, InfraFailed
from palmette.machines.evidence import Cause

EAT = 'exec python3 -c "x = bytearray(1 << 30); print(len(x))"'
FILL = "echo here; exec dd if=/dev/zero of=large bs=64k"


def dealt_with(meeting: Meeting, played: Played, cause: Cause) -> None:
    """The command failed, its agent was told why, and the episode was scored all the same, in its first attempt."""
    (result,) = meeting.results
    assert not result.ok
    assert result.evidence is not None
    assert (result.evidence.cause, result.evidence.agents_doing) == (cause, True)
    assert (played.tally.scored, played.tally.reward_sum, played.episodes[0].attempt) == (1, 1.0, 1)


# --- disk ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_root(root: Path) -> Iterator[Path]:
    """The place of machines, here and over ssh, is a file system of one megabyte."""
    root.mkdir(mode=0o700)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", root], check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here: that takes root")
    yield root
    subprocess.run(["umount", root], check=True)


def fill(directory: Path) -> None:
    with contextlib.suppress(OSError), (directory / "large").open("wb", 0) as file:
        file.write(bytes(2 << 20))


async def test_the_disk_is_full(tmp_path: Path, small_root: Path) -> None:
    async def strike() -> None:
        fill(small_root)

    (one,) = (await met(tmp_path, "local", Meeting(strike, "echo here"), only=True)).episodes
    assert isinstance(one.outcome, InfraFailed)
    assert one.outcome.cause == "disk_full"
    assert list_root(small_root) == ["large"]


needs_bwrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="there is no bwrap here")


@needs_bwrap
async def test_namespaces_that_a_command_has_filled_are_for_its_agent_to_deal_with(
    tmp_path: Path, small_root: Path
) -> None:
    meeting = Meeting(command=FILL, afterwards="rm large")
    dealt_with(meeting, await met(tmp_path, "local+bwrap", meeting, only=True), "disk_full")
    assert list_root(small_root) == []


async def test_a_directory_on_a_host_that_a_command_has_filled_is_for_its_agent_to_deal_with(
    tmp_path: Path, small_root: Path, ssh_server: SshServer
) -> None:
    meeting = Meeting(command=FILL, afterwards="rm large")
    image = ssh_server.image(f"directory={small_root}")
    dealt_with(meeting, await met(tmp_path, image, meeting, only=True), "disk_full")
    await nothing_left(ssh_server)
    assert list_root(small_root) == []


async def test_a_container_that_a_command_has_filled_is_for_its_agent_to_deal_with(
    tmp_path: Path, docker_image: Path, mortal_docker_home: DockerDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_daemon(docker_image, disk="110m") as daemon:
        monkeypatch.setenv("DOCKER_HOST", daemon.url)
        meeting = Meeting(command=FILL, afterwards="rm large")
        dealt_with(meeting, await met(tmp_path, f"docker:{IMAGE}?pids=64", meeting, only=True), "disk_full")
        assert containers(daemon) == []


@needs_bwrap
async def test_where_there_is_no_room_for_namespaces_the_outcome_says_so(tmp_path: Path, small_root: Path) -> None:
    fill(small_root)
    (one,) = (await met(tmp_path, "local+bwrap", Meeting(), only=True)).episodes
    assert isinstance(one.outcome, InfraFailed)
    assert one.outcome.cause == "disk_full"
    assert list_root(small_root) == ["large"]


# --- memory ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def daemon(docker_daemon: DockerDaemon) -> DockerDaemon:
    return docker_daemon


@pytest.fixture
def docker(daemon: DockerDaemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[DockerDaemon]:
    monkeypatch.setenv("DOCKER_HOST", daemon.url)
    yield daemon
    assert containers(daemon) == []


async def test_a_container_that_is_killed_for_memory_is_its_agents_failure(
    tmp_path: Path, docker: DockerDaemon
) -> None:
    async def expose() -> None:
        (name,) = containers(docker)
        with open(f"/proc/{first_pid(docker, name)}/oom_score_adj", "w") as score:  # noqa: ASYNC230 - procfs
            score.write("1000")

    # The kernel takes the process with the highest score: with this the container's first, and not the one that eats.
    meeting = Meeting(expose, f"echo here; echo 0 >/proc/self/oom_score_adj; sleep 0.5; {EAT}")
    played = await met(tmp_path, f"docker:{IMAGE}?pids=64&memory=32m", meeting, restarts=3, only=True)
    (one,) = played.episodes
    assert isinstance(one.outcome, AgentFailed)
    assert (one.outcome.cause, one.attempt) == ("out_of_memory", 1)


async def test_a_command_in_a_container_that_is_killed_for_memory_is_for_its_agent_to_deal_with(
    tmp_path: Path, docker: DockerDaemon
) -> None:
    meeting = Meeting(command=f"echo here; {EAT}")
    played = await met(tmp_path, f"docker:{IMAGE}?pids=64&memory=64m", meeting, only=True)
    dealt_with(meeting, played, "out_of_memory")


@pytest.fixture
def bounded_sshd(ssh_server: SshServer, mortal_sshd: SshServer) -> Iterator[SshServer]:
    """A server in a control group with 128 MB of memory, and so all that it starts."""
    memory = Path("/sys/fs/cgroup/memory")
    group = memory / f"palmette-test-{secrets.token_hex(4)}"
    try:
        group.mkdir()
    except OSError:
        pytest.skip("no control group for memory can be made here")
    (group / "memory.limit_in_bytes").write_text(str(128 << 20))
    (group / "cgroup.procs").write_text(str(mortal_sshd.pid))
    yield mortal_sshd
    (memory / "cgroup.procs").write_text(str(mortal_sshd.pid))
    group.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a control group")
async def test_a_command_on_a_host_that_is_killed_for_memory_is_for_its_agent_to_deal_with(
    tmp_path: Path, bounded_sshd: SshServer
) -> None:
    meeting = Meeting(command=f"echo here; {EAT}")
    dealt_with(meeting, await met(tmp_path, bounded_sshd.image(), meeting, only=True), "out_of_memory")
    await nothing_left(bounded_sshd)
