"""Task supervisors and partitions in another process: they run there, and say here what does not cross."""

from __future__ import annotations

import msgspec
import pytest

from palmette.actors import Actor, NodeError, Refused, System, endpoint
from palmette.supervisors import (
    Backoff,
    ChildCounts,
    PartitionSupervisor,
    Supervisor,
    TaskSupervisor,
    child,
    partition_of,
)


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
        shards = await far.call(Supervisor.get_childspec, "shards")
        assert (shards.actor, shards.name, shards.shutdown) == (PartitionSupervisor, "shards", "infinity")
        assert "<child '2': Shard, permanent, inline>" in repr(shards.kwargs)
        tasks = system.ref_at("/far/tasks", TaskSupervisor)
        with pytest.raises(NodeError, match="/far/tasks lives in another process, and functions do not cross"):
            await TaskSupervisor.async_nolink(tasks, square, 1)
        with pytest.raises(NodeError, match="functions do not cross"):
            await TaskSupervisor.start_child(tasks, square, 1)
        with pytest.raises(NodeError, match="/far/shards is no partition supervisor of this process"):
            PartitionSupervisor.via(system, "/far/shards", Shard, "a")


class Room(Actor):
    """Takes what crosses, and what does not."""

    def __init__(self, size: int, colour: str = "white", *, door: object = None) -> None:
        self.size = size


@pytest.mark.worlds("real", why="another process is not simulated, nor are its seconds short")
async def test_all_of_a_supervisors_administration_answers_from_another_process() -> None:
    far_tree = Supervisor.spec(name="far", isolation="process")
    async with System.start(Supervisor.spec(children=[far_tree])) as system:
        far = system.ref_at("/far", Supervisor)
        spec = child(
            Room, 3, colour="red", name="room", restart="transient", backoff=Backoff(min=0.5), rules={"E": "stop"}
        )
        assert await far.call(Supervisor.start_child, spec) == "/far/room"
        assert [info.name for info in await far.call(Supervisor.which_children)] == ["room"]
        assert (await far.call(Supervisor.which_child, "room")).state == "running"
        assert await far.call(Supervisor.count_children) == ChildCounts(specs=1, active=1, supervisors=0, workers=1)
        found = await far.call(Supervisor.get_childspec, "room")
        assert found == msgspec.structs.replace(spec, args=(), kwargs={"size": 3, "colour": "red"})
        await far.call(Supervisor.terminate_child, "room")
        await far.call(Supervisor.restart_child, "room")
        await far.call(Supervisor.terminate_child, "room")
        await far.call(Supervisor.delete_child, "room")
        again = msgspec.structs.replace(found, name="again")
        assert await far.call(Supervisor.start_child, again) == "/far/again"
        with pytest.raises(Refused, match=r"/far has no child 'room'; it has: again"):
            await far.call(Supervisor.get_childspec, "room")
