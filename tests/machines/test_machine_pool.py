"""A pool of machines, on virtual time, with machines that are made of nothing but a plan of what happens to them."""

from __future__ import annotations

import asyncio

import pytest
from pool_support import Provider, Worker, play
from pool_support import provider as provider

from palmette.actors import ActorDied, MaxRestarts, Ref, System, deadline, root_cause
from palmette.actors.simulation import RandomFaults
from palmette.machines import MachineActor, MachineError, MachineLost
from palmette.machines.errors import ImageUnusable
from palmette.machines.evidence import Evidence
from palmette.machines.gate import Gate
from palmette.machines.lease import LeasedMachine
from palmette.machines.pool import (
    ABSENT_SECONDS,
    LEASE_SECONDS,
    ImageRefused,
    MachinePool,
    ProviderAbsent,
    machine_pool,
)
from palmette.supervisors import BadSpec, DynamicSupervisor, Supervisor, child

pytestmark = pytest.mark.usefixtures("provider")


def test_warm_machines_are_there_before_anybody_asks_and_are_replaced_when_taken(provider: Provider) -> None:
    async def main(system: System, pool: Ref[MachinePool]) -> None:
        await asyncio.sleep(2.0)
        assert (await pool.call(MachinePool.statistics)).warm == 3
        begun = system.loop.time()
        holder = system.whereis("w0", Worker)
        await pool.call(MachinePool.lease, holder)
        assert system.loop.time() == begun
        await asyncio.sleep(2.0)
        now = await pool.call(MachinePool.statistics)
        assert (now.warm, now.leased, now.starting) == (3, 1, 0)

    play(main, workers=1, warm=3)


def test_a_machine_is_never_given_to_two_and_there_are_never_more_than_allowed(provider: Provider) -> None:
    async def main(system: System, pool: Ref[MachinePool]) -> None:
        works = [system.whereis(f"w{number}", Worker).call(Worker.work) for number in range(12)]
        with deadline(300.0):
            used = [machine for work in await asyncio.gather(*works) for machine in work]
        assert len(used) == len(set(used)) == 36
        # One that is thrown away may still be ending while its successor comes up.
        assert provider.most_up <= 5 + 5

    play(main, workers=12, warm=2, most=5)


def test_a_machine_goes_when_its_holder_ends_whatever_ended_it(provider: Provider) -> None:
    async def main(system: System, pool: Ref[MachinePool]) -> None:
        for name in ("w0", "w1"):
            holder = system.whereis(name, Worker)
            machine = await pool.call(MachinePool.lease, holder)
            if name == "w0":
                holder.kill()
            else:
                await holder.stop()
            await asyncio.sleep(1.0)
            assert not machine.is_alive()
            assert (await pool.call(MachinePool.statistics)).leased == 0

    play(main, workers=2)


def test_a_lost_machine_ends_whoever_leased_it_and_its_tree_gets_another(provider: Provider) -> None:
    async def main(system: System, pool: Ref[MachinePool]) -> None:
        others = system.whereis("others", DynamicSupervisor)
        path = await others.call(DynamicSupervisor.start_child, child(LeasedMachine, name="machine"))
        leased = system.ref_at(path, LeasedMachine)
        first = await leased.call(LeasedMachine.machine)
        with pytest.raises(ActorDied, match="machine removed"):
            await first.call(MachineActor.put, "x", b"")
        await asyncio.sleep(2.0)
        second = await leased.call(LeasedMachine.machine)
        assert second.path != first.path
        assert leased.incarnation == 2
        await others.call(DynamicSupervisor.terminate_child, "machine")
        await asyncio.sleep(1.0)
        assert not second.is_alive()

    play(main)


def test_a_warm_machine_that_is_lost_is_replaced_before_anybody_is_given_it(provider: Provider) -> None:
    async def main(system: System, pool: Ref[MachinePool]) -> None:
        await asyncio.sleep(2.0)
        (first,) = provider.up
        provider.lost.add(first)
        await asyncio.sleep(20.0)
        machine = await pool.call(MachinePool.lease, system.whereis("w0", Worker))
        assert await machine.call(MachineActor.id) not in (first, "")
        assert provider.ever_up[0] == first

    play(main, workers=1, warm=1)


def test_an_image_that_cannot_be_a_machine_is_tried_once_and_everybody_is_told(provider: Provider) -> None:
    provider.refusals = [ImageUnusable("docker:thing has no python3; use an image that has")] * 99

    async def main(system: System, pool: Ref[MachinePool]) -> None:
        holder = system.whereis("w0", Worker)
        with pytest.raises(ImageRefused, match="has no python3"):
            await pool.call(MachinePool.lease, holder)
        await asyncio.sleep(1000.0)
        assert provider.made == 1

    play(main, workers=1)


def test_a_provider_at_its_quota_is_asked_again_less_and_less_often(provider: Provider) -> None:
    provider.refusals = [MachineLost("no more sandboxes", Evidence(cause="quota"))] * 6

    async def main(system: System, pool: Ref[MachinePool]) -> None:
        holder = system.whereis("w0", Worker)
        with deadline(600.0):
            await pool.call(MachinePool.lease, holder)
        pauses = [later - earlier - 1.0 for earlier, later in zip(provider.begun, provider.begun[1:], strict=False)]
        assert len(pauses) == 6
        assert all(0.5 * 2**n <= pause <= 0.6 * 2**n + 0.01 for n, pause in enumerate(pauses))

    play(main, workers=1)


