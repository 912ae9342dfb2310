"""Machines in containers against the docker SDK alone: start, a command, a fork.

The SDK does each the way its manual says: ``run``, ``exec_run``, ``commit`` and ``run``. Ours starts with a runner
inside, which costs a second process, and from which every command afterwards is cheap; our fork has one too.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from palmette.machines import Machine, machine_for
from tests.bench.measure import Line, Settings, compare, rounds, timed

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))  # where pytest finds `support` by itself

from support.docker_daemon import IMAGE, DockerDaemon, NoDocker, made_image, running_daemon

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

# pyright: reportUnknownMemberType=false

START, EXEC, FORK = "start of a docker machine", "exec in a docker machine", "fork of a docker machine"
RAW = {START: "docker SDK: run", EXEC: "docker SDK: exec_run", FORK: "docker SDK: commit, run"}


async def measure(settings: Settings) -> list[Line]:
    """The rows; none, and a word about it, where there can be no daemon."""
    try:
        with made_image() as image, running_daemon(image) as daemon:
            return await _measure(settings, daemon)
    except NoDocker as error:
        print(f"machines_docker is left out: {error}", file=sys.stderr)
        return []


async def _measure(settings: Settings, daemon: DockerDaemon) -> list[Line]:
    import docker

    commands = settings.size(20, small=3)
    client = docker.DockerClient(daemon.url, version="auto")
    theirs = _container(client, IMAGE)
    names = (f"bench-{number}" for number in itertools.count())
    ours = _machine(daemon)

    async def our_start() -> float:
        machine = _machine(daemon)
        cost = await timed(machine.start())
        await machine.stop()
        return cost

    async def their_start() -> float:
        made: list[Container] = []
        cost = await timed(asyncio.to_thread(lambda: made.append(_container(client, IMAGE))))
        await asyncio.to_thread(made[0].remove, force=True)
        return cost

    async def our_execs() -> None:
        for _ in range(commands):
            assert (await ours.exec(["true"])).ok

    async def their_execs() -> None:
        for _ in range(commands):
            assert (await asyncio.to_thread(theirs.exec_run, ["true"])).exit_code == 0

    async def our_fork() -> float:
        made: list[Machine] = []

        async def fork() -> None:
            made.append(await ours.fork())

        cost = await timed(fork())
        await made[0].stop()
        return cost

    async def their_fork() -> float:
        made: list[Container] = []
        name = next(names)

        def fork() -> None:
            theirs.commit("bench", name)
            made.append(_container(client, f"bench:{name}"))

        cost = await timed(asyncio.to_thread(fork))
        await asyncio.to_thread(made[0].remove, force=True)
        await asyncio.to_thread(client.images.remove, f"bench:{name}")
        return cost

    try:
        await ours.start()
        costs = await rounds(
            settings.rounds,
            {
                START: our_start,
                RAW[START]: their_start,
                EXEC: lambda: timed(our_execs(), commands),
                RAW[EXEC]: lambda: timed(their_execs(), commands),
                FORK: our_fork,
                RAW[FORK]: their_fork,
            },
        )
    finally:
        await ours.stop()
        theirs.remove(force=True)
        client.close()
    return [
        compare(START, settings.loop, costs, START, RAW[START], note="ours with its runner"),
        compare(EXEC, settings.loop, costs, EXEC, RAW[EXEC], at_most=1.0),
        compare(FORK, settings.loop, costs, FORK, RAW[FORK], note="ours with its runner"),
    ]


def _machine(daemon: DockerDaemon) -> Machine:
    with mock.patch.dict(os.environ, DOCKER_HOST=daemon.url):
        return machine_for(f"docker:{IMAGE}?memory=128m&pids=64", owner="bench")


def _container(client: DockerClient, image: str) -> Container:
    return client.containers.run(
        image,
        ["sleep", "3600"],
        detach=True,
        network_mode="none",
        mem_limit="128m",
        pids_limit=64,
        nano_cpus=10**9,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
    )
