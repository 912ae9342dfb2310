"""Backends on the tests' own daemon, and talk with programs in their containers through channels alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from support.docker_daemon import IMAGE, DockerDaemon

from palmette.machines.docker import DockerBackend
from palmette.machines.docker.channel import DockerChannel
from palmette.machines.docker.options import DockerOptions
from palmette.machines.docker.reaper import MACHINE_LABEL
from palmette.machines.identity import MachineId

if TYPE_CHECKING:
    from docker import APIClient

# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

HERE = Path(__file__).parent
OPTIONS = DockerOptions(image=IMAGE, memory=256 << 20, pids=64)
Make = Callable[..., DockerBackend]


@contextlib.contextmanager
def looking(daemon: DockerDaemon) -> Generator[APIClient]:
    """The SDK, past palmette."""
    with contextlib.closing(daemon.client()) as client:
        yield client


def containers(daemon: DockerDaemon) -> list[str]:
    """Names of all of ours that the daemon has, in whatever state."""
    with looking(daemon) as client:
        found = client.containers(all=True, filters={"label": MACHINE_LABEL})
        return sorted(str(one["Names"][0]).lstrip("/") for one in found if one["Names"])


def images(daemon: DockerDaemon) -> list[str]:
    """Tags of all images that were made of containers of ours."""
    with looking(daemon) as client:
        found = client.images(filters={"label": MACHINE_LABEL})
        return sorted(tag for one in found for tag in one["RepoTags"] or ())


def first_pid(daemon: DockerDaemon, name: str) -> int:
    """Of a container's first process, as the host sees it."""
    return int(inspected(daemon, name)["State"]["Pid"])


def inspected(daemon: DockerDaemon, name: str) -> dict[str, Any]:
    with looking(daemon) as client:
        return client.inspect_container(name)


@contextlib.asynccontextmanager
async def backends(daemon: DockerDaemon) -> AsyncGenerator[Make]:
    """Makes backends on ``daemon`` that the test need not stop; nothing of them is left afterwards."""
    made: list[DockerBackend] = []

    def make(*, lease: float = 60.0, **options: object) -> DockerBackend:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOCKER_HOST", daemon.url)
            chosen = msgspec.structs.replace(OPTIONS, **options)
            made.append(DockerBackend(chosen, new_id(), lease=lease))
        return made[-1]

    yield make
    await asyncio.gather(*(one.stop() for one in made))
    assert containers(daemon) == []
    assert images(daemon) == []


def new_id() -> str:
    return str(MachineId.new("test-run"))


async def printed(backend: DockerBackend, script: str, *, user_input: bytes = b"") -> str:
    """What a Python script in the container prints, to its end."""
    channel = await backend.open_channel(["python3", "-c", script])
    try:
        if user_input:
            await channel.write(user_input)
        return (await rest(channel)).decode()
    finally:
        await channel.close()


async def rest(channel: DockerChannel) -> bytes:
    """All that still comes."""
    pieces: list[bytes] = []
    async with asyncio.timeout(30):
        while piece := await channel.read():
            pieces.append(piece)
    return b"".join(pieces)


async def line(channel: DockerChannel) -> str:
    """One line, for programs that print one and wait."""
    text = b""
    async with asyncio.timeout(30):
        while not text.endswith(b"\n"):
            piece = await channel.read()
            assert piece, f"the program ended after {text!r}: {channel.complaint}"
            text += piece
    return text.decode().strip()


WAITER = "import sys; print('here', flush=True); sys.stdin.read()"
"""A program that says that it runs, and waits for the end of its input."""


async def waiter(backend: DockerBackend, script: str = WAITER) -> DockerChannel:
    """A running one."""
    channel = await backend.open_channel(["python3", "-c", script])
    assert await line(channel) == "here"
    return channel


class Left(msgspec.Struct):
    """By a controller that was killed."""

    containers: list[str]
    image: str


def killed_controller(daemon: DockerDaemon) -> Left:
    """What a controller had made when it was killed with ``kill -9``."""
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "DOCKER_HOST": daemon.url, "PYTHONPATH": path}
    with subprocess.Popen(
        [sys.executable, str(HERE / "docker_controller.py")],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as controller:  # fmt: skip
        assert controller.stdout is not None
        try:
            return msgspec.json.decode(controller.stdout.readline(), type=Left)
        finally:
            controller.kill()
