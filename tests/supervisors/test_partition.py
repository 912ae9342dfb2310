"""Copies of one child, found by key: the same key finds the same copy, and one copy's troubles are its own."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from supervisors_support import Worker, workers
from support.probes import Boom, Probe, actor_of
from support.worlds import everywhere, turns

from palmette.actors import ActorDied, NodeError, Refused, System
from palmette.supervisors import (
    BadSpec,
    ChildCounts,
    ChildSpec,
    DynamicSupervisor,
    PartitionSupervisor,
    Supervisor,
    child,
    partition_of,
)
from palmette.supervisors.partition import Key

via = PartitionSupervisor.via


def shards(partitions: int = 4, **options: object) -> ChildSpec[Supervisor]:
    return Supervisor.spec(
        children=[
            PartitionSupervisor.spec(
                child(Worker, name="shard"),
                name="shards",
                partitions=partitions,
                **options,  # pyright: ignore[reportArgumentType]
            )
        ]
    )


keys = st.integers() | st.text() | st.binary()


@given(key=keys, partitions=st.integers(1, 100))
def test_every_key_has_one_partition(key: Key, partitions: int) -> None:
    number = partition_of(key, partitions)
    assert 0 <= number < partitions
    assert number == partition_of(key, partitions)
    if isinstance(key, int):
        assert number == abs(key) % partitions


def test_keys_are_spread_evenly() -> None:
    spreads: list[list[Key]] = [
        list(range(8000)),
        [str(number) for number in range(8000)],
        [f"episode-{number}" for number in range(8000)],
        [str(number).encode() for number in range(8000)],
    ]
    for spread in spreads:
        counts = Counter(partition_of(key, 8) for key in spread)
        assert len(counts) == 8
        assert min(counts.values()) > 850


def test_other_processes_find_the_same_partition() -> None:
    code = "from palmette.supervisors import partition_of as p; print([p(k, 97) for k in ('a', 'ä', b'a', -17, '')])"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert there.stdout.strip() == str([partition_of(key, 97) for key in ("a", "ä", b"a", -17, "")])
    assert partition_of("a", 97) != partition_of(b"a", 97)


@pytest.mark.parametrize("key", [1.0, True, None, ("a", 1), object], ids=repr)
def test_what_is_no_key_is_refused(key: object) -> None:
    with pytest.raises(TypeError, match="work is divided by an int, a str or bytes"):
        partition_of(key, 4)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


@everywhere
async def test_a_key_finds_its_copy_and_keeps_it_through_a_restart() -> None:
    async with System.start(shards()) as system:
        assert PartitionSupervisor.partitions(system, "shards") == 4
        mine = via(system, "shards", Worker, 6)
        assert mine.path == "/shards/2"
        assert await mine.call(Worker.ping) == 1
        mine.cast(Worker.end, Boom("crash"))
        await turns(200)
        assert await via(system, "shards", Worker, 6).call(Worker.ping) == 2
        assert [via(system, "shards", Worker, number).incarnation for number in range(4)] == [1, 1, 2, 1]


@everywhere
async def test_the_restart_of_the_whole_keeps_the_addresses() -> None:
    async with System.start(shards()) as system:
        mine = via(system, "shards", Worker, "a")
        system.whereis("shards", PartitionSupervisor).kill()
        await turns(200)
        assert await mine.call(Worker.ping) == 2
        assert via(system, "shards", Worker, "a") == mine


@everywhere
async def test_the_copies_are_listed_and_counted_and_their_number_stands() -> None:
    async with System.start(shards(3)) as system:
        ref = system.whereis("shards", PartitionSupervisor)
        infos = await ref.call(Supervisor.which_children)
        assert [(info.name, info.state) for info in infos] == [(str(number), "running") for number in range(3)]
        assert await ref.call(Supervisor.count_children) == ChildCounts(specs=3, active=3, supervisors=0, workers=3)
        with pytest.raises(Refused, match="/shards has its 3 partitions; it takes no 'a'"):
            await ref.call(Supervisor.start_child, workers("a")[0])
        await ref.call(Supervisor.terminate_child, "1")
        with pytest.raises(Refused, match="'1' can be terminated and restarted"):
            await ref.call(Supervisor.delete_child, "1")
        with pytest.raises(ActorDied):
            await via(system, "shards", Worker, 1).call(Worker.ping)
        await ref.call(Supervisor.restart_child, "1")
        assert await via(system, "shards", Worker, 1).call(Worker.ping) == 2


@everywhere
async def test_dynamic_supervisors_share_the_work_and_their_names_do_not_collide() -> None:
    tree = PartitionSupervisor.spec(DynamicSupervisor.spec(name="pool"), name="pools", partitions=2)
    async with System.start(Supervisor.spec(children=[tree])) as system:
        for key in range(4):
            pool = via(system, "pools", DynamicSupervisor, key)
            path = await pool.call(DynamicSupervisor.start_child, child(Probe, name=f"e{key // 2}"))
            assert path == f"/pools/{key % 2}/e{key // 2}"
        assert sorted(system.registry_table.names) == ["pools", "registry"]


@everywhere
async def test_a_partition_may_be_a_tree_of_its_own() -> None:
    inner = Supervisor.spec(name="x", children=workers("ab"))
    tree = PartitionSupervisor.spec(inner, name="trees", partitions=2, register="forest")
    async with System.start(Supervisor.spec(children=[tree])) as system:
        assert system.ref_at("/trees/0/a", Worker).is_alive()
        assert via(system, "forest", Supervisor, 1).path == "/trees/1"
        assert PartitionSupervisor.partitions(system, "/trees") == 2


@everywhere
async def test_a_spent_budget_ends_them_all_and_they_come_back_together() -> None:
    async with System.start(shards(2, max_restarts=1)) as system:
        for _ in range(2):
            via(system, "shards", Worker, 0).cast(Worker.end, Boom("crash"))
            await turns(200)
        assert system.whereis("shards", PartitionSupervisor).incarnation == 2
        assert actor_of(via(system, "shards", Worker, 1)).ref.incarnation == 2


@everywhere
async def test_what_is_no_partition_supervisor_says_so() -> None:
    async with System.start(Supervisor.spec(children=[*workers("a"), Supervisor.spec(name="s")])) as system:
        for name in ("a", "s"):
            with pytest.raises(NodeError, match=f"/{name} is no partition supervisor of this process, but a "):
                via(system, name, Worker, 1)
        with pytest.raises(ActorDied, match="'nobody'"):
            via(system, "nobody", Worker, 1)
        await system.whereis("/", Supervisor).call(Supervisor.terminate_child, "s")
        with pytest.raises(ActorDied, match="/s is not running"):
            PartitionSupervisor.partitions(system, "s")


def test_specs_that_make_no_sense_are_refused_before_anything_starts() -> None:
    spec = child(Worker, name="shard")
    for wrong in (0, -1, True):
        with pytest.raises(BadSpec, match="partitions is a number from 1"):
            PartitionSupervisor.spec(spec, name="shards", partitions=wrong)
    with pytest.raises(BadSpec, match="registered as 'me', which its 2 copies cannot share"):
        PartitionSupervisor.spec(child(Worker, name="shard", register="me"), name="shards", partitions=2)
    with pytest.raises(BadSpec, match="is significant, which means nothing for one partition"):
        PartitionSupervisor.spec(
            child(Worker, name="shard", restart="transient", significant=True), name="shards", partitions=2
        )
    with pytest.raises(BadSpec, match="max_restarts"):
        PartitionSupervisor.spec(spec, name="shards", partitions=2, max_restarts=-1)
