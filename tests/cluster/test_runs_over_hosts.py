"""Benchmark runs with their machines on three hosts, which are killed, cut off and brought back meanwhile."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from support.command_line import CommandLine, end, until
from support.hosts import LOSS, HostNode, Lab, running_lab
from support.interference import Interfered, Interference
from support.sums import Played, Sums, new_run, play, settings_for, solver

from palmette.actors import System, needs
from palmette.actors.cluster.channel import Address
from palmette.actors.cluster.credentials import VARIABLE as CREDENTIALS
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


async def play_on(
    lab: Lab,
    folder: Path,
    episodes: int,
    meanwhile: Callable[[System], Awaitable[None]],
    interference: Interference,
) -> Played:
    """Play so many episodes with machines on all hosts; each has to end once, as if nothing had happened."""
    journal, run = new_run(folder)
    settings = settings_for(
        run,
        Sums(episodes, machine=True, judge=by_command),
        Interfered(solver(machine=True), interference),
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


async def ended(system: System, number: int) -> bool:
    """Whether so many episodes have."""
    return (await system.whereis("pool", EpisodePool).call(EpisodePool.statistics)).ended.requested >= number


class Held(Interference):
    """Agents of so many tasks go on at once; of the next as many, when the first thing has happened; and so on."""

    def __init__(self, tasks: int, things: int) -> None:
        super().__init__()
        self._tasks = tasks
        self.happened = [asyncio.Event() for _ in range(things)]

    async def __call__(self, task: str, reply: int) -> None:
        for event in self.happened[: int(task.partition("/")[2]) // self._tasks]:
            await event.wait()


@pytest.mark.timeout(180)
async def test_500_episodes_end_once_each_while_a_host_is_killed_every_few_seconds(lab: Lab, tmp_path: Path) -> None:
    held = Held(100, 4)
    struck: list[int] = []

    async def kill_hosts(system: System) -> None:
        for killed, happened in enumerate(held.happened):
            await until_true(partial(ended, system, 100 * killed + 50))
            others = [member for member in (await cluster(lab)).members if member.name != "a"]
            fullest = max(others, key=lambda member: len(member.leases))
            struck.append(len(fullest.leases))
            await restart(lab.nodes[fullest.name], when_killed=happened.set)

    await play_on(lab, tmp_path, 500, kill_hosts, held)
    assert sum(struck) >= 3, struck


async def restart(node: HostNode, *, when_killed: Callable[[], None]) -> None:
    """``kill -9`` all that runs on a host, and start it again."""
    await asyncio.to_thread(node.kill)
    when_killed()
    node.start()
    coming_up = asyncio.ensure_future(asyncio.to_thread(node.wait_up))
    try:
        await asyncio.shield(coming_up)
    finally:
        await asyncio.wait([coming_up])  # also when the run ends before it is up


@pytest.mark.timeout(180)
async def test_a_run_goes_on_while_a_host_is_cut_off_and_while_there_is_no_head(lab: Lab, tmp_path: Path) -> None:
    held = Held(20, 2)

    async def disturb(system: System) -> None:
        await until_true(lambda: all_wait(system, 20))
        cut = lab.index("c")
        lab.network.cut(cut)
        try:
            held.happened[0].set()
            await until_true(lambda: is_member(lab, "c", "lost"))
        finally:
            lab.network.mend(cut)
        await until_true(lambda: is_member(lab, "c", "up"))
        await until_true(lambda: all_wait(system, 40))
        await restart(lab.nodes["a"], when_killed=held.happened[1].set)

    played = await play_on(lab, tmp_path, 60, disturb, held)
    lost = [crash for crash in played.crashes if "/machine#" in crash]
    assert any("MachineLost: " in crash and "host lost (" in crash and "member c" in crash for crash in lost), lost


async def all_wait(system: System, number: int) -> bool:
    """Whether so many episodes have ended, and agents of those that may not go on have their machines."""
    pool = await system.whereis("machines", MachinePool).call(MachinePool.statistics)
    return await ended(system, number) and pool.leased == 12


async def is_member(lab: Lab, name: str, state: str) -> bool:
    return any((member.name, member.state) == (name, state) for member in (await cluster(lab)).members)


@pytest.mark.timeout(180)
def test_a_command_that_is_killed_leaves_nothing_on_the_hosts_and_resume_goes_on_there(
    lab: Lab, machines: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    line = CommandLine(tmp_path_factory.mktemp("c"), **{CREDENTIALS: str(lab.credentials)})
    begun = line.start("run", "trail", "--agent", "reference", "--limit", "100", "--cluster", lab.head)
    try:
        until(lambda: line.ended() >= 20, "progress", seconds=PATIENCE)
        assert not os.listdir(line.machines), "they are on the hosts"
        assert os.listdir(machines)
    finally:
        end(begun)
    run = line.run_id()
    assert run is not None
    assert line.ended() < 100
    found = line.json("resume", run)
    assert (found["requested"], found["outcomes"]["scored"], found["state"]) == (100, 100, "completed")
    assert line.leftovers() == []
    until(lambda: asyncio.run(nothing_held(lab)), "the end of what was there")
