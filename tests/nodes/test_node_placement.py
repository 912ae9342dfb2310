"""A child gets what it says that it needs, for itself, and gives it back when its process is gone, however it went."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from node_processes import until, until_call
from placement_actors import Resident

from palmette.actors import Actor, ActorDied, Endpoint, Ref, System, needs
from palmette.actors.cluster.books import Member
from palmette.actors.cluster.placer import OwnBooks
from palmette.actors.nodes import Nodes
from palmette.supervisors import ChildSpec, DynamicSupervisor, StartRefused, Supervisor, child

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_system() -> AsyncIterator[System]:
    anchor = child(Resident, name="anchor", isolation="process")  # what it needs is not said, nor counted
    tree = Supervisor.spec(children=[anchor, DynamicSupervisor.spec(name="all", max_restarts=1000)])
    async with System.start(tree, capabilities={"gpu": "2", "zone": "eu", "tokens": "3"}) as system:
        yield system


@pytest_asyncio.fixture(loop_scope="module")
async def system(shared_system: System) -> AsyncIterator[System]:
    """One host with two GPUs (as it says), and nothing on it."""
    yield shared_system
    everybody = shared_system.whereis("all", DynamicSupervisor)
    for info in await everybody.call(DynamicSupervisor.which_children):
        await everybody.call(DynamicSupervisor.terminate_child, info.name)
    assert not [lease for member in books(shared_system).values() for lease in member.leases]


def books(system: System) -> dict[str, Member]:
    placer = system.nodes.placer
    assert isinstance(placer, OwnBooks)
    accounts = placer._accounts  # pyright: ignore[reportPrivateUsage]
    return {} if accounts is None else accounts.members


async def start(system: System, spec: ChildSpec[Actor]) -> Ref[Resident]:
    everybody = system.whereis("all", DynamicSupervisor)
    return system.ref_at(await everybody.call(DynamicSupervisor.start_child, spec), Resident)


async def test_children_have_their_gpus_before_anything_is_imported(system: System) -> None:
    first = await start(system, child(Resident, name="first", on=needs(gpu=1)))
    second = await start(system, child(Resident, name="second", on=needs(gpu=1)))
    third = await start(system, child(Resident, name="third", on=needs(tokens=3, zone="eu")))
    assert await first.call(Resident.devices) == ("0", "0")
    assert await second.call(Resident.devices) == ("1", "1")
    assert await third.call(Resident.devices) == ("", "")


async def test_the_tree_shows_where_a_child_was_placed(system: System) -> None:
    await start(system, child(Resident, name="big", on=needs(gpu=2)))
    [host] = books(system)
    [everybody] = [node for node in system.tree().children if node.name == "all"]
    [big] = everybody.children
    assert big.place == f"{host}, gpu 0 1"


async def test_a_child_that_nothing_can_satisfy_fails_at_once_and_says_why(system: System) -> None:
    with pytest.raises(StartRefused, match=r"nothing can ever satisfy gpu=3: .* has gpu=2"):
        await start(system, child(Resident, name="huge", on=needs(gpu=3, wait=1000)))


async def test_a_child_waits_for_what_is_in_use_and_then_gives_up(system: System) -> None:
    await start(system, child(Resident, name="first", on=needs(gpu=2)))
    with pytest.raises(StartRefused, match=r"waited 0.1 s for a place: gpu=1 is in use \(.*: gpu: 0 free of 2\)"):
        await start(system, child(Resident, name="second", on=needs(gpu=1, wait=0.1)))


async def test_a_child_that_waits_starts_when_what_it_needs_is_given_back(
    system: System, caplog: pytest.LogCaptureFixture
) -> None:
    first = await start(system, child(Resident, name="first", restart="temporary", on=needs(gpu=2)))
    waiting = asyncio.ensure_future(start(system, child(Resident, name="second", on=needs(gpu=1, wait=60))))
    await until(lambda: "/all/second waits up to 60 s for a place: gpu=1 is in use" in caplog.text)
    first.cast(Resident.die)
    assert await (await waiting).call(Resident.devices) == ("0", "0")


@pytest.mark.parametrize("end", ["raise", "die"])
async def test_a_failed_start_gives_back_what_it_had(system: System, end: str) -> None:
    for _ in range(2):
        with pytest.raises(StartRefused):
            await start(system, child(Resident, end, name="failing", on=needs(gpu=2, wait=0)))
    await start(system, child(Resident, name="next", on=needs(gpu=2, wait=0)))


def forget(*_: object) -> None:
    """Take an order, and do nothing."""


async def test_a_process_that_never_comes_gives_back_what_it_had(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("palmette.actors.nodes.BOOT_SECONDS", 0.05)
        patched.setattr(Nodes, "order", forget)
        with pytest.raises(StartRefused, match="did not call back"):
            await start(system, child(Resident, name="lost", on=needs(gpu=2, wait=0)))
    await start(system, child(Resident, name="next", on=needs(gpu=2, wait=0)))


async def test_a_start_that_is_called_off_gives_back_what_it_had(system: System, tmp_path: Path) -> None:
    sign = tmp_path / "it has begun"
    slow = child(Resident, str(sign), name="slow", on=needs(gpu=2, wait=0), start_timeout=0.5)
    starting = asyncio.ensure_future(start(system, slow))
    await until(sign.exists)
    with pytest.raises(StartRefused, match="start took longer"):
        await starting
    await start(system, child(Resident, name="next", on=needs(gpu=2, wait=0)))


@pytest.mark.parametrize("how", [Resident.crash, Resident.die])
async def test_a_child_that_ends_gives_back_what_it_had_before_it_is_restarted(
    system: System, how: Endpoint[Resident, [], None]
) -> None:
    resident = await start(system, child(Resident, name="mortal", on=needs(gpu=2, wait=0)))
    before = len(system.why("/all/mortal"))
    for ends in (before + 1, before + 2):
        with pytest.raises(ActorDied):
            await resident.call(how)
        await until(lambda ends=ends: len(system.why("/all/mortal")) == ends and resident.is_alive())
        assert await until_call(lambda: resident.call(Resident.devices), bool) == ("0,1", "0,1")


async def test_what_lives_below_a_process_gets_a_part_of_what_that_was_given(system: System) -> None:
    team = Supervisor.spec(
        name="team",
        on=needs(gpu=1, cpus=0.5),
        children=[child(Resident, name="one", on=needs(gpu=1)), child(Resident, name="two", on=needs(cpus=0.5))],
    )
    first = await start(system, child(Resident, name="first", on=needs(gpu=1)))
    await start(system, team)
    assert await first.call(Resident.devices) == ("0", "0")
    for name, devices in (("one", "1"), ("two", "")):
        assert await system.ref_at(f"/all/team/{name}", Resident).call(Resident.devices) == (devices, devices)


@pytest.mark.parametrize(
    ("given", "said"),
    [(None, "the process child above it has no on="), (needs(gpu=1), r"nothing can ever satisfy gpu=2: .* has gpu=1")],
)
async def test_what_lives_below_a_process_cannot_have_more_than_that(system: System, given: object, said: str) -> None:
    team = Supervisor.spec(
        name="team",
        isolation="process",
        on=given,  # pyright: ignore[reportArgumentType]
        children=[child(Resident, name="greedy", on=needs(gpu=2))],
    )
    with pytest.raises(StartRefused, match=said):
        await start(system, team)


async def test_capabilities_that_make_no_sense_fail_the_start_of_who_asks() -> None:
    tree = Supervisor.spec(children=[DynamicSupervisor.spec(name="all")])
    async with System.start(tree, capabilities={"gpu": "many"}) as system:
        with pytest.raises(StartRefused, match="'gpu' cannot be read"):
            await start(system, child(Resident, name="first", on=needs(gpu=1)))
