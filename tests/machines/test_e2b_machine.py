"""Whole machines on E2B: a long life, and every end of the sandbox is a lost machine with its cause."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from e2b import AsyncSandbox
from e2b_fixtures import SOON, machine_id, random_bytes
from e2b_fixtures import mortal_stand_in as mortal_stand_in
from e2b_fixtures import sdk as sdk
from e2b_fixtures import shared_stand_in as shared_stand_in
from e2b_fixtures import stand_in as stand_in
from support.e2b_stand_in import StandIn

from palmette.machines.e2b import E2bAccount, E2bBackend
from palmette.machines.errors import MachineError, MachineLost
from palmette.machines.hosted import HostedMachine
from palmette.machines.images import machine_for


@pytest.fixture
async def machine(stand_in: StandIn) -> AsyncIterator[HostedMachine]:
    async with _machine(stand_in) as one:
        yield one


async def test_a_template_is_named_by_the_image_string(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in stand_in.connection.items():
        monkeypatch.setenv(f"E2B_{name.upper()}", str(value))
    machine = machine_for("e2b:nowhere", owner="e2b-test")
    with pytest.raises(MachineError, match="no template 'nowhere'"):
        await machine.start()


async def test_a_command_survives_the_connections_under_it(machine: HostedMachine, stand_in: StandIn) -> None:
    data = random_bytes(1 << 20)
    cutting = asyncio.create_task(_cut_five_times(stand_in))
    result = await machine.exec("sleep 0.4; cat", stdin=data, timeout=20, max_output=1 << 21)
    await cutting
    assert result.ok
    assert result.stdout == data


async def test_a_killed_runner_is_the_commands_doing_and_the_machine_goes_on(machine: HostedMachine) -> None:
    await machine.put("file", b"still")
    result = await machine.exec("kill -9 -1")
    assert result.signal == 9
    assert result.evidence is not None
    assert (result.evidence.cause, result.evidence.agents_doing) == ("runner_killed", True)
    assert await machine.get("file") == b"still"


async def test_a_leased_machine_outlives_its_lease(stand_in: StandIn) -> None:
    async with _machine(stand_in, lease=1) as machine:
        assert (await machine.exec("sleep 1.6; echo alive", timeout=10)).stdout == b"alive\n"
    assert (await stand_in.report()).asked["POST /sandboxes/{id}/timeout"] >= 4


@pytest.mark.parametrize("how", ["killed", "frozen", "gone"])
async def test_a_command_whose_sandbox_is_gone_learns_it_soon_and_why(how: str, mortal_stand_in: StandIn) -> None:
    machine = _machine(mortal_stand_in)
    await machine.start()
    started = asyncio.Event()
    command = asyncio.create_task(
        machine.exec("echo started; sleep 60", timeout=120, on_output=lambda stream, data: started.set())
    )
    await started.wait()
    match how:
        case "killed":
            mortal_stand_in.kill()
        case "frozen":
            mortal_stand_in.freeze()
        case _:
            (name,) = (await mortal_stand_in.report()).sandboxes
            await AsyncSandbox.kill(name, **mortal_stand_in.connection)
    with pytest.raises(MachineLost) as caught:
        async with asyncio.timeout(SOON):
            await command
    assert caught.value.evidence is not None
    causes = {"killed": "daemon_gone", "frozen": "daemon_frozen", "gone": "machine_removed"}
    assert caught.value.evidence.cause == causes[how]
    assert not caught.value.evidence.agents_doing
    if how == "killed":
        with pytest.raises(MachineError, match="may live on"):
            await machine.stop()
    else:
        mortal_stand_in.thaw()
        await machine.stop()


async def test_a_controller_that_renews_no_more_leaves_a_sandbox_for_no_longer_than_the_lease(
    stand_in: StandIn,
) -> None:
    backend = E2bBackend("", machine_id(), account=E2bAccount(**stand_in.connection), lease=1)
    await backend.start()
    channel = await backend.open_channel(["sleep", "1000"])
    async with asyncio.timeout(SOON):
        assert await channel.read() == b""
    evidence = await backend.examine()
    assert evidence is not None
    assert evidence.cause == "expired"
    assert (await stand_in.report()).sandboxes == {}
    await backend.stop()


async def test_a_short_freeze_is_suffered(mortal_stand_in: StandIn) -> None:
    async with _machine(mortal_stand_in) as machine:
        mortal_stand_in.freeze()
        await asyncio.sleep(1.2)  # the pulse is missed, the examination after it finds all well
        asyncio.get_running_loop().call_later(0.9, mortal_stand_in.thaw)
        assert (await machine.exec("echo alive")).stdout == b"alive\n"


def _machine(stand_in: StandIn, *, lease: float = 60.0) -> HostedMachine:
    id = machine_id()
    return HostedMachine(E2bBackend("", id, account=E2bAccount(**stand_in.connection), lease=lease), id, "e2b")


async def _cut_five_times(stand_in: StandIn) -> None:
    cut = 0
    while cut < 5:
        cut += await stand_in.cut_streams()
