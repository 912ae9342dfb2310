"""What the tests of ssh machines share: backends on a server, and the proof that nothing of them is left."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from machines_support import tagged, until
from support.ssh_server import SshServer

from palmette.machines.evidence import Evidence
from palmette.machines.identity import MachineId
from palmette.machines.ssh import SshBackend
from palmette.machines.ssh.address import parse_image

WITHIN = 5.0
"""Seconds within which everybody must know that a machine is lost."""


def backend_for(image: str) -> SshBackend:
    """Not started."""
    return SshBackend(parse_image(image.removeprefix("ssh://")), str(MachineId.new("test-ssh")))


def directories(pid: int | None = None) -> list[str]:
    """Machines of the controller ``pid``, of this process by default, that have a directory on the "host"."""
    return [name for name in os.listdir("/tmp") if name.startswith("palmette-") and f".{pid or os.getpid()}." in name]


def threads() -> list[str]:
    """Threads of the ssh backend and of paramiko."""
    return [
        thread.name
        for thread in threading.enumerate()
        if thread.name.startswith("palmette-ssh") or type(thread).__module__.startswith("paramiko")
    ]


async def nothing_left(server: SshServer, pid: int | None = None) -> None:
    """Wait until nothing of this process's machines is left: directory, process, connection, thread."""
    await until(lambda: directories(pid) == [], "every directory on the host to be gone")
    await until(lambda: tagged(f".{pid or os.getpid()}.") == [], "every tagged process to be gone")
    await until(lambda: server.sessions() == [], "every connection to be closed")
    if pid is None:
        await until(lambda: threads() == [], "every thread to have ended")


@asynccontextmanager
async def started(image: str) -> AsyncGenerator[SshBackend]:
    """A started backend; stopped afterwards."""
    backend = backend_for(image)
    await backend.start()
    try:
        yield backend
    finally:
        await backend.stop()


class Stopwatch:
    """How long something took at most: for deadlines that are part of a promise."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def check(self, seconds: float = WITHIN) -> None:
        assert time.monotonic() - self._begun < seconds


def is_one_of(*causes: str) -> Callable[[Evidence | None], bool]:
    return lambda evidence: evidence is not None and evidence.cause in causes


def own_connections(server: SshServer) -> list[int]:
    """Descriptors of this process's connections to ``server``."""
    wanted = f"0100007F:{server.port:04X}"
    inodes = {
        line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[2] == wanted
    }
    found: list[int] = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if target.removeprefix("socket:[").removesuffix("]") in inodes:
            found.append(int(name))
    return found
