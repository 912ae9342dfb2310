"""What ends a container and what does not, what is left of it, and what goes on from it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator

import pytest
from docker_support import (
    Make,
    backends,
    containers,
    first_pid,
    images,
    inspected,
    looking,
    new_id,
    printed,
    rest,
    waiter,
)
from machines_support import until
from support.docker_daemon import DockerDaemon

from palmette.machines.docker import DockerBackend
from palmette.machines.docker.reaper import delete_snapshot
from palmette.machines.errors import MachineLost
from palmette.machines.evidence import Evidence

# pyright: reportUnknownMemberType=false


@pytest.fixture(scope="module", autouse=True)
def daemon(docker_daemon: DockerDaemon) -> DockerDaemon:
    return docker_daemon


@pytest.fixture
async def make(daemon: DockerDaemon) -> AsyncIterator[Make]:
    async with backends(daemon) as make:
        yield make


@pytest.fixture
async def place(make: Make) -> DockerBackend:
    """A started container."""
    backend = make()
    await backend.start()
    return backend


@pytest.mark.parametrize(
    ("how", "cause", "said"),
    [
        ("kill", "machine_killed", "docker kill"),
        ("remove", "machine_killed", "docker rm -f"),
        ("stop", "machine_killed", "docker stop"),
        ("host", "machine_killed", "exit code 137, and not through the daemon"),
    ],
)
async def test_whoever_waits_on_a_container_that_is_killed_learns_the_cause(
    daemon: DockerDaemon, place: DockerBackend, how: str, cause: str, said: str
) -> None:
    channel = await waiter(place)
    with looking(daemon) as client:
        if how == "kill":
            client.kill(place.container)
        elif how == "remove":
            client.remove_container(place.container, force=True)
        elif how == "stop":
            client.stop(place.container, timeout=0)
        else:
            os.kill(first_pid(daemon, place.container), signal.SIGKILL)
    async with asyncio.timeout(5.0):
        assert await channel.read() == b""
        evidence = await place.examine()
    assert evidence is not None
    assert (evidence.cause, evidence.agents_doing) == (cause, False)
    assert said in evidence.detail
    with pytest.raises(MachineLost) as caught:
        await place.open_channel(["true"])
    assert caught.value.evidence is not None
    assert caught.value.evidence.cause in ("machine_removed", "machine_killed")


async def test_a_paused_container_is_found_out(daemon: DockerDaemon, place: DockerBackend) -> None:
    with looking(daemon) as client:
        client.pause(place.container)
        evidence = await place.examine()
        client.unpause(place.container)
    assert evidence is not None
    assert "docker unpause" in evidence.detail
    assert await place.examine() is None


async def test_a_program_killed_for_memory_leaves_the_place_well(make: Make) -> None:
    backend = make(memory=32 << 20)
    await backend.start()
    assert await printed(backend, "print(len(b'x' * (200 << 20)))") == ""
    assert await backend.examine() is None


async def test_a_container_killed_for_memory_is_its_agents_doing(daemon: DockerDaemon, make: Make) -> None:
    backend = make(memory=32 << 20)
    await backend.start()
    with open(f"/proc/{first_pid(daemon, backend.container)}/oom_score_adj", "w") as score:  # noqa: ASYNC230 - procfs
        score.write("1000")  # or the kernel would take the larger one
    channel = await backend.open_channel(["python3", "-c", "b'x' * (200 << 20)"])
    await rest(channel)
    evidence = await backend.examine()
    assert evidence is not None
    assert (evidence.cause, evidence.agents_doing) == ("out_of_memory", True)


async def test_nothing_inside_can_kill_the_place(place: DockerBackend) -> None:
    channel = await waiter(place)
    for number in ("KILL", "TERM", "INT"):
        await printed(place, f"import os, signal; os.kill(1, signal.SIG{number})")
    assert await printed(place, "import os; os.kill(-1, 9)") == ""
    assert await channel.read() == b""
    assert await place.examine() is None
    assert await printed(place, "print('still here')") == "still here\n"
    await channel.close()


async def test_the_first_process_buries_orphans(place: DockerBackend) -> None:
    script = (
        "import os, time\n"
        "if not os.fork():\n"
        "    if not os.fork(): os._exit(0)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "def state(pid):\n"
        "    try: return open(f'/proc/{pid}/stat').read()\n"
        "    except OSError: return ''\n"  # buried between two looks
        "while any(') Z 1 ' in state(pid) for pid in os.listdir('/proc') if pid.isdigit()): time.sleep(0.01)\n"
        "print('buried')"
    )
    assert await printed(place, script) == "buried\n"


async def test_kill_all_ends_everything_inside_and_keeps_the_files(place: DockerBackend) -> None:
    await printed(place, "open('/kept', 'w').write('text')")
    script = (
        "import os, signal, time\n"
        "for number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)\n"
        "if not os.fork(): os.setsid(), os.close(0), os.fork(), time.sleep(1000)\n"
        "print('here', flush=True)\n"
        "time.sleep(1000)"
    )
    channel = await waiter(place, script)
    await place.kill_all()
    await rest(channel)
    await channel.close()
    assert await place.examine() is None
    count = "import os; print(sum(p.isdigit() for p in os.listdir('/proc')), open('/kept').read())"
    assert await printed(place, count) == "2 text\n"


async def test_a_container_without_word_of_its_controller_ends_itself(daemon: DockerDaemon, make: Make) -> None:
    backend = make(lease=1.0)
    await backend.start()
    channel = await waiter(backend)
    async with asyncio.timeout(20.0):
        assert await channel.read() == b""
    evidence = await backend.examine()
    assert evidence is not None
    assert evidence.cause == "expired"
    await until(lambda: containers(daemon) == [], "the container to remove itself")


async def test_a_lease_that_is_renewed_or_frozen_does_not_run_out(daemon: DockerDaemon, make: Make) -> None:
    """Frozen: as for a snapshot that takes longer than the lease."""
    renewed, frozen = make(lease=1.0), make(lease=2.0)
    place, _ = await asyncio.gather(renewed.start(), frozen.start())
    with looking(daemon) as client:
        client.pause(frozen.container)
        began = time.monotonic()
        touch = f"(os.utime({place.lease_file!r}), time.sleep(0.1))"
        script = f"import os, time; [{touch} for _ in range(15)]; print('here', flush=True); {touch}"
        channel = await waiter(renewed, script)
        assert await renewed.examine() is None
        await asyncio.sleep(2.2 - (time.monotonic() - began))
        client.unpause(frozen.container)
    assert await frozen.examine() is None
    await channel.close()


async def test_a_snapshot_keeps_the_files_and_the_container_goes_on(
    daemon: DockerDaemon, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", daemon.url)
    first = make()
    await first.start()
    channel = await waiter(first)
    await printed(first, "open('/kept', 'w').write('text')")
    image = await first.snapshot("one")
    assert image == "docker:palmette-snapshot:one?memory=256m&pids=64"
    assert images(daemon) == ["palmette-snapshot:one"]
    await channel.write(b"still there")
    await channel.close()
    await first.stop()
    second = make(image="palmette-snapshot:one")
    await second.start()
    assert await printed(second, "print(open('/kept').read())") == "text\n"
    assert inspected(daemon, second.container)["Config"]["Labels"]["palmette.kind"] == "machine"
    await second.stop()
    await delete_snapshot(image)
    await delete_snapshot(image)
    with pytest.raises(ValueError, match="palmette-snapshot"):
        await delete_snapshot("docker:palmette-test:python")


async def test_a_fork_has_the_files_and_goes_its_own_way(daemon: DockerDaemon, place: DockerBackend) -> None:
    await printed(place, "open('/kept', 'w').write('text')")
    twin = await place.fork(new_id())
    try:
        assert await printed(twin, "print(open('/kept').read(), open('/kept', 'w').write('other'))") == "text 5\n"
        assert await printed(place, "print(open('/kept').read())") == "text\n"
        second = await twin.fork(new_id())
        await twin.stop()
        assert containers(daemon) == sorted([place.container, second.container])
        assert await printed(second, "print(open('/kept').read())") == "other\n"
        await second.stop()
    finally:
        await twin.stop()
    assert images(daemon) == []


async def test_a_fork_of_what_is_gone_leaves_nothing(daemon: DockerDaemon, place: DockerBackend) -> None:
    with looking(daemon) as client:
        client.remove_container(place.container, force=True)
    with pytest.raises(MachineLost) as caught:
        await place.fork(new_id())
    assert isinstance(caught.value.evidence, Evidence)
    assert caught.value.evidence.cause == "machine_removed"
    assert images(daemon) == []
