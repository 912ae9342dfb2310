"""Tasks end with their owners and with their supervisor, and stand in the tree while they run."""

from __future__ import annotations

import asyncio

import pytest
from support.probes import Boom, Probe, actor_of, ended
from support.worlds import everywhere, now, took, turns
from task_support import double, for_ever, nolink, present, tasks_running, tidy

from palmette.actors import (
    ActorDied,
    DeadlineExceeded,
    Killed,
    Shutdown,
    deadline,
)
from palmette.supervisors import BadSpec, Exited, Task, TaskSupervisor, TooManyChildren

# --- owners --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["normal", "crash", "kill"])
@everywhere
async def test_the_tasks_of_an_actor_end_with_it(how: str) -> None:
    async with tasks_running(max_restarts=0) as (system, tasks):
        owner, log = system.whereis("owner", Probe), list[str]()
        mine = [await owner.call(Probe.go, lambda _: nolink(tasks, tidy, log, 3.0)) for _ in range(3)]
        other = await nolink(tasks, for_ever)
        await turns()
        end = asyncio.create_task(ended(owner))
        await turns()
        match how:
            case "normal":
                owner.cast(Probe.do, lambda actor: actor.stop())
            case "crash":
                owner.cast(Probe.fail)
            case _:
                owner.kill()
        await end
        begun = now()
        answers = await Task.yield_many(mine)
        assert [answer for _, answer in answers] == 3 * [Exited(Shutdown())]
        assert took(3, since=begun)  # all at the same time
        assert log == 3 * ["begun"] + 3 * ["tidy"]
        assert await present(tasks) == ["for_ever-4"]
        assert other.answer() is None


@everywhere
async def test_the_supervisor_answers_while_tasks_of_a_dead_owner_clean_up() -> None:
    async with tasks_running() as (system, tasks):
        owner, log = system.whereis("owner", Probe), list[str]()
        await owner.call(Probe.go, lambda _: nolink(tasks, tidy, log, 4.0))
        await turns()
        owner.kill()
        await turns(50)
        begun = now()
        assert await (await nolink(tasks, double, 1)).result() == 2
        assert took(1, since=begun)
        await asyncio.sleep(10)
        assert log == ["begun", "tidy"]


@everywhere
async def test_an_owner_outside_of_actors_is_the_asyncio_task_that_asked() -> None:
    async with tasks_running() as (_, tasks):
        found: list[Task[None]] = []

        async def owner() -> None:
            # Whoever waits in between (gather makes tasks of its own) is not the owner.
            found.extend(await asyncio.gather(nolink(tasks, for_ever), nolink(tasks, for_ever)))
            await asyncio.wait_for(nolink(tasks, for_ever), 5)
            await asyncio.sleep(10)

        asking = asyncio.create_task(owner())
        await asyncio.sleep(5)
        assert len(await present(tasks)) == 3
        asking.cancel()
        await asyncio.wait([asking])
        assert [answer for _, answer in await Task.yield_many(found)] == 2 * [Exited(Shutdown())]
        assert await present(tasks) == []


@everywhere
async def test_an_owner_may_have_many_tasks_one_after_the_other() -> None:
    async with tasks_running() as (system, tasks):
        for number in range(5):
            assert await (await nolink(tasks, double, number)).result() == 2 * number
        await turns(20)
        supervisor = actor_of(tasks)
        assert supervisor._owners == supervisor._owner_of == {}  # pyright: ignore[reportPrivateUsage]
        assert len(system.slots) == 4


@everywhere
async def test_a_task_whose_caller_has_gone_before_it_was_started_is_not_started() -> None:
    async with tasks_running() as (_, tasks):
        tasks.suspend()
        with deadline(1.0), pytest.raises(DeadlineExceeded):
            await nolink(tasks, for_ever)
        waiting = asyncio.create_task(nolink(tasks, for_ever))
        await turns()
        waiting.cancel()
        tasks.resume()
        assert await present(tasks) == []


@everywhere
async def test_a_task_may_have_tasks() -> None:
    async with tasks_running() as (_, tasks):

        async def outer() -> None:
            await (await nolink(tasks, for_ever)).result()

        task = await nolink(tasks, outer)
        await turns(50)
        assert len(await present(tasks)) == 2
        await task.shutdown()
        assert await present(tasks) == []


# --- the supervisor --------------------------------------------------------------------------------------------------


