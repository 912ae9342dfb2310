"""What a program exposes: called through its handle, by attached agents, and answered only while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from program_support import Says, calling, for_ever, once, results, root, thinking, told
from support.worlds import everywhere, turns

from palmette.agents import Message
from palmette.agents.programs import NoEndpoint, ProgramEnded, agent, emit, expose, spawn, wait


@root
async def adder() -> None:
    @expose
    async def add(a: int, b: int = 1) -> int:
        """Add two numbers."""
        emit("added", a + b)
        return a + b

    @expose
    async def fall_over(why: str) -> None:
        raise KeyError(why)

    await wait()


@everywhere
async def test_an_exposed_function_is_called_by_its_name() -> None:
    @root
    async def main() -> object:
        return await spawn(adder).call("add", a=2, b=3)

    assert await main() == 5


def test_only_async_functions_are_exposed() -> None:
    with pytest.raises(TypeError, match="async def"):
        expose(lambda: None)  # pyright: ignore


@everywhere
async def test_a_call_right_after_the_spawn_waits_for_the_program_to_begin() -> None:
    @root
    async def main() -> list[object]:
        handles = [spawn(adder) for _ in range(10)]
        return list(await asyncio.gather(*(handle.call("add", a=n) for n, handle in enumerate(handles))))

    assert await main() == list(range(1, 11))


@everywhere
async def test_a_call_of_an_unknown_endpoint_lists_the_known_ones() -> None:
    @root
    async def main() -> None:
        with pytest.raises(NoEndpoint, match="exposes no 'subtract'; it exposes: add, fall_over"):
            await spawn(adder).call("subtract")

    await main()


@everywhere
async def test_an_endpoint_runs_in_the_program_that_exposes_it() -> None:
    @root
    async def main() -> None:
        handle = spawn(adder)
        await handle.call("add", a=1)
        assert told(handle.events) == [("added", 2)]

    await main()


@everywhere
async def test_what_an_endpoint_raises_is_its_caller_s_and_the_program_lives_on() -> None:
    @root
    async def main() -> None:
        handle = spawn(adder)
        with pytest.raises(KeyError, match="kaboom"):
            await handle.call("fall_over", why="kaboom")
        assert await handle.call("add", a=1) == 2

    await main()


@everywhere
async def test_endpoints_of_a_program_that_ended_answer_with_an_error() -> None:
    """Failure 8: there they were still executed."""
    ran: list[str] = []

    @root
    async def brief() -> str:
        @expose
        async def touch() -> None:
            ran.append("touched")

        return "over"

    @root
    async def main() -> None:
        handle = spawn(brief)
        assert await handle.result() == "over"
        with pytest.raises(ProgramEnded, match=r"/main/brief-1 does not run any more \(done\)"):
            await handle.call("touch")

    await main()
    assert ran == []


@everywhere
async def test_a_call_under_way_when_the_program_ends_fails_at_once() -> None:
    @root
    async def stuck() -> None:
        @expose
        async def hang() -> None:
            await for_ever()

        await wait()

    @root
    async def main() -> None:
        handle = spawn(stuck)
        call = asyncio.create_task(handle.call("hang"))
        await turns()
        handle.cancel()
        with pytest.raises(ProgramEnded):
            await call

    await main()


@everywhere
async def test_a_slow_endpoint_does_not_delay_another() -> None:
    @root
    async def service() -> None:
        @expose
        async def slow() -> None:
            await asyncio.sleep(20.0)

        @expose
        async def quick() -> str:
            return "quick"

        await wait()

    @root
    async def main() -> None:
        handle = spawn(service)
        slow = asyncio.create_task(handle.call("slow"))
        await turns()
        async with asyncio.timeout(10.0):
            assert await handle.call("quick") == "quick"
        assert not slow.done()
        await slow

    await main()


@everywhere
async def test_attached_endpoints_are_tools_of_an_agent() -> None:
    heard: list[str] = []

    def mind(conversation: Sequence[Message]) -> Says:
        if conversation[-1].role == "user":
            return calling(("add", {"a": 20, "b": 22}))
        heard.extend(results(conversation))
        return "so it is"

    @root
    async def main() -> None:
        handle = spawn(adder)
        solver = await agent("solver", harness=thinking(mind))
        await handle.attach(solver)
        assert [schema.name for schema in solver.toolbox.schemas] == ["add", "fall_over"]
        assert solver.toolbox.schemas[0].description == "Add two numbers."
        assert await solver.ask("go") == "so it is"
        assert told(handle.events) == [("added", 42)]

    await main()
    assert heard == ["42"]


@everywhere
async def test_attach_respects_only_and_prefix_and_adds_all_or_nothing() -> None:
    @root
    async def main() -> None:
        handle = spawn(adder)
        solver = await agent("solver", harness=thinking(once()))
        await handle.attach(solver, only=["add"], prefix="pool_")
        assert [schema.name for schema in solver.toolbox.schemas] == ["pool_add"]
        with pytest.raises(NoEndpoint, match="subtract"):
            await handle.attach(solver, only=["fall_over", "subtract"])
        with pytest.raises(ValueError, match="'pool_add' already"):
            await handle.attach(solver, prefix="pool_")
        assert [schema.name for schema in solver.toolbox.schemas] == ["pool_add"]

    await main()


@everywhere
async def test_an_attached_tool_whose_program_ended_tells_the_model_so() -> None:
    heard: list[str] = []

    def mind(conversation: Sequence[Message]) -> Says:
        if conversation[-1].role == "user":
            return calling(("add", {"a": 1}))
        heard.extend(results(conversation))
        return "pity"

    @root
    async def main() -> None:
        handle = spawn(adder)
        solver = await agent("solver", harness=thinking(mind))
        await handle.attach(solver)
        handle.cancel()
        await handle.ended()
        assert await solver.ask("go") == "pity"

    await main()
    assert heard == ["/main/adder-1 does not run any more (cancelled)"]


@everywhere
async def test_bad_arguments_come_back_to_the_model() -> None:
    heard: list[str] = []

    def mind(conversation: Sequence[Message]) -> Says:
        if conversation[-1].role == "user":
            return calling(("add", {"a": "one"}))
        heard.extend(results(conversation))
        return "oh"

    @root
    async def main() -> None:
        handle = spawn(adder)
        solver = await agent("solver", harness=thinking(mind))
        await handle.attach(solver)
        assert await solver.ask("go") == "oh"

    await main()
    assert "bad arguments for add" in heard[0]
