"""A provider of machines that are made of nothing but a plan of what happens to them, and those who lease them."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import cast

import pytest

from palmette.actors import Actor, Ref, StartFailed, System, deadline, endpoint, simulation
from palmette.actors.cluster.capabilities import Capabilities
from palmette.actors.simulation import Fault, RandomFaults
from palmette.actors.simulation.run import HOSTS
from palmette.machines import MachineActor, MachineLost, fleet
from palmette.machines import actor as machine_actor
from palmette.machines.contract import Machine
from palmette.machines.evidence import Evidence
from palmette.machines.leftovers import Reaped
from palmette.machines.pool import MachinePool, machine_pool
from palmette.supervisors import DynamicSupervisor, Supervisor, child


class Provider:
    """Makes machines in a second each, and keeps the books."""

    def __init__(self) -> None:
        self.made = 0
        self.coming_up = 0
        self.most_coming_up = 0
        self.begun: list[float] = []
        self._up: dict[str, weakref.ref[asyncio.AbstractEventLoop]] = {}
        self.ever_up: list[str] = []
        self.most_up = 0
        self.lost: set[str] = set()
        """Machines that went away by themselves."""
        self.refusals: list[Exception] = []
        """What the next machines that are asked for get instead."""

    @property
    def up(self) -> set[str]:
        """Those that were started and not stopped, save what went with its process."""
        loops = {id: loop() for id, loop in self._up.items()}
        return {id for id, loop in loops.items() if loop is not None and not getattr(loop, "is_dead", False)}

    def came_up(self, id: str) -> None:
        self._up[id] = weakref.ref(asyncio.get_running_loop())
        self.ever_up.append(id)
        self.most_up = max(self.most_up, len(self.up))

    def went(self, id: str) -> None:
        self._up.pop(id, None)

    def machine(self, image: str, *, owner: str) -> Machine:
        self.made += 1
        return cast("Machine", _Machine(self, f"{owner}.{self.made}"))


class _Machine:
    def __init__(self, provider: Provider, id: str) -> None:
        self._provider = provider
        self.id = id

    async def start(self) -> None:
        provider = self._provider
        provider.begun.append(asyncio.get_running_loop().time())
        provider.coming_up += 1
        provider.most_coming_up = max(provider.most_coming_up, provider.coming_up)
        try:
            await asyncio.sleep(1.0)
            if provider.refusals:
                raise provider.refusals.pop(0)
        finally:
            provider.coming_up -= 1
        provider.came_up(self.id)

    async def put(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        raise MachineLost("somebody removed the container", Evidence(cause="machine_removed"))

    async def probe(self, *, timeout: float = 5.0) -> float:
        if self.id in self._provider.lost:
            raise MachineLost("the container is gone", Evidence(cause="machine_removed"))
        return 0.0

    async def stop(self) -> None:
        self._provider.went(self.id)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    """Machines are its, for this test; and in the end none is left."""
    provider = Provider()
    monkeypatch.setattr(machine_actor, "machine_for", provider.machine)
    monkeypatch.setattr(fleet, "machine_for", provider.machine)
    monkeypatch.setattr(fleet, "reap_all", _nothing_to_reap)
    yield provider
    assert not provider.up


async def _nothing_to_reap(images: object) -> tuple[Reaped, ...]:
    return ()


class Worker(Actor):
    """Leases a machine for some seconds, again and again."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self.used: list[str] = []

    @endpoint
    async def work(self) -> list[str]:
        return self.answer_later(self._work())

    async def _work(self) -> list[str]:
        pool = self.system.whereis("machines", MachinePool)
        used: list[str] = []
        for _ in range(self._rounds):
            with deadline(600.0):
                machine = await pool.call(MachinePool.lease, self.ref)
            used.append(await machine.call(MachineActor.id))
            await asyncio.sleep(5.0)
            pool.cast(MachinePool.give_back, machine)
        return used


def play(
    main: Callable[[System, Ref[MachinePool]], Awaitable[None]],
    *,
    workers: int = 0,
    seed: int = 0,
    faults: Sequence[Fault] | RandomFaults = (),
    hosts: Mapping[str, Capabilities] = HOSTS,
    may_fail_to_start: bool = False,
    **options: object,
) -> Sequence[Fault]:
    """Run ``main`` beside a pool, in simulation; the faults that struck."""
    pool = machine_pool("docker:thing", "run", **options)  # pyright: ignore[reportArgumentType]
    holders = [child(Worker, 3, name=f"w{number}", restart="temporary") for number in range(workers)]
    tree = Supervisor.spec(max_restarts=100, children=[pool, DynamicSupervisor.spec(name="others"), *holders])

    async def program() -> None:
        try:
            async with System.start(tree) as system:
                await main(system, system.whereis("machines", MachinePool))
        except StartFailed:
            if not may_fail_to_start:
                raise
        else:
            assert system.statistics().actors == 0

    return simulation.run(program, seed=seed, faults=faults, hosts=hosts).faults