def test_who_waits_too_long_is_told_what_went_wrong(provider: Provider) -> None:
    provider.refusals = [MachineLost("no more sandboxes", Evidence(cause="quota"))] * 999

    async def main(system: System, pool: Ref[MachinePool]) -> None:
        others = system.whereis("others", DynamicSupervisor)
        tree = Supervisor.spec(
            name="episode",
            restart="temporary",
            children=[child(LeasedMachine, name="machine", rules={"NoMachine": "escalate"})],
        )
        path = await others.call(DynamicSupervisor.start_child, tree)
        await asyncio.sleep(LEASE_SECONDS + 5.0)
        (reason,) = [record.reason for record in system.why(path) if record.path == path]
        assert isinstance(reason, MaxRestarts)
        assert "no more sandboxes: quota" in str(root_cause(reason))

    play(main)


@pytest.mark.parametrize("workers", [1, 8])
def test_where_nobody_makes_machines_who_waits_is_told_within_a_minute(provider: Provider, workers: int) -> None:
    away = Evidence(cause="daemon_gone", detail="nobody answers at unix:///var/run/docker.sock")
    provider.refusals = [MachineLost("start a container", away)] * 999

    async def lease(system: System, holder: str) -> None:
        pool = system.whereis("machines", MachinePool)
        with deadline(600.0), pytest.raises(ProviderAbsent, match=r"docker\.sock") as caught:
            await pool.call(MachinePool.lease, system.whereis(holder, Worker))
        assert caught.value.cause == "daemon_gone"

    async def main(system: System, pool: Ref[MachinePool]) -> None:
        begun = system.loop.time()
        await asyncio.gather(*(lease(system, f"w{number}") for number in range(workers)))
        assert ABSENT_SECONDS <= system.loop.time() - begun < 60.0
        begun = system.loop.time()
        await lease(system, "w0")
        assert system.loop.time() - begun < 75.0, "the next one knows after the next attempt"
        provider.refusals = []
        with deadline(600.0):
            await pool.call(MachinePool.lease, system.whereis("w0", Worker))

    play(main, workers=workers)


def test_a_daemon_that_comes_back_within_seconds_is_waited_for(provider: Provider) -> None:
    away = Evidence(cause="daemon_gone", detail="nobody answers")
    provider.refusals = [MachineLost("start a container", away)] * 4

    async def main(system: System, pool: Ref[MachinePool]) -> None:
        with deadline(600.0):
            await pool.call(MachinePool.lease, system.whereis("w0", Worker))

    play(main, workers=1)


def test_no_more_come_up_at_a_time_or_per_second_than_the_gate_lets_in(provider: Provider) -> None:
    async def main(system: System, pool: Ref[MachinePool]) -> None:
        await asyncio.sleep(30.0)
        assert (await pool.call(MachinePool.statistics)).warm == 20
        assert provider.most_coming_up <= 3
        gaps = [later - earlier for earlier, later in zip(provider.begun, provider.begun[1:], strict=False)]
        assert min(gaps) >= 0.249

    play(main, warm=20, at_once=3, per_second=4.0)


def test_a_gate_narrows_with_each_refusal_and_widens_again(provider: Provider) -> None:
    provider.refusals = [MachineLost("no more sandboxes", Evidence(cause="quota"))] * 8

    async def main(system: System, pool: Ref[MachinePool]) -> None:
        gate = system.whereis("machines.gate", Gate)
        await asyncio.sleep(1.5)
        assert (await gate.call(Gate.statistics)).width == 1.0
        await asyncio.sleep(60.0)
        now = await gate.call(Gate.statistics)
        assert now.width > 3.0
        assert (now.made, now.refused, now.inside, now.waiting) == (30, 8, 0, 0)

    play(main, warm=30, at_once=8)


@pytest.mark.parametrize("seed", range(25))
def test_whatever_is_killed_everybody_gets_a_machine_in_the_end(provider: Provider, seed: int) -> None:
    async def main(system: System, pool: Ref[MachinePool]) -> None:
        others = system.whereis("others", DynamicSupervisor)
        for number in range(8):
            await others.call(
                DynamicSupervisor.start_child,
                child(LeasedMachine, name=f"m{number}", rules={"retryable": "backoff", "killed": "backoff"}),
            )
        await asyncio.sleep(300.0)
        leased = [system.ref_at(f"/others/m{number}", LeasedMachine) for number in range(8)]
        machines = [await each.call(LeasedMachine.machine) for each in leased]
        assert len({machine.path for machine in machines}) == 8
        assert all(machine.is_alive() for machine in machines)
        now = await system.whereis("machines", MachinePool).call(MachinePool.statistics)
        assert (now.leased, now.warm) == (8, 2)
        assert len(provider.up) == 10

    play(main, warm=2, seed=seed, faults=RandomFaults(rate=0.1, match="/machines/fleet/*"))


def test_a_pool_of_less_than_nothing_is_refused_when_it_is_described() -> None:
    with pytest.raises(BadSpec, match="got 3 and 2"):
        machine_pool("local", "run", warm=3, most=2)


def test_a_machine_that_fails_for_an_unknown_reason_is_not_asked_for_without_end(provider: Provider) -> None:
    provider.refusals = [MachineError("the key is wrong; set another one")] * 99

    async def main(system: System, pool: Ref[MachinePool]) -> None:
        with pytest.raises(ImageRefused, match="the key is wrong"):
            await pool.call(MachinePool.lease, system.whereis("w0", Worker))

    play(main, workers=1, warm=4)
    assert provider.made <= 8
