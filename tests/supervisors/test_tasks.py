"""Tasks: their results and their ends are data, they end with their owners, and they stand in the tree."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import pytest
from support.probes import Boom, Probe, actor_of, ended, turns, virtual

from palmette.actors import (
    ActorDied,
    Crashed,
    DeadlineExceeded,
    Killed,
    Normal,
    Ref,
    Shutdown,
    System,
    deadline,
)
from palmette.supervisors import BadSpec, Exited, Ok, Supervisor, Task, TaskSupervisor, TooManyChildren, child

nolink = TaskSupervisor.async_nolink


@asynccontextmanager
async def tasks_running(**options: object) -> AsyncGenerator[tuple[System, Ref[TaskSupervisor]]]:
    """A system with a task supervisor and an actor that can be an owner; proves that no task is left."""
    children = [
        TaskSupervisor.spec(name="tasks", **options),  # pyright: ignore[reportArgumentType]
        child(Probe, name="owner", restart="temporary"),
    ]
    async with System.start(Supervisor.spec(children=children, max_restarts=100)) as system:
        yield system, system.whereis("tasks", TaskSupervisor)
    assert system.statistics().actors == 0


async def double(number: int) -> int:
    await asyncio.sleep(1)
    return 2 * number


async def fail(text: str = "boom") -> None:
    await asyncio.sleep(1)
    raise Boom(text)


async def for_ever() -> None:
    await asyncio.sleep(1e6)


async def tidy(log: list[str], seconds: float) -> None:
    """Takes ``seconds`` to clean up."""
    try:
        log.append("begun")
        await asyncio.sleep(1e6)
    finally:
        await asyncio.sleep(seconds)
        log.append("tidy")


async def here(tasks: Ref[TaskSupervisor]) -> list[str]:
    """The names of the tasks."""
    await turns(50)
    return [info.name for info in await tasks.call(TaskSupervisor.which_children)]


# --- results -----------------------------------------------------------------------------------------------------


@virtual
async def test_a_task_gives_its_result_and_is_gone() -> None:
    async with tasks_running() as (system, tasks):
        task = await nolink(tasks, double, 21)
        assert task.path == "/tasks/double-1"
        assert task.answer() is None
        assert await task.result() == 42
        assert await task.yield_() == task.answer() == Ok(42)
        assert await here(tasks) == []
        assert system.why(task.path)[-1].reason == Normal()


@virtual
async def test_a_crash_is_data_for_the_owner_and_hurts_nobody() -> None:
    async with tasks_running(max_restarts=0) as (system, tasks):
        task = await nolink(tasks, fail, "no such tool")
        match await task.yield_():
            case Exited(Crashed(error="support.probes.Boom", text="no such tool")):
                pass
            case other:
                pytest.fail(f"{other!r}")
        with pytest.raises(ActorDied, match="/tasks/fail-1 died: Boom: no such tool"):
            await task.result()
        assert tasks.is_alive()
        assert tasks.incarnation == 1
        assert task.answer() == Exited(system.why("/tasks/fail-1")[-1].reason)


@virtual
async def test_a_task_that_is_not_done_in_time_runs_on() -> None:
    async with tasks_running() as (_, tasks):
        task = await nolink(tasks, double, 1)
        assert await task.yield_(0) is None
        assert await task.yield_(0.5) is None
        with pytest.raises(DeadlineExceeded, match=r"/tasks/double-1 was not done in 0\.1 s"):
            await task.result(0.1)
        with deadline(0.1), pytest.raises(DeadlineExceeded):
            await task.result()
        assert await task.result(float("inf")) == 2


@virtual
async def test_several_tasks_have_one_timeout_together() -> None:
    async with tasks_running() as (system, tasks):
        begun = system.loop.time()
        some = [await nolink(tasks, for_ever), await nolink(tasks, double, 2), await nolink(tasks, fail)]
        answers = await Task.yield_many(some, 3.0)
        assert system.loop.time() - begun == 3.0
        assert [task for task, _ in answers] == some
        assert answers[0][1] is None
        assert answers[1][1] == Ok(4)
        assert isinstance(answers[2][1], Exited)
        nothing: list[Task[None]] = []
        assert await Task.yield_many(nothing) == []


@virtual
async def test_a_timeout_makes_sense() -> None:
    async with tasks_running() as (_, tasks):
        task = await nolink(tasks, double, 1)
        for wrong in (-1.0, float("nan")):
            with pytest.raises(ValueError, match="a timeout is 0 seconds or more"):
                await task.yield_(wrong)
            with pytest.raises(ValueError, match="a timeout is 0 seconds or more"):
                await task.shutdown(wrong)


@virtual
async def test_a_function_that_does_not_wait_is_refused_with_the_remedy() -> None:
    async with tasks_running() as (_, tasks):
        task = await nolink(tasks, len, "abc")  # type: ignore[arg-type] # pyright: ignore
        with pytest.raises(ActorDied, match="len returned int; a task runs an `async def` function"):
            await task.result()


@virtual
async def test_a_task_that_says_exit_ends_itself_and_not_the_program() -> None:
    async def leave() -> None:
        raise SystemExit(3)

    async with tasks_running() as (_, tasks):
        answer = await (await nolink(tasks, leave)).yield_()
        assert isinstance(answer, Exited)
        assert isinstance(answer.reason, Crashed)


# --- shutdown ----------------------------------------------------------------------------------------------------


@virtual
async def test_shutdown_lets_a_task_clean_up_in_its_time() -> None:
    async with tasks_running() as (system, tasks):
        log: list[str] = []
        task = await nolink(tasks, tidy, log, 3.0)
        await turns()
        assert await task.shutdown() is None
        assert log == ["begun", "tidy"]
        assert task.answer() == Exited(Shutdown("its owner shut it down"))
        assert system.statistics().zombies == 0
        assert await here(tasks) == []


@virtual
async def test_shutdown_kills_what_takes_too_long() -> None:
    async with tasks_running() as (system, tasks):
        log: list[str] = []
        slow = await nolink(tasks, tidy, log, 2.5)
        brutal = await nolink(tasks, for_ever)
        await turns()
        begun = system.loop.time()
        assert await slow.shutdown(2.0) is None
        assert system.loop.time() - begun == 2.0
        assert isinstance(slow.answer(), Exited)
        assert await brutal.shutdown("brutal") is None
        assert brutal.answer() == Exited(Killed("its owner shut it down"))


@virtual
async def test_shutdown_returns_what_arrived_before_or_meanwhile() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.sleep(1e6)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
        return "after all"

    async def broken() -> None:
        try:
            await asyncio.sleep(1e6)
        finally:
            raise Boom("while cleaning up")

    async with tasks_running() as (_, tasks):
        done = await nolink(tasks, double, 1)
        await done.yield_()
        assert await done.shutdown("brutal") == Ok(2)
        killed = await nolink(tasks, for_ever)
        killed.ref.kill("by somebody else")
        await killed.yield_()
        assert await killed.shutdown() == Exited(Killed("by somebody else"))
        task = await nolink(tasks, stubborn)
        await turns()
        assert await task.shutdown() == Ok("after all")
        task = await nolink(tasks, broken)
        await turns()
        answer = await task.shutdown()
        assert isinstance(answer, Exited)
        assert isinstance(answer.reason, Crashed)


@virtual
async def test_a_task_that_swallows_its_cancellation_is_a_zombie_and_holds_nobody_up() -> None:
    release = asyncio.Event()

    async def undead() -> None:
        while not release.is_set():
            with suppress(asyncio.CancelledError):
                await release.wait()

    async with tasks_running() as (system, tasks):
        task = await nolink(tasks, undead)
        await turns()
        begun = system.loop.time()
        assert await task.shutdown(2.0) is None
        assert system.loop.time() - begun < 10.0
        assert system.statistics().zombies == 1
        assert task.answer() is None
        release.set()
        await task.yield_()
        assert task.answer() is not None


# --- owners --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["normal", "crash", "kill"])
def test_the_tasks_of_an_actor_end_with_it(how: str) -> None:
    @virtual
    async def check() -> None:
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
            begun = system.loop.time()
            answers = await Task.yield_many(mine)
            assert [answer for _, answer in answers] == 3 * [Exited(Shutdown())]
            assert system.loop.time() - begun == 3.0  # all at the same time
            assert log == 3 * ["begun"] + 3 * ["tidy"]
            assert await here(tasks) == ["for_ever-4"]
            assert other.answer() is None

    check()


@virtual
async def test_the_supervisor_answers_while_tasks_of_a_dead_owner_clean_up() -> None:
    async with tasks_running() as (system, tasks):
        owner, log = system.whereis("owner", Probe), list[str]()
        await owner.call(Probe.go, lambda _: nolink(tasks, tidy, log, 4.0))
        await turns()
        owner.kill()
        await turns(50)
        begun = system.loop.time()
        assert await (await nolink(tasks, double, 1)).result() == 2
        assert system.loop.time() - begun == 1.0
        await asyncio.sleep(10)
        assert log == ["begun", "tidy"]


@virtual
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
        assert len(await here(tasks)) == 3
        asking.cancel()
        await asyncio.wait([asking])
        assert [answer for _, answer in await Task.yield_many(found)] == 2 * [Exited(Shutdown())]
        assert await here(tasks) == []


@virtual
async def test_an_owner_may_have_many_tasks_one_after_the_other() -> None:
    async with tasks_running() as (system, tasks):
        for number in range(5):
            assert await (await nolink(tasks, double, number)).result() == 2 * number
        await turns(20)
        supervisor = actor_of(tasks)
        assert supervisor._owners == supervisor._owner_of == {}  # pyright: ignore[reportPrivateUsage]
        assert len(system.slots) == 4


@virtual
async def test_a_task_whose_caller_has_gone_before_it_was_started_is_not_started() -> None:
    async with tasks_running() as (_, tasks):
        tasks.suspend()
        with deadline(1.0), pytest.raises(DeadlineExceeded):
            await nolink(tasks, for_ever)
        waiting = asyncio.create_task(nolink(tasks, for_ever))
        await turns()
        waiting.cancel()
        tasks.resume()
        assert await here(tasks) == []


@virtual
async def test_a_task_may_have_tasks() -> None:
    async with tasks_running() as (_, tasks):

        async def outer() -> None:
            await (await nolink(tasks, for_ever)).result()

        task = await nolink(tasks, outer)
        await turns(50)
        assert len(await here(tasks)) == 2
        await task.shutdown()
        assert await here(tasks) == []


# --- the supervisor --------------------------------------------------------------------------------------------------


@virtual
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


@virtual
async def test_max_children_is_a_bound_that_an_end_makes_room_in() -> None:
    async with tasks_running(max_children=1) as (_, tasks):
        task = await nolink(tasks, double, 1)
        with pytest.raises(TooManyChildren):
            await nolink(tasks, double, 2)
        await task.yield_()
        assert await (await nolink(tasks, double, 3)).result() == 6
    with pytest.raises(BadSpec, match="max_children"):
        TaskSupervisor.spec(name="tasks", max_children=0)


@virtual
async def test_the_supervisors_stop_gives_all_tasks_their_time_at_once() -> None:
    log: list[str] = []
    async with tasks_running() as (system, tasks):
        some = [await nolink(tasks, tidy, log, 3.0) for _ in range(4)]
        late = await nolink(tasks, tidy, log, 100.0, shutdown=4.0)
        await turns()
        begun = system.loop.time()
    assert 4.0 <= system.loop.time() - begun < 5.0
    assert log == 5 * ["begun"] + 4 * ["tidy"]
    assert [answer for _, answer in await Task.yield_many(some)] == 4 * [Exited(Shutdown())]
    assert isinstance(late.answer(), Exited)


@virtual
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


@virtual
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
        assert await here(tasks) == ["for_ever-3"]
        assert sorted(begun) == ["once", "thrice", "thrice", "thrice"]


@virtual
async def test_a_task_supervisor_that_is_not_there_says_so() -> None:
    async with tasks_running() as (system, _):
        with pytest.raises(ActorDied, match="/nobody is not running"):
            await nolink(system.ref_at("/nobody", TaskSupervisor), for_ever)
