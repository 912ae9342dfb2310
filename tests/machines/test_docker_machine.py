"""The whole machine in a container: what a caller of ``machine_for("docker:...")`` meets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest
from docker_support import containers, images, looking
from support.docker_daemon import IMAGE, DockerDaemon

from palmette.machines import Machine, StreamName, machine_for
from palmette.machines.docker.reaper import delete_snapshot
from palmette.machines.errors import ImageUnusable, MachineLost

# pyright: reportUnknownMemberType=false

Make = Callable[..., Machine]


@pytest.fixture(scope="module", autouse=True)
def daemon(docker_daemon: DockerDaemon) -> DockerDaemon:
    return docker_daemon


@pytest.fixture
async def make(daemon: DockerDaemon, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    """Makes machines that the test need not stop; nothing of them is left afterwards."""
    monkeypatch.setenv("DOCKER_HOST", daemon.url)
    made: list[Machine] = []

    def make(options: str = "memory=128m&pids=64") -> Machine:
        made.append(machine_for(f"docker:{IMAGE}?{options}", owner="test-run"))
        return made[-1]

    yield make
    await asyncio.gather(*(one.stop() for one in made))
    assert containers(daemon) == []
    assert images(daemon) == []


@pytest.fixture
async def machine(make: Make) -> Machine:
    """A machine that runs."""
    one = make()
    await one.start()
    return one


def container_of(machine: Machine) -> str:
    return f"palmette-{machine.id}"


async def test_a_command_runs_and_files_go_in_and_out(machine: Machine) -> None:
    await machine.put("in.txt", b"6 7")
    result = await machine.exec("read a b <in.txt; echo $((a * b)) >out.txt; echo done; echo careful >&2; exit 3")
    assert (result.exit_code, result.stdout, result.stderr) == (3, b"done\n", b"careful\n")
    assert await machine.get("out.txt") == b"42\n"
    description = await machine.describe()
    assert (description.backend, description.isolation, description.snapshot_grade) == (
        "docker",
        "container",
        "filesystem",
    )
    assert (description.workdir, description.memory, description.cpus, description.network) == (
        "/work",
        128 << 20,
        1.0,
        False,
    )
    assert (await machine.exec("echo $OMP_NUM_THREADS")).text == "1\n"
    assert await machine.probe() < 5.0


async def test_a_command_that_uses_up_the_memory_is_told_so_and_the_machine_is_well(machine: Machine) -> None:
    result = await machine.exec(["python3", "-c", "b'x' * (1 << 30)"], timeout=30)
    assert result.signal == 9
    assert result.evidence is not None
    assert (result.evidence.cause, result.evidence.agents_doing) == ("out_of_memory", True)
    assert (await machine.exec("echo well")).text == "well\n"


async def test_a_command_that_meets_the_limit_of_processes_is_told_so_and_leaves_none(machine: Machine) -> None:
    result = await machine.exec("for i in $(seq 200); do sleep 1000 & done; wait", timeout=20)
    assert result.evidence is not None
    assert (result.evidence.cause, result.evidence.agents_doing) == ("too_many_processes", True)
    assert (await machine.exec("echo well")).text == "well\n"


async def test_a_command_that_kills_all_it_can_is_told_so_and_the_machine_goes_on(machine: Machine) -> None:
    await machine.put("kept", b"text")
    result = await machine.exec(["python3", "-c", "import os; os.kill(-1, 9)"], timeout=20)
    assert result.evidence is not None
    assert result.evidence.cause == "runner_killed"
    try:
        assert await machine.get("kept") == b"text"
        assert (await machine.exec("echo well")).text == "well\n"
    except MachineLost as lost:
        # Once, on a busy machine, the container had stopped by then: a machine that is lost says so, and why.
        if lost.evidence is None:
            raise


async def test_a_timeout_leaves_nothing_of_the_command(machine: Machine) -> None:
    result = await machine.exec("setsid sleep 1234 & env -i setsid sleep 1234 & echo started; sleep 1234", timeout=0.5)
    assert (result.timed_out, result.stdout) == (True, b"started\n")
    assert "1234" not in (await machine.exec("ps -o args")).text


@pytest.mark.parametrize("how", ["kill", "remove"])
async def test_a_container_killed_from_outside_is_infrastructure_and_its_cause_is_named(
    daemon: DockerDaemon, machine: Machine, how: str
) -> None:
    started = asyncio.Event()

    def heard(stream: StreamName, data: bytes) -> None:
        started.set()

    running = asyncio.create_task(machine.exec("echo here; sleep 1000", timeout=600, on_output=heard))
    await started.wait()
    began = time.monotonic()
    with looking(daemon) as client:
        if how == "kill":
            client.kill(container_of(machine))
        else:
            client.remove_container(container_of(machine), force=True)
    with pytest.raises(MachineLost, match=r"docker (kill|rm)") as caught:
        await running
    assert time.monotonic() - began < 5.0
    assert caught.value.evidence is not None
    assert (caught.value.evidence.cause, caught.value.evidence.agents_doing) == ("machine_killed", False)
    with pytest.raises(MachineLost):
        await machine.exec("true")
    with pytest.raises(MachineLost):
        await machine.probe()


async def test_a_snapshot_starts_another_machine_and_a_fork_goes_its_own_way(machine: Machine) -> None:
    await machine.exec("echo text >kept; echo system >/etc/kept")
    snapshot = await machine.snapshot(minimum="filesystem")
    assert snapshot.grade == "filesystem"
    twin = await machine.fork()
    other = machine_for(snapshot.image, owner="test-run")
    try:
        assert twin.id != machine.id
        assert (await twin.exec("cat kept /etc/kept; echo mine >kept")).text == "text\nsystem\n"
        assert (await machine.exec("cat kept")).text == "text\n"
        await other.start()
        assert (await other.exec("cat kept /etc/kept")).text == "text\nsystem\n"
    finally:
        await twin.stop()
        await other.stop()
        await delete_snapshot(snapshot.image)


async def test_a_missing_image_is_unusable(make: Make) -> None:
    machine = machine_for("docker:no-such-image", owner="test-run")
    with pytest.raises(ImageUnusable, match="docker pull no-such-image"):
        await machine.start()
    await machine.stop()
