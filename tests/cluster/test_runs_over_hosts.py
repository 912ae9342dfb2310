"""Benchmark runs whose machines live on three hosts, which are killed, cut off and brought back while they are played."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from support.hosts import LOSS, HostNode, Lab, running_lab
from support.sums import Played, Sums, new_run, play, settings_for

from palmette.actors import System, needs
from palmette.actors.cluster.channel import Address
from palmette.actors.cluster.errors import Unreached
from palmette.actors.cluster.head import Head
from palmette.actors.cluster.records import ClusterRow
from palmette.actors.cluster.visit import visit
from palmette.actors.heartbeat import Heartbeat
from palmette.benchmarks.pool import EpisodePool
from palmette.benchmarks.task import Task, Transcript
from palmette.machines import Machine, MachinePool, reap
from palmette.machines.scratch import VARIABLE
from palmette.supervisors import Backoff

PATIENCE = 120.0
HEARTBEAT = Heartbeat(interval=LOSS / 5, loss=LOSS)


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where all hosts keep their machines."""
    folder = tmp_path_factory.mktemp("machines")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(folder))
        yield folder


@pytest.fixture(scope="module")
def lab(machines: Path) -> Iterator[Lab]:
    with running_lab({"a": (), "b": (), "c": ()}) as lab:
        yield lab


@pytest.fixture(autouse=True)
def nothing_runs_on(lab: Lab, machines: Path) -> Iterator[None]:
    """All hosts are up for the next test, and nothing of this one's runs on any."""
    yield
    for node in lab.nodes.values():
        if not node.is_up():
            node.start()
            node.wait_up()
    assert reap().processes == 0
    assert not os.listdir(machines)


async def by_command(task: Task, transcript: Transcript, machine: Machine | None) -> float:
    """A score of its own for each task, which a command says in the machine that the agent worked in."""
    assert machine is not None
    seen = await machine.exec(["cat", "answer"])
    assert seen.stdout.decode() == task.grader.answer
    return int(task.grader.answer) % 7 / 7


async def play_on(lab: Lab, folder: Path, episodes: int, meanwhile: Callable[[System], Awaitable[None]]) -> Played:
    """Play so many episodes with machines on all hosts; each has to end once, as if nothing had happened."""
    journal, run = new_run(folder)
    settings = settings_for(
        run,
        Sums(episodes, machine=True, judge=by_command),
        pool="machines",
        on=needs(),
        fleets=3,
        warm=3,
        seconds=PATIENCE,
        backoff=Backoff(min=0.01, max=0.2, give_up_after=PATIENCE),
    )
    played = await play(
        settings,
        journal,
        concurrency=12,
        meanwhile=meanwhile,
        timeout=PATIENCE,
        cluster=lab.head,
        heartbeat=HEARTBEAT,
    )
    assert played.scores == {(f"sums/{number}", 0): number % 7 / 7 for number in range(episodes)}
    await until_true(lambda: nothing_held(lab))
    return played


async def cluster(lab: Lab) -> ClusterRow:
    return await visit(Address.parse(lab.head), Head, lambda head: head.call(Head.cluster))


async def nothing_held(lab: Lab) -> bool:
    return not any(member.leases for member in (await cluster(lab)).members)


async def until_true(true: Callable[[], Awaitable[bool]]) -> None:
    end = time.monotonic() + PATIENCE
    while not await true():
        assert time.monotonic() < end, "it did not come about in time"
        await asyncio.sleep(0.02)


async def ended(system: System) -> int:
    return (await system.whereis("pool", EpisodePool).call(EpisodePool.statistics)).ended.requested


async def test_plain(lab: Lab, tmp_path: Path) -> None:
    t = time.monotonic()

    async def nothing(system):
        print("up", time.monotonic() - t)

    played = await play_on(lab, tmp_path, 500, nothing)
    print("took", time.monotonic() - t, played.crashes)