@everywhere
async def test_tasks_stand_in_the_tree_and_can_be_killed_there() -> None:
    async with tasks_running() as (system, tasks):
        task = await nolink(tasks, for_ever)
        [node] = next(node for node in system.tree().children if node.name == "tasks").children
        assert (node.path, node.kind, node.state) == (task.path, "TaskProcess", "running")
        task.ref.kill("by hand")
        assert await task.yield_() == Exited(Killed("by hand"))
        assert system.why(task.path)[-1].reason == Killed("by hand")
        task = await nolink(tasks, for_ever)
        await task.ref.stop()
        assert await task.yield_() == Exited(Shutdown())
        task = await nolink(tasks, for_ever)
        await tasks.call(TaskSupervisor.terminate_child, "for_ever-3")
        assert await task.yield_() == Exited(Shutdown())
        task.ref.send("for nobody")
        task = await nolink(tasks, double, 1)
        task.ref.send("for nobody")
        assert await task.result() == 2
        assert system.statistics().dead_letters == 2


@everywhere
async def test_max_children_is_a_bound_that_an_end_makes_room_in() -> None:
    async with tasks_running(max_children=1) as (_, tasks):
        task = await nolink(tasks, double, 1)
        with pytest.raises(TooManyChildren):
            await nolink(tasks, double, 2)
        await task.yield_()
        assert await (await nolink(tasks, double, 3)).result() == 6
    with pytest.raises(BadSpec, match="max_children"):
        TaskSupervisor.spec(name="tasks", max_children=0)


@everywhere
async def test_the_supervisors_stop_gives_all_tasks_their_time_at_once() -> None:
    log: list[str] = []
    async with tasks_running() as (_, tasks):
        some = [await nolink(tasks, tidy, log, 3.0) for _ in range(4)]
        late = await nolink(tasks, tidy, log, 100.0, shutdown=4.0)
        await turns()
        begun = now()
    assert took(4, since=begun)
    assert log == 5 * ["begun"] + 4 * ["tidy"]
    assert [answer for _, answer in await Task.yield_many(some)] == 4 * [Exited(Shutdown())]
    assert isinstance(late.answer(), Exited)


@everywhere
async def test_a_killed_supervisor_takes_its_tasks_along_and_their_owners_learn_of_it() -> None:
    async with tasks_running() as (system, tasks):
        owner = system.whereis("owner", Probe)
        mine = await owner.call(Probe.go, lambda _: nolink(tasks, for_ever))
        tasks.kill()
        assert await mine.yield_() == Exited(Shutdown("its parent ended"))
        await system.wait_for("tasks", TaskSupervisor)
        owner.kill()  # nobody has to know any more
        assert await (await nolink(tasks, double, 1)).result() == 2
        assert system.statistics().dead_letters == 0


@everywhere
async def test_fire_and_forget_has_no_owner_and_restarts_if_told_to() -> None:
    begun: list[str] = []

    async def flaky(name: str) -> None:
        begun.append(name)
        if begun.count(name) < 3:
            raise Boom("not yet")

    async with tasks_running() as (system, tasks):
        owner = system.whereis("owner", Probe)

        async def order(_: Probe) -> str:
            await TaskSupervisor.start_child(tasks, flaky, "once")
            await TaskSupervisor.start_child(tasks, flaky, "thrice", restart="transient")
            return await TaskSupervisor.start_child(tasks, for_ever)

        assert await owner.call(Probe.go, order) == "/tasks/for_ever-3"
        owner.kill()
        assert await present(tasks) == ["for_ever-3"]
        assert sorted(begun) == ["once", "thrice", "thrice", "thrice"]


@everywhere
async def test_a_task_supervisor_that_is_not_there_says_so() -> None:
    async with tasks_running() as (system, _):
        with pytest.raises(ActorDied, match="/nobody is not running"):
            await nolink(system.ref_at("/nobody", TaskSupervisor), for_ever)


@everywhere
async def test_an_option_that_makes_no_sense_is_its_callers_error_and_not_the_supervisors_end() -> None:
    async with tasks_running(max_restarts=0) as (_, tasks):
        for wrong in (-1.0, "never"):
            with pytest.raises(BadSpec, match="shutdown"):
                await nolink(tasks, for_ever, shutdown=wrong)  # type: ignore[arg-type] # pyright: ignore
        with pytest.raises(BadSpec, match="restart is permanent, transient or temporary, not 'always'"):
            await TaskSupervisor.start_child(tasks, for_ever, restart="always")  # type: ignore[arg-type] # pyright: ignore
        assert tasks.incarnation == 1
        assert (await nolink(tasks, lambda: asyncio.sleep(1))).path == "/tasks/lambda-1"
