"""Sandboxes of E2B: labelled, leased, found wanting for the right reason, copied, and never left behind."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from e2b import AsyncSandbox
from e2b_fixtures import SOON, machine_id, read_all
from e2b_fixtures import backend as backend
from e2b_fixtures import made as made
from e2b_fixtures import sdk as sdk
from e2b_fixtures import shared_stand_in as shared_stand_in
from e2b_fixtures import stand_in as stand_in
from support.e2b_stand_in import Fault, StandIn

from palmette.machines.e2b import E2bAccount, E2bBackend, delete_snapshot, reap
from palmette.machines.errors import ImageUnusable, MachineError, MachineLost
from palmette.machines.identity import MachineId

Make = Callable[..., E2bBackend]
CREATE = r"POST /v2/sandboxes$"


async def test_a_sandbox_is_labelled_with_its_machine_its_run_and_its_lease(
    backend: E2bBackend, stand_in: StandIn
) -> None:
    (labels,) = (await stand_in.report()).sandboxes.values()
    assert labels == {"palmette-machine": backend.id, "palmette-owner": "e2b-test", "palmette-lease": "60"}


async def test_a_started_sandbox_says_what_it_is(made: Make) -> None:
    place = await made(network=False, lease=30, workdir="/home/user/here").start()
    assert (place.workdir, place.root, place.lease, place.cpus, place.memory, place.network) == (
        "/home/user/here",
        "/",
        30.0,
        2.0,
        512 << 20,
        False,
    )


async def test_a_renewal_counts_from_now(backend: E2bBackend, stand_in: StandIn) -> None:
    await backend.renew(600)
    left = await _time_left(backend, stand_in)
    assert timedelta(seconds=590) < left <= timedelta(seconds=600)
    await backend.renew(29.5)
    assert timedelta(seconds=20) < await _time_left(backend, stand_in) <= timedelta(seconds=30)


async def test_trouble_on_the_way_to_a_renewal_is_suffered_while_there_is_time(
    backend: E2bBackend, stand_in: StandIn
) -> None:
    await stand_in.fail(Fault(where="timeout", after=True))
    await backend.renew(60)
    assert await backend.examine() is None


async def test_trouble_on_the_way_to_the_last_renewal_in_time_is_told(made: Make, stand_in: StandIn) -> None:
    backend = made(lease=1)
    await backend.start()
    await stand_in.fail(Fault(where="timeout", after=True))
    with pytest.raises(MachineLost) as caught:
        await backend.renew(60)
    assert caught.value.evidence is not None
    assert caught.value.evidence.cause == "connection_lost"


async def test_a_quota_is_retryable_and_leaves_nothing(sdk: None) -> None:
    with StandIn.running(most=0) as full:
        with pytest.raises(MachineLost, match="maximum number of concurrent") as caught:
            await E2bBackend("", machine_id(), account=E2bAccount(**full.connection)).start()
        assert caught.value.retryable
        assert caught.value.evidence is not None
        assert caught.value.evidence.cause == "quota"
        assert (await full.report()).asked == {"POST /v2/sandboxes": 4}  # the SDK tries three times more
        await full.forget()


async def test_a_full_cloud_is_a_quota_too(made: Make, stand_in: StandIn) -> None:
    await stand_in.fail(Fault(where=CREATE, status=503, headers={"Should-Retry": "false"}))
    with pytest.raises(MachineLost) as caught:
        await made().start()
    assert caught.value.evidence is not None
    assert caught.value.evidence.cause == "quota"


async def test_a_503_is_tried_again_by_the_sdk(made: Make, stand_in: StandIn) -> None:
    await stand_in.fail(Fault(where=CREATE, status=503))
    await made().start()
    assert (await stand_in.report()).asked["POST /v2/sandboxes"] == 2


async def test_a_missing_template_is_an_unusable_image(made: Make) -> None:
    with pytest.raises(ImageUnusable, match=r"no template 'nowhere' for this account .* build it") as caught:
        await made("nowhere").start()
    assert not caught.value.retryable


async def test_a_refused_key_names_the_remedy_and_not_the_key(made: Make, stand_in: StandIn) -> None:
    account = E2bAccount(api_key="e2b_wrong", api_url=stand_in.url, sandbox_url=stand_in.url)
    with pytest.raises(MachineError, match=r"refuses the key .* set E2B_API_KEY") as caught:
        await made(account=account).start()
    assert not caught.value.retryable
    assert "e2b_wrong" not in f"{caught.value} {caught.value.__cause__} {account!r}"


async def test_without_a_key_nothing_is_asked_of_anybody(
    made: Make, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("E2B_API_KEY", raising=False)
    with pytest.raises(MachineError, match="no key for E2B: set E2B_API_KEY"):
        await made(account=E2bAccount(api_url=stand_in.url)).start()
    assert (await stand_in.report()).asked == {}


async def test_a_sandbox_whose_creation_was_answered_into_the_void_is_found_and_killed(
    made: Make, stand_in: StandIn
) -> None:
    await stand_in.fail(Fault(where=CREATE, after=True))
    with pytest.raises(MachineLost) as caught:
        await made().start()
    assert caught.value.evidence is not None
    assert caught.value.evidence.cause == "connection_lost"
    assert (await stand_in.report()).sandboxes == {}


async def test_a_start_that_is_called_off_leaves_nothing(made: Make, stand_in: StandIn) -> None:
    await stand_in.fail(Fault(where="process.Process/List", hang=True))
    starting = asyncio.create_task(made().start())
    while not (await stand_in.report()).asked.get("POST /process.Process/List"):
        assert not starting.done()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert (await stand_in.report()).sandboxes == {}


async def test_a_control_plane_out_of_reach_is_no_illness_of_the_sandbox(
    backend: E2bBackend, stand_in: StandIn
) -> None:
    await stand_in.fail(Fault(where=r"GET /sandboxes/", hang=True))
    async with asyncio.timeout(SOON):
        assert await backend.examine() is None


async def test_a_sandbox_that_runs_and_does_not_answer_is_out_of_reach(backend: E2bBackend, stand_in: StandIn) -> None:
    await stand_in.fail(Fault(where="/health", hang=True, times=9))
    async with asyncio.timeout(SOON):
        evidence = await backend.examine()
    assert evidence is not None
    assert evidence.cause == "connection_lost"
    assert "E2B says that it runs" in evidence.detail


async def test_a_sandbox_that_somebody_paused_is_lost(backend: E2bBackend, stand_in: StandIn) -> None:
    await AsyncSandbox.pause(str(backend.sandbox_id), **stand_in.connection)
    evidence = await backend.examine()
    assert evidence is not None
    assert (evidence.cause, evidence.agents_doing) == ("machine_killed", False)


async def test_a_stopped_backend_says_so(made: Make) -> None:
    backend = made()
    await backend.stop()
    await backend.start()
    await backend.stop()
    await backend.stop()
    evidence = await backend.examine()
    assert evidence is not None
    assert evidence.cause == "stopped"
    with pytest.raises(MachineLost, match="no sandbox"):
        await backend.open_channel(["true"])


async def test_a_fork_has_the_files_and_a_life_of_its_own(backend: E2bBackend) -> None:
    await _run(backend, "echo before > state")
    twin = await backend.fork(machine_id())
    try:
        assert await _run(twin, "cat state") == b"before\n"
        await _run(twin, "echo twin > state")
        assert await _run(backend, "cat state") == b"before\n"
    finally:
        await twin.stop()
    assert await backend.examine() is None


async def test_a_fork_without_quota_is_retryable_and_leaves_the_first_alone(
    backend: E2bBackend, stand_in: StandIn
) -> None:
    await stand_in.fail(Fault(where="fork", status=429, times=9))
    with pytest.raises(MachineLost) as caught:
        await backend.fork(machine_id())
    assert caught.value.evidence is not None
    assert caught.value.evidence.cause == "quota"
    assert await backend.examine() is None


async def test_a_snapshot_is_an_image_until_it_is_deleted(backend: E2bBackend, made: Make, stand_in: StandIn) -> None:
    await _run(backend, "echo kept > state")
    image = await backend.snapshot("one")
    await _run(backend, "echo later > state")
    again = made(image.removeprefix("e2b:"))
    await again.start()
    assert await _run(again, "cat state") == b"kept\n"
    account = E2bAccount(**stand_in.connection)
    assert await delete_snapshot(image, account=account)
    assert not await delete_snapshot(image, account=account)
    with pytest.raises(ImageUnusable):
        await made(image.removeprefix("e2b:")).start()


async def test_the_reaper_kills_what_dead_controllers_left_and_nothing_else(
    backend: E2bBackend, made: Make, stand_in: StandIn
) -> None:
    own = MachineId.parse(backend.id)
    assert own is not None
    dead = MachineId("e2b-test", own.pid, own.start - 1, own.place, own.nonce)
    other_run = MachineId("other-run", own.pid, own.start - 1, own.place, own.nonce)
    abroad = MachineId("e2b-test", 1, 1, "0" * 12, own.nonce)
    names = {}
    for machine in (dead, other_run, abroad):
        labels = {"palmette-machine": str(machine), "palmette-owner": machine.owner}
        names[machine] = (await AsyncSandbox.create(metadata=labels, timeout=60, **stand_in.connection)).sandbox_id
    await AsyncSandbox.create(metadata={"app": "not ours"}, timeout=60, **stand_in.connection)
    account = E2bAccount(**stand_in.connection)
    report = await reap(owner="e2b-test", account=account)
    assert (report.machines, report.alive, report.elsewhere) == ((str(dead),), 1, (str(abroad),))
    assert report.failed == ()
    assert (await reap(account=account)).machines == (str(other_run),)
    left = (await stand_in.report()).sandboxes
    assert backend.sandbox_id in left
    assert len(left) == 3
    for name in left.keys() - {backend.sandbox_id}:
        await AsyncSandbox.kill(name, **stand_in.connection)


async def test_the_reaper_goes_through_all_pages_and_says_what_it_could_not_kill(sdk: None) -> None:
    with StandIn.running() as stand_in:
        account = E2bAccount(**stand_in.connection)
        own = MachineId.new("e2b-test")
        labels = {"palmette-machine": str(MachineId("e2b-test", own.pid, own.start - 1, own.place, own.nonce))}
        for _ in range(3):
            await AsyncSandbox.create(metadata=labels, timeout=60, **stand_in.connection)
        await stand_in.fail(Fault(where="DELETE", status=500))
        report = await reap(account=account)
        assert len(report.machines) == 2
        assert len(report.failed) == 1
        assert "injected" in report.failed[0]
        await stand_in.forget()


async def test_the_key_is_nowhere_in_the_sandbox(
    made: Make, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = stand_in.connection
    monkeypatch.setenv("E2B_API_KEY", connection["api_key"])
    account = E2bAccount(api_url=connection["api_url"], sandbox_url=connection["sandbox_url"])
    backend = made(account=account)
    await backend.start()
    seen = await _run(backend, "env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline; cat -- ~/.[a-z]* 2>/dev/null; true")
    assert b"PALMETTE_RELAY" in seen  # the relay's own environment is among what was looked at
    assert connection["api_key"].encode() not in seen
    assert connection["api_key"] not in repr((backend, account, (await stand_in.report()).sandboxes))
    assert os.environ["E2B_API_KEY"] == connection["api_key"]


async def _run(backend: E2bBackend, command: str) -> bytes:
    channel = await backend.open_channel(["sh", "-c", command])
    try:
        return await read_all(channel)
    finally:
        await channel.close()


async def _time_left(backend: E2bBackend, stand_in: StandIn) -> timedelta:
    info = await AsyncSandbox.get_info(str(backend.sandbox_id), **stand_in.connection)
    return info.end_at - datetime.now(UTC)
