"""Task supervisors and partitions in another process: they run there, and say here what does not cross."""

from __future__ import annotations

import pytest

from palmette.actors import Actor, NodeError, System, endpoint
from palmette.supervisors import PartitionSupervisor, Supervisor, TaskSupervisor, child, partition_of


class Caller(Actor):
    """Uses what lives in its own process."""

    @endpoint
    async def total(self, numbers: list[int]) -> int:
        """The sum of the squares, each computed by a task."""
        tasks = self.system.whereis("tasks", TaskSupervisor)
        answers = TaskSupervisor.async_stream(tasks, square, numbers, max_concurrency=2)
        return sum([answer.value async for answer in answers])  # type: ignore[union-attr] # pyright: ignore

    @endpoint
    async def place(self, key: str) -> str:
        """Where a key belongs."""
        return PartitionSupervisor.via(self.system, "shards", Shard, key).path


class Shard(Actor):
    """One of some."""

    @endpoint
    async def where(self) -> str:
        return self.path


async def square(number: int) -> int:
    return number * number


@pytest.mark.worlds("real", why="another process is not simulated, nor are its seconds short")
async def test_a_whole_subtree_of_them_runs_in_another_process() -> None:
    tree = Supervisor.spec(
        name="far",
        isolation="process",
        children=[
            TaskSupervisor.spec(name="tasks"),
            PartitionSupervisor.spec(child(Shard, name="shard"), name="shards", partitions=3),
            child(Caller, name="caller"),
        ],
    )
    async with System.start(Supervisor.spec(children=[tree])) as system:
        caller = system.ref_at("/far/caller", Caller)
        assert await caller.call(Caller.total, [1, 2, 3]) == 14
        place = await caller.call(Caller.place, "a")
        assert place == f"/far/shards/{partition_of('a', 3)}"
        assert await system.ref_at(place, Shard).call(Shard.where) == place
        far = system.ref_at("/far", Supervisor)
        assert (await far.call(Supervisor.which_child, "shards")).kind == "PartitionSupervisor"
        with pytest.raises(NodeError, match="cannot cross"):
            await far.call(Supervisor.get_childspec, "shards")
        tasks = system.ref_at("/far/tasks", TaskSupervisor)
        with pytest.raises(NodeError, match="/far/tasks lives in another process, and functions do not cross"):
            await TaskSupervisor.async_nolink(tasks, square, 1)
        with pytest.raises(NodeError, match="functions do not cross"):
            await TaskSupervisor.start_child(tasks, square, 1)
        with pytest.raises(NodeError, match="/far/shards is no partition supervisor of this process"):
            PartitionSupervisor.via(system, "/far/shards", Shard, "a")
