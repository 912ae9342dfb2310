"""What a killed controller left on the daemon goes; what others use stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
from docker_support import Make, backends, containers, images, killed_controller, looking, new_id
from support.docker_daemon import IMAGE, DockerDaemon

from palmette.machines.docker import reaper as docker_reaper
from palmette.machines.docker.reaper import KIND_LABEL, LEASE_LABEL, MACHINE_LABEL, delete_snapshot, reap
from palmette.machines.identity import MachineId

if TYPE_CHECKING:
    from docker import APIClient

# pyright: reportUnknownMemberType=false


@pytest.fixture(scope="module", autouse=True)
def daemon(docker_daemon: DockerDaemon) -> DockerDaemon:
    return docker_daemon


@pytest.fixture
async def make(daemon: DockerDaemon, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    monkeypatch.setenv("DOCKER_HOST", daemon.url)
    async with backends(daemon) as make:
        yield make


async def test_what_a_killed_controller_left_is_removed_and_the_rest_stays(daemon: DockerDaemon, make: Make) -> None:
    living = make()
    await living.start()
    left = await asyncio.to_thread(killed_controller, daemon)
    assert (await reap(owner="other-run")).containers == ()
    report = await reap(snapshots=False)
    assert sorted(report.containers) == sorted(left.containers)
    assert len(report.images) == 1
    assert (report.alive, report.elsewhere, report.failed) == (1, (), ())
    snapshot = left.image.removeprefix("docker:").partition("?")[0]
    assert images(daemon) == [snapshot]
    assert (await reap()).images == (snapshot,)
    assert images(daemon) == []
    assert containers(daemon) == [living.container]


async def test_what_cannot_be_judged_goes_only_when_it_cannot_be_in_use(
    daemon: DockerDaemon, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = MachineId.parse(new_id())
    assert here is not None
    elsewhere = str(MachineId(here.owner, here.pid, here.start, "0" * 12, here.nonce))
    with looking(daemon) as client:
        name = _created(client, elsewhere)
        try:
            report = await reap()
            assert (report.containers, report.elsewhere) == ((), (name,))
            monkeypatch.setattr(docker_reaper, "STARTING", -3600.0)
            assert (await reap()).containers == (name,)
        finally:
            if containers(daemon):
                client.remove_container(name, force=True)


async def test_what_was_created_and_never_started_goes_with_its_controller(daemon: DockerDaemon, make: Make) -> None:
    here = MachineId.parse(new_id())
    assert here is not None
    dead = str(MachineId(here.owner, here.pid, here.start - 1, here.place, here.nonce))  # its process id came again
    with looking(daemon) as client:
        name = _created(client, dead)
    assert (await reap()).containers == (name,)


async def test_a_snapshot_in_use_outlives_its_deletion_in_the_machine(daemon: DockerDaemon, make: Make) -> None:
    first = make()
    await first.start()
    image = await first.snapshot("in-use")
    second = make(image="palmette-snapshot:in-use")
    await second.start()
    await first.stop()
    await second.stop()
    await delete_snapshot(image)


def _created(client: APIClient, id: str) -> str:
    name = f"palmette-{id}"
    labels = {MACHINE_LABEL: id, KIND_LABEL: "machine", LEASE_LABEL: "60"}
    client.create_container(IMAGE, ["true"], name=name, labels=labels)
    return name
