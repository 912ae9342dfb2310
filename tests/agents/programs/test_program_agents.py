"""Agents as actors: they listen while they work, use several tools at once, and crash without losing a word."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from program_support import MindClient, Says, calling, echo, for_ever, once, results, root, thinking, types
from support.worlds import everywhere, took, turns

from palmette.agents import Message, ToolFailed
from palmette.agents.programs import (
    Agent,
    AgentAnswer,
    agent,
    current_system,
    done,
    wait,
)


@everywhere
async def test_a_tool_of_an_agent_ends_its_program() -> None:
    @root
    async def main() -> object:
        solver = await agent("solver", harness=thinking(once(("submit", {"answer": "42"}))))

        @solver.on("submit")
        async def submit(answer: str) -> str:
            done(answer)
            return "ok"

        await solver.send("go")
        return await wait()

    assert await main() == "42"


@everywhere
async def test_an_agent_tells_what_happens_in_order() -> None:
    @root
    async def main() -> None:
        solver = await agent("solver", system_prompt="be brief", harness=thinking(once(("look", {}), then="seen")))

        @solver.on()
        async def look() -> str:
            """Look around."""
            return "a tree"

        assert await solver.ask("what is there?") == "seen"
        assert types(solver.events) == ["message", "turn", "tool_began", "tool_ended", "turn", "settled"]
        first, second = solver.turns
        assert [(m.role, m.content) for m in first.heard] == [("system", "be brief"), ("user", "what is there?")]
        assert [(m.role, m.content, m.tool_call_id) for m in second.heard] == [("tool", "a tree", "c0")]

    await main()


@everywhere
async def test_a_message_while_a_tool_runs_is_heard_before_the_next_reply() -> None:
    def mind(conversation: Sequence[Message]) -> Says:
        return calling(("work", {})) if len(conversation) == 1 else "as you say"

    client = MindClient(mind)

    @root
    async def main() -> None:
        solver = await agent("solver", model=client)

        @solver.on()
        async def work() -> str:
            await solver.send("hurry")
            return "worked"

        assert await solver.ask("begin") == "as you say"

    await main()
    assert [(m.role, m.content) for m in client.asked[-1][2:]] == [("tool", "worked"), ("user", "hurry")]


@everywhere
async def test_messages_are_heard_in_the_order_of_their_sending_each_once() -> None:
    client = MindClient(echo)

    @root
    async def main() -> None:
        solver = await agent("solver", model=client)
        for n in range(20):
            await solver.send(str(n))
        assert await solver.ask("last") == "heard: last"

    await main()
    assert [m.content for m in client.asked[-1] if m.role == "user"] == [*map(str, range(20)), "last"]


@everywhere
async def test_tools_of_one_reply_run_side_by_side() -> None:
    """Failure 9: there a slow tool delayed all that came after it."""
    client = MindClient(once(("slow", {}), ("quick", {}), then="both"))
    ended: list[str] = []

    @root
    async def main() -> None:
        solver = await agent("solver", model=client)

        @solver.on()
        async def slow() -> str:
            # It waits for an event of its own agent, which could never come if tools stood in line.
            await solver.events.wait_for("tool_ended")
            await asyncio.sleep(10.0)
            ended.append("slow")
            return "S"

        @solver.on()
        async def quick() -> str:
            ended.append("quick")
            return "Q"

        assert await solver.ask("go") == "both"

    await main()
    assert ended == ["quick", "slow"]
    assert results(client.asked[-1]) == ["S", "Q"]


@everywhere
async def test_a_tool_past_its_deadline_is_stopped_and_the_others_are_not() -> None:
    client = MindClient(once(("hang", {}), ("fine", {}), then="well"))

    @root
    async def main() -> None:
        solver = await agent("solver", model=client)

        @solver.on(seconds=3.0)
        async def hang() -> None:
            await for_ever()

        @solver.on()
        async def fine() -> str:
            await asyncio.sleep(5.0)
            return "fine"

        assert await solver.ask("go") == "well"

    await main()
    assert results(client.asked[-1]) == ["hang did not finish within 3 s and was stopped", "fine"]
    assert took(5.0)


@everywhere
async def test_bad_news_of_a_tool_goes_to_the_model() -> None:
    client = MindClient(once(("read", {"path": "x"}), ("nothing", {}), then="hm"))

    @root
    async def main() -> None:
        solver = await agent("solver", model=client)

        @solver.on()
        async def read(path: str) -> str:
            raise ToolFailed(f"no file {path}")

        await solver.ask("go")

    await main()
    assert results(client.asked[-1]) == ["no file x", "there is no tool 'nothing'; the tools are: read"]


@everywhere
async def test_an_interrupted_agent_stops_its_tools_and_listens_again() -> None:
    stopped: list[str] = []
    client = MindClient(lambda talk: calling(("hang", {})) if talk[-1].content == "go" else "yes?")

    @root
    async def main() -> None:
        solver = await agent("solver", model=client)

        @solver.on()
        async def hang() -> None:
            try:
                await for_ever()
            finally:
                stopped.append("hang")

        await solver.send("go")
        await solver.events.wait_for("tool_began")
        await turns()
        assert solver.state == "working"
        await solver.interrupt()
        event = await solver.events.wait_for("settled")
        assert event.data == AgentAnswer(text=None, stop="interrupted", heard=1)
        assert await solver.ask("are you there?") == "yes?"
        await solver.interrupt()

    await main()
    assert stopped == ["hang"]
    assert [m.content for m in client.asked[-1][2:]] == ["interrupted before it ended", "are you there?"]


@everywhere
async def test_a_model_that_thinks_is_interrupted_too() -> None:
    async def mind(talk: Sequence[Message]) -> Says:
        if len(talk) == 1:
            await for_ever()
        return "thought"

    @root
    async def main() -> None:
        solver = await agent("solver", harness=thinking(mind))
        await solver.send("think")
        await turns()
        await solver.interrupt()
        await solver.events.wait_for("settled")
        assert await solver.ask("again") == "thought"

    await main()


@everywhere
async def test_a_paused_agent_takes_no_step_until_it_is_resumed() -> None:
    client = MindClient(once(("step", {}), then="done"))
    steps: list[str] = []

    @root
    async def main() -> None:
        solver = await agent("solver", model=client)

        @solver.on()
        async def step() -> None:
            steps.append("step")

        solver.pause()
        assert solver.state == "paused"
        await solver.send("go")
        await asyncio.sleep(5.0)
        assert client.asked == []
        solver.resume()
        event = await solver.events.wait_for("settled")
        assert isinstance(event.data, AgentAnswer)
        assert event.data.text == "done"

    await main()
    assert steps == ["step"]


@everywhere
async def test_agents_names_are_unique_in_a_program_and_free_in_another() -> None:
    """There they were unique in the whole run, and creating worker-1 killed worker-10 (failure 6)."""

    @root
    async def other() -> str:
        return (await agent("worker-1", harness=thinking(echo))).path

    @root
    async def main() -> None:
        ten = await agent("worker-10", harness=thinking(echo))
        one = await agent("worker-1", harness=thinking(echo))
        with pytest.raises(ValueError, match="'worker-1' already exists"):
            await agent("worker-1", harness=thinking(echo))
        assert await other() == "/main/other-1/worker-1"
        assert [await ten.ask("a"), await one.ask("b")] == ["heard: a", "heard: b"]

    await main()


@everywhere
async def test_an_agent_is_a_child_of_its_program_in_the_tree() -> None:
    @root
    async def main() -> None:
        await agent("solver", harness=thinking(echo))
        (mine,) = current_system().tree().children
        assert [(node.name, node.kind) for node in mine.children] == [("solver", "AgentActor")]

    await main()


@everywhere
async def test_a_tool_may_make_another_agent() -> None:
    @root
    async def main() -> object:
        boss = await agent("boss", harness=thinking(once(("hire", {}))))

        @boss.on()
        async def hire() -> str:
            helper = await agent("helper", harness=thinking(echo))
            done(await helper.ask("hello"))
            return "hired"

        await boss.send("go")
        return await wait()

    assert await main() == "heard: hello"


@everywhere
async def test_a_tool_that_is_given_while_the_agent_runs_is_known_by_the_next_reply() -> None:
    seen: list[list[str]] = []

    @root
    async def main() -> None:
        solver: Agent = await agent("solver", harness=thinking(echo))
        await solver.ask("one")
        seen.append([schema.name for schema in solver.toolbox.schemas])

        @solver.on()
        async def late() -> str:
            return "late"

        with pytest.raises(ValueError, match="'late' already"):
            solver.on("late")(late)
        seen.append([schema.name for schema in solver.toolbox.schemas])

    await main()
    assert seen == [[], ["late"]]
