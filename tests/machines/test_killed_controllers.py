"""Whenever a controller is killed: when its leases are over, and what is left was reaped, there is nothing of it.

``PALMETTE_KILLS=200`` kills so many controllers in all (``make test-long``); a fifth of that otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
from pathlib import Path

import msgspec
import pytest
from controllers_to_kill import LEASE
from docker_support import containers, images, looking
from e2b_fixtures import sdk as sdk
from machines_support import groups_of, list_root, tagged, until
from ssh_support import directories
from support.docker_daemon import DockerDaemon
from support.e2b_stand_in import StandIn
from support.places import Place
from support.places import place as place
from support.ssh_server import SshServer

from palmette.machines.docker.reaper import MACHINE_LABEL
from palmette.machines.leftovers import reap_backend

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

KILLS = int(os.environ.get("PALMETTE_KILLS", "40"))
SHARES = {"local": 0.35, "local+bwrap": 0.3, "docker": 0.1, "ssh": 0.125, "e2b": 0.125}
AT_ONCE = {"local": 5, "local+bwrap": 4, "docker": 4, "ssh": 5, "e2b": 5}
HERE = Path(__file__).parent


class Killed(msgspec.Struct):
    pids: list[int]
    unkilled: int


@pytest.mark.timeout(120 + 3 * KILLS)
async def test_nothing_of_a_killed_controller_outlives_its_lease(
    sdk: None, place: Place, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = random.randrange(2**31)
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    count = max(1, round(KILLS * SHARES[place.kind]))
    program = await asyncio.create_subprocess_exec(
        sys.executable, str(HERE / "controllers_to_kill.py"), place.kind, place.image, str(count),
        str(AT_ONCE[place.kind]), str(seed),
        env={**os.environ, "PYTHONPATH": path}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    killed = msgspec.json.decode((await program.communicate())[0], type=Killed)
    assert killed.unkilled == 0, "each lived until it was killed"
    assert len(killed.pids) == count

    # Where there is a lease, nothing runs after it, without any help.
    if place.kind not in ("local", "local+bwrap"):
        await until(lambda: runs(place, killed.pids) == [], f"the leases to be over (seed {seed})", timeout=LEASE + 20)
    for owner in ("to-kill", "probe"):  # by name: others of this host are none of our business
        assert (await reap_backend(place.image, owner=owner)).failed == ()
    with contextlib.suppress(AssertionError):  # the list says more
        await until(lambda: left(place, root, killed.pids) == [], "nothing to be left", timeout=5)
    assert left(place, root, killed.pids) == [], f"seed {seed}"
    if isinstance(place.server, StandIn):
        assert (await place.server.report()).sandboxes == {}
        await place.server.forget()  # the SDK's pool would keep its connections


def runs(place: Place, pids: list[int]) -> list[str]:
    """What runs of theirs."""
    match place.server:
        case DockerDaemon():
            with looking(place.server) as client:
                return [str(one["Names"]) for one in client.containers(filters={"label": MACHINE_LABEL})]
        case _:
            return [str(one) for pid in pids for one in tagged(f".{pid}.")]


def left(place: Place, root: Path, pids: list[int]) -> list[str]:
    """All that is there of theirs: processes, control groups, directories, mounts, containers, images."""
    found = runs(place, pids) + list_root(root)
    mounts = Path("/proc/self/mountinfo").read_text()
    found += [f"mount of {pid}" for pid in pids if f".{pid}." in mounts]
    for pid in pids:
        found += groups_of(pid)
    if isinstance(place.server, SshServer):
        found += [name for pid in pids for name in directories(pid)]
    if isinstance(place.server, DockerDaemon):
        found += containers(place.server) + images(place.server)
    return found
