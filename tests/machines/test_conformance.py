"""Every backend keeps every promise of the contract, as a controller finds it that has a secret in its environment."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from pathlib import Path

import msgspec
from docker_support import containers, images
from machines_support import list_root, tagged, until
from ssh_support import nothing_left
from support.docker_daemon import DockerDaemon
from support.e2b_stand_in import StandIn
from support.places import Place
from support.places import place as place
from support.ssh_server import SshServer

from palmette.machines.conformance import ConformanceReport, checks

# In a process of its own: what an operating system shows of a process's environment is what it was started with.
KIT = """
import asyncio, os, sys
import msgspec
from palmette.machines.conformance import check

async def main(image, only):
    report = await check(image, only=only, at_once=4)
    sys.stdout.buffer.write(msgspec.json.encode({"pid": os.getpid(), "report": report}))

asyncio.run(main(sys.argv[1], sys.argv[2:]))
"""
ALL = bool(os.environ.get("PALMETTE_CONFORMANCE"))
THE_RUNNERS = {"many_files"}
"""Checks that take long, and are about the runner, which is the same everywhere but in `local`."""
NOT_PROMISED = {"local": {"vandalism"}}
"""By kind, the checks of what it says that it cannot do; what is beyond its grade of snapshots nobody promises."""


class Told(msgspec.Struct):
    pid: int
    report: ConformanceReport


async def test_it_keeps_the_contract_and_leaves_nothing(place: Place, root: Path) -> None:
    environment = {**os.environ, **place.environment}
    if place.kind != "ssh":  # "another host", where a controller's process cannot be looked at, is this one in a test
        environment["PALMETTE_CANARY_API_KEY"] = f"canary-{secrets.token_hex(12)}"
    only = [each.name for each in checks() if ALL or each.name not in THE_RUNNERS]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KIT, place.image, *only, env=environment, stdout=asyncio.subprocess.PIPE
    )
    told = msgspec.json.decode((await process.communicate())[0], type=Told)
    assert told.report.broken == ()
    not_promised = {result.name for result in told.report.not_promised} - {"snapshot_grades"}
    assert not_promised == NOT_PROMISED.get(place.kind, set())
    assert told.report.kept + len(told.report.not_promised) == len(only)
    await until(lambda: tagged(f".{told.pid}.") == [], "every process to be gone")
    match place.server:
        case DockerDaemon():
            assert (containers(place.server), images(place.server)) == ([], [])
        case SshServer():
            await nothing_left(place.server, told.pid)
        case StandIn():
            seen = await place.server.report()
            assert (seen.sandboxes, seen.leaks) == ({}, 0)
        case None:
            assert [name for name in list_root(root) if name != "snapshots" or list_root(root / name)] == []
