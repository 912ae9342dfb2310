"""What a program started is its own: it is seen through a handle, restarted by policy, and never outlives it."""

from __future__ import annotations

import asyncio

import pytest
from program_support import echo, for_ever, root, thinking, told, types
from support.worlds import everywhere, turns

from palmette.actors import ActorDied, Killed, MaxRestarts
from palmette.agents.programs import (
    Agent,
    Handle,
    ProgramFailed,
    agent,
    current_system,
    done,
    emit,
    expose,
    fail,
    spawn,
    wait,
)
from palmette.supervisors import Backoff


@everywhere
async def test_a_called_program_does_not_take_over_its_caller_s_stream() -> None:
    """Failure 1: there the handle told of the inner program, and was closed with it."""

    @root
    async def inner() -> str:
        emit("inner's")
        return "I"

    @root
    async def middle() -> str:
        emit("before")
        assert await inner() == "I"
        emit("after")
        return "M"

    @root
    async def main() -> list[tuple[str, object]]:
        handle = spawn(middle)
        assert await handle.result() == "M"
        return told(handle.events)

    assert await main() == [("before", None), ("after", None), ("done", "M")]


@everywhere
async def test_children_end_with_the_program_that_started_them() -> None:
    """Failure 2: there a child ran on when its parent had returned."""
    log: list[str] = []

    @root
    async def child(name: str) -> None:
        try:
            await for_ever()
        finally:
            log.append(name)

    @root
    async def middle() -> Handle[None]:
        handle = spawn(child, "grandchild")
        await turns()
        return handle

    @root
    async def main() -> None:
        grandchild = await middle()
        assert log == ["grandchild"]
        assert types(grandchild.events) == ["cancelled"]
        with pytest.raises(ActorDied):
            current_system().whereis(grandchild.path, object)

    await main()


@everywhere
async def test_the_children_of_a_killed_program_end_and_whoever_waits_for_them_learns_of_it() -> None:
    grandchildren: list[Handle[None]] = []

    @root
    async def child() -> None:
        await for_ever()

    @root
    async def middle() -> None:
        grandchildren.append(spawn(child))
        await for_ever()

    @root
    async def main() -> None:
        handle = spawn(middle)
        await turns()
        current_system().whereis(handle.path, object).kill("by a test")
        with pytest.raises(ProgramFailed, match="by a test"):
            await handle.result()
        assert types(grandchildren[0].events) == ["cancelled"]
        assert not [node for node in current_system().tree().children[0].children if node.name == handle.name]

    await main()


@everywhere
async def test_agents_of_spawned_programs_end_when_the_root_returns() -> None:
    """Failure 3: there their harnesses ran on after the process had ended."""
    agents: list[Agent] = []

    @root
    async def child() -> None:
        agents.append(await agent("a", harness=thinking(echo)))
        await for_ever()

    @root
    async def main() -> None:
        handle = spawn(child)
        while not handle.agents:
            await turns()

    await main()
    assert agents[0].state == "ended"
    assert types(agents[0].events) == ["ended"]


@everywhere
async def test_emitted_events_stand_on_the_handle_s_stream_in_order() -> None:
    @root
    async def tells() -> int:
        emit("progress", 1)
        emit("progress", 2)
        return 42

    @root
    async def main() -> None:
        handle = spawn(tells)
        await handle.result()
        assert told(handle.events) == [("progress", 1), ("progress", 2), ("done", 42)]

    await main()


@everywhere
async def test_a_handle_knows_its_program_s_agents() -> None:
    @root
    async def child() -> None:
        await agent("left", harness=thinking(echo))
        right = await agent("right", harness=thinking(echo))
        emit("ready")
        await wait()
        del right

    @root
    async def main() -> None:
        handle = spawn(child)
        assert handle.agents == {}
        await handle.events.wait_for("ready")
        assert sorted(handle.agents) == ["left", "right"]
        handle.cancel()
        await handle.ended()
        assert handle.agents == {}

    await main()


@everywhere
async def test_a_transient_program_is_started_again_and_its_stream_goes_on() -> None:
    attempts: list[int] = []

    @root
    async def flaky() -> str:
        attempts.append(1)
        emit("attempt", len(attempts))
        if len(attempts) < 3:
            raise RuntimeError(f"bad luck {len(attempts)}")
        return "at last"

    @root
    async def main() -> None:
        handle = spawn(flaky.options(restart="transient", backoff=Backoff(min=1.0, max=8.0)))
        assert await handle.result() == "at last"
        assert told(handle.events) == [
            ("attempt", 1),
            ("restarting", "bad luck 1"),
            ("attempt", 2),
            ("restarting", "bad luck 2"),
            ("attempt", 3),
            ("done", "at last"),
        ]

    await main()


