"""A pool whose machines live in several processes: one that is lost takes its own machines with it, and no others."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from pool_support import Provider, Worker, play
from pool_support import provider as provider

from palmette.actors import Actor, Crashed, Ref, System, deadline, needs
from palmette.actors.cluster.capabilities import Capabilities
from palmette.actors.simulation import Fault, RandomFaults
from palmette.actors.simulation.faults import Kind
from palmette.machines import LeasedMachine, MachineActor
from palmette.machines.pool import MachinePool, machine_pool
from palmette.supervisors import BadSpec, DynamicSupervisor, child

pytestmark = pytest.mark.usefixtures("provider")

HOSTS = {name: Capabilities(cpus=8, resources={"seats": 1.0}) for name in ("east", "west", "south")}


SURVIVED: tuple[Kind, ...] = (
    "crash", "kill", "slow_start", "kill_node", "freeze_node", "partition", "slow_link", "drop", "slow_node",
)  # fmt: skip


def fleet_of(machine: Ref[MachineActor]) -> str:
    return machine.path.rpartition("/")[0]


async def leased(system: System, count: int) -> list[Ref[LeasedMachine]]:
    """So many children that have a machine each."""
    others = system.whereis("others", DynamicSupervisor)
    holders: list[Ref[LeasedMachine]] = []
    for number in range(count):
        spec = child(LeasedMachine, name=f"m{number}", rules={"retryable": "backoff", "killed": "backoff"})
        path = await others.call(DynamicSupervisor.start_child, spec)
        holders.append(system.ref_at(path, LeasedMachine))
    return holders


async def machines_of(holders: list[Ref[LeasedMachine]]) -> list[Ref[MachineActor]]:
    with deadline(600.0):
        return [await holder.call(LeasedMachine.machine) for holder in holders]


def places(system: System) -> list[str | None]:
    (fleets,) = next(node for node in system.tree().children if node.name == "machines").children[2:]
    return [keeper.children[0].place for keeper in fleets.children if keeper.children]


def test_machines_are_spread_over_the_hosts_evenly() -> None:
    async def main(system: System, pool: Ref[MachinePool]) -> None:
        assert sorted(map(str, places(system))) == ["east", "south", "west"]
        machines = await machines_of(await leased(system, 9))
        assert list(Counter(map(fleet_of, machines)).values()) == [3, 3, 3]
        assert len({await machine.call(MachineActor.id) for machine in machines}) == 9

    play(main, on=needs(), fleets=3, hosts=HOSTS)


def test_a_lost_host_takes_its_own_machines_and_the_others_go_on_meanwhile(provider: Provider) -> None:
    async def main(system: System, pool: Ref[MachinePool]) -> None:
        host = places(system)[0]
        holders = await leased(system, 6)
        before = await machines_of(holders)
        await until_lost(system, "/machines/fleets/1/fleet")
        on_others = [machine for machine in before if fleet_of(machine) != "/machines/fleets/1/fleet"]
        assert len(on_others) == 4
        assert all([await machine.call(MachineActor.id) for machine in on_others])
        await asyncio.sleep(10.0)
        assert [machine.path for machine in await machines_of(holders)] != [machine.path for machine in before]
        reasons = [record.reason for record in system.exits if record.path.startswith("/others/m")]
        assert len(reasons) == 2
        for reason in reasons:
            assert isinstance(reason, Crashed)
            assert reason.error.endswith(".MachineLost")
            assert (reason.cause, reason.retryable) == ("host_lost", True)
            assert f"on {host} ended without a word" in reason.text
        assert len(provider.begun) == 8  # at once: nobody blamed the provider
        assert (await pool.call(MachinePool.statistics)).fleets == 3

    struck = Fault(kind="kill_node", path="/machines/fleets/1/fleet", incarnation=1, message=60, seconds=0.0)
    play(main, on=needs(seats=1), fleets=3, hosts=HOSTS, faults=[struck])


async def until_lost(system: System, path: str) -> None:
    async with asyncio.timeout(300.0):
        while not any(record.path == path for record in system.exits):  # noqa: ASYNC110 - exits have no event
            await asyncio.sleep(0.01)


def test_who_needs_a_machine_is_given_one_while_a_fleet_finds_no_place() -> None:
    async def main(system: System, pool: Ref[MachinePool]) -> None:
        system.ref_at("/machines/fleets/1/fleet", Actor).kill()
        squatter = child(Worker, 1, name="squatter", on=needs(seats=1))
        others = system.whereis("others", DynamicSupervisor)
        await others.call(DynamicSupervisor.start_child, squatter)
        await asyncio.sleep(20.0)
        assert (await pool.call(MachinePool.statistics)).fleets == 2
        machines = await machines_of(await leased(system, 4))
        assert {fleet_of(machine) for machine in machines} == {"/machines/fleets/2/fleet", "/machines/fleets/3/fleet"}
        await others.call(DynamicSupervisor.terminate_child, "squatter")
        await asyncio.sleep(30.0)
        assert (await pool.call(MachinePool.statistics)).fleets == 3

    play(main, on=needs(seats=1), fleets=3, hosts=HOSTS)


def test_whatever_happens_to_processes_everybody_gets_a_machine_in_the_end(provider: Provider) -> None:
    async def main(system: System, pool: Ref[MachinePool]) -> None:
        holders = await leased(system, 8)
        await asyncio.sleep(300.0)
        machines = await machines_of(holders)
        assert len({machine.path for machine in machines}) == 8
        now = await pool.call(MachinePool.statistics)
        assert (now.leased, now.warm, now.fleets) == (8, 2, 3)
        assert len(provider.up) == 10

    struck = Counter[str]()
    for seed in range(25):
        faults = RandomFaults(rate=0.3, match="/machines/fleets/*/fleet", kinds=SURVIVED)
        options = {"warm": 2, "on": needs(), "fleets": 3, "may_fail_to_start": True}
        struck.update(fault.kind for fault in play(main, seed=seed, faults=faults, **options))  # type: ignore[arg-type]
    assert all(struck[kind] for kind in SURVIVED), struck


@pytest.mark.parametrize(
    ("options", "told"), [({"fleets": 2}, "2 fleets want hosts"), ({"fleets": 0, "on": needs()}, "got 0")]
)
def test_fleets_that_make_no_sense_are_refused_when_they_are_described(options: dict[str, object], told: str) -> None:
    with pytest.raises(BadSpec, match=told):
        machine_pool("local", "run", **options)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
