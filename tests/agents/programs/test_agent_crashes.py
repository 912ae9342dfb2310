"""Agents that crash: they come back and go on where they were, or their program learns why not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from program_support import MindClient, Says, echo, once, results, root, said, thinking, told, types
from support.worlds import everywhere, turns

from palmette.actors import DeadlineExceeded
from palmette.agents import Message, ModelUnavailable, RequestRefused
from palmette.agents.programs import (
    AgentAnswer,
    ProgramEnded,
    ProgramFailed,
    agent,
    spawn,
    wait,
)
from palmette.agents.react_harness import UNKNOWN


@everywhere
async def test_an_agent_whose_model_is_away_comes_back_and_goes_on_where_it_was() -> None:
    """Failure 5: there a dead harness was noticed by nobody."""
    troubles = [ModelUnavailable("overloaded"), ModelUnavailable("still overloaded")]
    client = MindClient(echo)

    def mind(conversation: Sequence[Message]) -> Says:
        if conversation[-1].content == "two" and troubles:
            return troubles.pop(0)
        return echo(conversation)

    client.mind = mind

    @root
    async def main() -> None:
        solver = await agent("solver", model=client)
        assert await solver.ask("one") == "heard: one"
        assert await solver.ask("two") == "heard: two"
        assert types(solver.events) == [
            "message", "turn", "settled",
            "message", "restarting", "restarted", "restarting", "restarted", "turn", "settled",
        ]  # fmt: skip
        assert said(solver.turns) == ["heard: one", "heard: two"]

    await main()
    assert [m.content for m in client.asked[-1]] == ["one", "heard: one", "two"]


@everywhere
async def test_a_tool_that_crashes_its_agent_is_not_run_again_behind_its_back() -> None:
    client = MindClient(once(("fragile", {}), ("sturdy", {}), then="I see"))
    runs: list[str] = []

    @root
    async def main() -> None:
        solver = await agent("solver", model=client)

        @solver.on()
        async def fragile() -> None:
            runs.append("fragile")
            await solver.events.wait_for("tool_ended")
            await turns()
            raise OSError("it broke")

        @solver.on()
        async def sturdy() -> str:
            runs.append("sturdy")
            return "well"

        assert await solver.ask("go") == "I see"
        assert ("restarting", "OSError: it broke") in told(solver.events)

    await main()
    assert sorted(runs) == ["fragile", "sturdy"]
    assert results(client.asked[-1]) == [UNKNOWN, "well"]


@everywhere
async def test_a_message_to_an_agent_that_is_down_is_heard_when_it_is_back() -> None:
    troubles = [ModelUnavailable("away")]
    client = MindClient(lambda talk: troubles.pop() if troubles else echo(talk))

    @root
    async def main() -> None:
        solver = await agent("solver", model=client)
        await solver.send("one")
        await solver.events.wait_for("restarting")
        assert solver.state == "restarting"
        assert await solver.ask("two") == "heard: two"

    await main()
    assert [m.content for m in client.asked[-1]] == ["one", "two"]


@everywhere
async def test_a_plain_no_of_the_endpoint_fails_the_program_at_once() -> None:
    client = MindClient(lambda talk: RequestRefused("no such model"))

    @root
    async def child() -> None:
        solver = await agent("solver", model=client)
        await solver.send("go")
        await wait()

    @root
    async def main() -> None:
        handle = spawn(child)
        with pytest.raises(ProgramFailed, match="RequestRefused: no such model"):
            await handle.result()

    await main()
    assert len(client.asked) == 1


@everywhere
async def test_an_agent_that_crashes_too_often_fails_its_program() -> None:
    @root
    async def child() -> None:
        solver = await agent("solver", harness=thinking(lambda talk: KeyError("a bug")))
        await solver.send("go")
        await wait()

    @root
    async def main() -> None:
        with pytest.raises(ProgramFailed, match="a bug"):
            await spawn(child.options(max_seconds=10_000.0)).result()

    await main()


@everywhere
async def test_a_temporary_agent_that_crashes_has_ended_and_says_so() -> None:
    @root
    async def main() -> None:
        solver = await agent("solver", harness=thinking(lambda talk: KeyError("a bug")), restart="temporary")
        with pytest.raises(ProgramEnded, match="ended before it answered"):
            await solver.ask("go")
        assert told(solver.events)[-1] == ("ended", "KeyError: 'a bug'")
        with pytest.raises(ProgramEnded):
            await solver.send("hello?")
        again = await agent("solver", harness=thinking(echo))
        assert await again.ask("new") == "heard: new"

    await main()


@everywhere
async def test_ask_has_a_deadline_and_the_agent_goes_on() -> None:
    async def mind(talk: Sequence[Message]) -> Says:
        await asyncio.sleep(10.0)
        return "at last"

    @root
    async def main() -> None:
        solver = await agent("solver", harness=thinking(mind))
        with pytest.raises(DeadlineExceeded):
            await solver.ask("go", timeout=2.0)
        event = await solver.events.wait_for("settled")
        assert isinstance(event.data, AgentAnswer)
        assert event.data.text == "at last"

    await main()