@everywhere
async def test_fail_is_an_exit_that_a_restart_policy_sees() -> None:
    attempts: list[int] = []

    @root
    async def unsure() -> int:
        attempts.append(1)
        if len(attempts) == 1:
            fail("try again")
        return len(attempts)

    @root
    async def main() -> None:
        handle = spawn(unsure.options(restart="transient"))
        assert await handle.result() == 2
        stubborn = spawn(unsure.options(restart="transient", rules={"ProgramFailed": "stop"}))
        attempts.clear()
        with pytest.raises(ProgramFailed, match="try again"):
            await stubborn.result()

    await main()


@everywhere
async def test_a_spent_restart_budget_fails_the_parent_with_the_cause() -> None:
    @root
    async def hopeless() -> None:
        raise OSError("disk full")

    @root
    async def middle() -> None:
        spawn(hopeless.options(restart="transient"))
        await for_ever()

    @root
    async def main() -> None:
        handle = spawn(middle.options(max_restarts=2))
        with pytest.raises(ProgramFailed, match="disk full") as caught:
            await handle.result()
        assert isinstance(caught.value.exit, MaxRestarts)

    await main()


@everywhere
async def test_restart_by_hand_works_for_one_that_runs_and_for_one_that_failed() -> None:
    starts: list[int] = []

    @root
    async def sometimes() -> str:
        starts.append(1)
        emit("start", len(starts))
        if len(starts) == 1:
            await for_ever()
        if len(starts) == 2:
            raise RuntimeError("no")
        return "yes"

    @root
    async def main() -> None:
        handle = spawn(sometimes)
        await handle.events.wait_for("start")
        await handle.restart()
        await handle.ended()
        assert handle.state == "failed"
        await handle.restart()
        assert await handle.result() == "yes"
        assert told(handle.events) == [
            ("start", 1),
            ("restarting", "by request"),
            ("start", 2),
            ("failed", "no"),
            ("restarting", "by request"),
            ("start", 3),
            ("done", "yes"),
        ]

    await main()


@everywhere
async def test_names_are_unique_below_one_program_and_numbered_by_default() -> None:
    @root
    async def child() -> None:
        await for_ever()

    @root
    async def main() -> None:
        assert [spawn(child).name, spawn(child).name] == ["child-1", "child-2"]
        named = spawn(child.options(name="boss"))
        with pytest.raises(ValueError, match="'boss' already"):
            spawn(child.options(name="boss"))
        named.cancel()
        await named.ended()
        assert spawn(child.options(name="boss")).name == "boss"

    await main()


@everywhere
async def test_a_slow_clean_up_of_one_child_does_not_keep_its_parent_from_the_others() -> None:
    @root
    async def slow() -> None:
        try:
            await for_ever()
        finally:
            await asyncio.sleep(10.0)

    @root
    async def quick() -> str:
        return "quick"

    @root
    async def main() -> None:
        handle = spawn(slow)
        await turns()
        handle.cancel()
        async with asyncio.timeout(5.0):
            assert await quick() == "quick"
        assert not types(handle.events)

    await main()


@everywhere
async def test_an_endpoint_of_the_program_s_own_may_spawn() -> None:
    @root
    async def leaf(x: int) -> int:
        return x + 1

    @root
    async def pool() -> None:
        @expose
        async def work(x: int) -> int:
            return await leaf(x)

        await wait()

    @root
    async def main() -> list[object]:
        handle = spawn(pool)
        answers = await asyncio.gather(*(handle.call("work", x=x) for x in range(5)))
        done(answers)
        return []

    assert await main() == [1, 2, 3, 4, 5]


@everywhere
async def test_every_exit_is_on_record_with_its_reason() -> None:
    @root
    async def child() -> None:
        await for_ever()

    @root
    async def main() -> None:
        handle = spawn(child)
        await turns()
        system = current_system()
        system.whereis(handle.path, object).kill("for the record")
        await handle.ended()
        assert [record.reason for record in system.why(handle.path)] == [Killed("for the record")]

    await main()
