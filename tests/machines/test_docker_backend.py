"""A container as a place: how it is bounded, its channels, and what cannot be one."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from docker_support import (
    Make,
    backends,
    containers,
    inspected,
    looking,
    printed,
    rest,
    waiter,
)
from machines_support import until
from support.docker_daemon import DockerDaemon

from palmette.machines.docker import DockerBackend
from palmette.machines.errors import ImageUnusable, MachineError

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


async def test_a_container_is_bounded_and_closed_by_default(
    daemon: DockerDaemon, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    proxies = {"proxies": {"default": {"httpProxy": "http://me:sk-secret@proxy:3128"}}}
    (tmp_path / "config.json").write_text(json.dumps(proxies))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    backend = make(cpus=0.5)
    place = await backend.start()
    assert (place.workdir, place.root, place.network) == ("/work", "/", False)
    assert (place.cpus, place.memory) == (0.5, 256 << 20)
    assert place.environment["OMP_NUM_THREADS"] == "1"
    seen = json.loads(
        await printed(
            backend,
            "import json, os; status = open('/proc/self/status').read();"
            "print(json.dumps({'env': dict(os.environ), 'net': sorted(os.listdir('/sys/class/net')), 'status':"
            " dict(line.split(':\\t', 1) for line in status.splitlines())}))",
        )
    )
    assert seen["status"]["CapBnd"] == "0" * 16
    assert seen["status"]["NoNewPrivs"] == "1"
    assert seen["status"]["Seccomp"] == "2"
    assert "lo" in seen["net"]
    assert not [name for name in seen["net"] if name.startswith("eth")]
    assert seen["env"].keys() <= {"PATH", "HOSTNAME", "HOME", "LC_CTYPE"}
    state = inspected(daemon, backend.container)
    host = state["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (256 << 20, 256 << 20, 64)
    assert host["NanoCpus"] == 500_000_000
    assert (host["AutoRemove"], host["Privileged"], host["Binds"]) == (True, False, None)
    assert "sk-secret" not in json.dumps(state)


async def test_the_labels_say_whose_it_is(daemon: DockerDaemon, place: DockerBackend) -> None:
    labels = inspected(daemon, place.container)["Config"]["Labels"]
    assert labels == {
        "palmette.machine": place.id,
        "palmette.owner": "test-run",
        "palmette.kind": "machine",
        "palmette.lease": "60",
    }


async def test_an_ordinary_user_has_a_place_to_write(make: Make) -> None:
    backend = make(user="user")
    place = await backend.start()
    script = f"import os; os.makedirs({place.workdir!r}); print(os.getuid(), open('/dev/shm/palmette.lease', 'a'))"
    assert (await printed(backend, script)).startswith("1000 ")


async def test_a_channel_carries_bytes_both_ways_and_keeps_errors_apart(place: DockerBackend) -> None:
    script = (
        "import sys; sys.stderr.write('careful\\n'); sys.stderr.flush()\n"
        "for _ in range(2): sys.stdout.buffer.write(sys.stdin.buffer.read1()[::-1]); sys.stdout.buffer.flush()"
    )
    channel = await place.open_channel(["python3", "-c", script])
    await channel.write(b"\0\1\2")
    assert await channel.read() == b"\2\1\0"
    await channel.write(b"end")
    assert await rest(channel) == b"dne"
    assert channel.complaint == "careful"
    await channel.close()


async def test_megabytes_pass_while_both_sides_write(place: DockerBackend) -> None:
    channel = await place.open_channel(["cat"])
    sent = os.urandom(1 << 20) * 4

    async def send() -> None:
        await channel.write(sent)

    sender = asyncio.create_task(send())
    got = bytearray()
    async with asyncio.timeout(30):
        while len(got) < len(sent):
            got += await channel.read()
    await sender
    assert got == sent
    await channel.close()


async def test_a_cancelled_read_loses_nothing(place: DockerBackend) -> None:
    channel = await place.open_channel(["cat"])
    got = b""
    for number in range(20):
        reader = asyncio.create_task(channel.read())
        await asyncio.sleep(0)
        await channel.write(b"%d " % number)
        for _ in range(number % 5):
            await asyncio.sleep(0)
        reader.cancel()
        try:
            got += await reader
        except asyncio.CancelledError:
            continue
    while len(got) < len("".join(f"{number} " for number in range(20))):
        got += await channel.read()
    assert got.decode() == "".join(f"{number} " for number in range(20))
    await channel.close()


async def test_closing_a_channel_ends_the_programs_input(place: DockerBackend) -> None:
    channel = await waiter(place, "import sys; print('here', flush=True); sys.stdin.read(); open('/over', 'w')")
    await channel.close()
    await channel.close()
    poll = "import os, time\nwhile not os.path.exists('/over'): time.sleep(0.01)\nprint('over')"
    assert await printed(place, poll) == "over\n"
    with pytest.raises(ConnectionError):
        await channel.write(b"more")


async def test_a_program_that_cannot_start_is_a_complaint_and_not_output(place: DockerBackend) -> None:
    channel = await place.open_channel(["no-such-program"])
    assert await rest(channel) == b""
    assert "no-such-program" in channel.complaint
    assert await place.examine() is None
    await channel.close()


async def test_a_missing_image_is_not_worth_another_try(daemon: DockerDaemon, make: Make) -> None:
    with pytest.raises(ImageUnusable, match="docker pull no-such-image:1") as caught:
        await make(image="no-such-image:1").start()
    assert not caught.value.retryable


async def test_an_image_without_python_is_not_worth_another_try(daemon: DockerDaemon, make: Make) -> None:
    with looking(daemon) as client:
        client.import_image_from_data(_empty_archive(), repository="palmette-test", tag="bare")
    with pytest.raises(ImageUnusable, match="no python3 on its PATH"):
        await make(image="palmette-test:bare").start()
    assert containers(daemon) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"user": "nobody-at-all"}, "unable to find user"),
        ({"cpus": 4096.0}, "CPUs"),
        ({"network": "no-such-network"}, "no-such-network"),
        ({"cap_add": ("NO_SUCH_CAPABILITY",)}, "(?i)capability"),
    ],
)
async def test_options_that_the_daemon_refuses_are_not_tried_again(
    daemon: DockerDaemon, make: Make, options: dict[str, object], said: str
) -> None:
    with pytest.raises(MachineError, match=said) as caught:
        await make(**options).start()
    assert not caught.value.retryable
    assert containers(daemon) == []


async def test_a_cancelled_start_leaves_nothing(daemon: DockerDaemon, make: Make) -> None:
    backend = make()
    start = asyncio.create_task(backend.start())
    await until(lambda: containers(daemon) != [], "the container to exist")
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert containers(daemon) == []


async def test_stopping_twice_is_fine_and_so_is_stopping_what_never_started(make: Make) -> None:
    backend = make()
    await backend.stop()
    await backend.start()
    await asyncio.gather(backend.stop(), backend.stop())
    await backend.stop()


def _empty_archive() -> bytes:
    import io
    import tarfile

    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("empty"))
    return target.getvalue()
