"""Placement in simulation: the books are the real ones, the hosts are pretended."""

from __future__ import annotations

import asyncio

import pytest
from placed_people import Person

from palmette.actors import StartFailed, System, needs, simulation
from palmette.actors.cluster.capabilities import Capabilities, Gpu
from palmette.actors.simulation import RandomFaults, simulate
from palmette.supervisors import ChildSpec, Supervisor, child

HOSTS = {
    "gpu-a": Capabilities(cpus=8, gpus=(Gpu(0), Gpu(1)), labels={"zone": "eu"}),
    "gpu-b": Capabilities(cpus=8, gpus=(Gpu(0),)),
    "plain": Capabilities(cpus=8),
}


def team(count: int, wait: float = 10.0) -> ChildSpec[Supervisor]:
    return Supervisor.spec(
        max_restarts=1000,
        children=[child(Person, name=f"p{number}", on=needs(gpu=1, wait=wait)) for number in range(count)],
    )


def places(system: System) -> list[str | None]:
    return [node.place for node in system.tree().children if node.name.startswith("p")]


def test_children_are_placed_on_pretended_hosts_and_the_log_says_where() -> None:
    async def main() -> list[str | None]:
        async with System.start(team(3)) as system:
            return places(system)

    result = simulation.run(main, hosts=HOSTS)
    assert result.value == ["gpu-b, gpu 0", "gpu-a, gpu 0", "gpu-a, gpu 1"]
    assert "placed /p0#1 gpu-b, gpu 0" in result.log
    assert simulation.run(main, hosts=HOSTS).log == result.log


def test_where_no_host_is_named_there_is_a_large_one() -> None:
    async def main() -> list[str | None]:
        async with System.start(team(8)) as system:
            return places(system)

    assert simulation.run(main).value == [f"host, gpu {number}" for number in range(8)]


def test_waiting_passes_in_virtual_time() -> None:
    async def main() -> None:
        with pytest.raises(StartFailed, match=r"/p3 could not start: NoPlace: it waited 100 s"):
            async with System.start(team(4, wait=100)):
                pass

    assert simulation.run(main, hosts=HOSTS).seconds >= 100


@simulate(seeds=40, faults=RandomFaults(rate=0.3, match="/p*"), hosts=HOSTS)
async def test_whatever_happens_to_processes_no_gpu_is_given_twice_and_none_is_lost() -> None:
    try:
        async with System.start(team(3)) as system:
            for _ in range(20):
                await asyncio.sleep(5)
                taken = [place for place in places(system) if place is not None]
                assert len(set(taken)) == len(taken)
    except StartFailed:
        return  # a fault struck the first start
