"""Everywhere that machines of ours can run, as one fixture: image strings, and the environment that goes with them.

A test module imports the fixture :func:`place`, and each of its tests that asks for it runs once per kind. Where a kind
cannot be had (no daemon, no bwrap), its tests are skipped and say why.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import msgspec
import pytest
from support.docker_daemon import IMAGE, DockerDaemon
from support.e2b_stand_in import StandIn
from support.ssh_server import SshServer

KINDS = ("local", "local+bwrap", "docker", "ssh", "e2b")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of machine, ready to be made."""

    kind: str
    image: str
    environment: dict[str, str] = {}
    """What a controller must have in its environment to make them."""
    server: DockerDaemon | SshServer | StandIn | None = None


# Of module scope: what it starts must be there before a test's own processes are counted.
@pytest.fixture(scope="module", params=KINDS)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """Each kind in turn."""
    kind: str = request.param
    match kind:
        case "docker":
            daemon: DockerDaemon = request.getfixturevalue("docker_daemon")
            image = f"docker:{IMAGE}?memory=256m&pids=256"
            yield Place(kind=kind, image=image, environment={"DOCKER_HOST": daemon.url}, server=daemon)
        case "ssh":
            server: SshServer = request.getfixturevalue("ssh_server")
            yield Place(kind=kind, image=server.image(), server=server)
        case "e2b":
            with StandIn.running() as stand_in:
                settings = {f"E2B_{name.upper()}": str(value) for name, value in stand_in.connection.items()}
                yield Place(kind=kind, image="e2b", environment=settings, server=stand_in)
        case _:
            if kind == "local+bwrap" and shutil.which("bwrap") is None:
                pytest.skip("there is no bwrap here; install the package `bubblewrap`")
            yield Place(kind=kind, image=kind)
