"""The pi coding agent as a harness, with a planned model behind the proxy."""

from __future__ import annotations

import asyncio

import pytest
from harness_support import heard_from_users, is_running, local_machine, written
from pi_support import calls, pi_on, text
from pi_support import factory as factory
from pi_support import machine as machine
from pi_support import machines as machines
from pi_support import pi_command as pi_command
from pi_support import proxy as proxy
from support.openai_server import OpenAIServer

from palmette.agents import tool
from palmette.agents.harness import HarnessFactory, Settled, ToolBegan, ToolEnded, Turned
from palmette.agents.toolbox import Toolbox
from palmette.machines import LocalMachine


async def test_pi_answers_and_its_calls_are_turns(
    factory: HarnessFactory, machine: LocalMachine, openai_server: OpenAIServer
) -> None:
    """In order, as deltas, and each message is heard once."""
    openai_server.plan(text("hi"), text("again"))
    async with pi_on(factory, machine, system_prompt="Be brief.") as run:
        assert await run.asked("hello") == Settled(answer="hi")
        assert await run.asked("and now?") == Settled(answer="again")
    assert run.order == ["turn", "settled", "turn", "settled"]
    assert heard_from_users(run.turns) == ["hello", "and now?"]
    assert [turn.index for turn in run.turns] == [0, 1]
    assert run.turns[0].heard[0].role == "system"
    assert "Be brief." in run.turns[0].heard[0].content
    assert run.turns[1].usage.input_tokens == 7


async def test_pi_uses_its_own_tools_and_ours(
    factory: HarnessFactory, machine: LocalMachine, openai_server: OpenAIServer
) -> None:
    """Its own run on the machine, ours here; both are told of, between the turns that they belong to."""

    async def multiply(x: int, y: int) -> int:
        """Multiply."""
        return x * y

    toolbox = Toolbox()
    toolbox.add(tool(multiply))
    openai_server.plan(
        calls("bash", {"command": "echo on $(basename $PWD) > made.txt; cat made.txt"}),
        calls("multiply", {"x": 6, "y": 7}, number=1),
        text("42"),
    )
    async with pi_on(factory, machine, toolbox) as run:
        assert await run.asked("compute") == Settled(answer="42")
        assert (await machine.get("made.txt")).startswith(b"on ")
    assert run.order == ["turn", "tool_began", "tool_ended", "turn", "tool_began", "tool_ended", "turn", "settled"]
    own, ours = run.results
    assert own.text.startswith("on ")
    assert (ours.call.id, ours.call.name, ours.text, ours.failed) == ("call_1", "multiply", "42", False)
    offered = [each["function"]["name"] for each in openai_server.requests[0].body["tools"]]
    assert offered == ["read", "bash", "edit", "write", "multiply"]


async def test_bad_news_of_our_tools_are_told_to_the_model(
    factory: HarnessFactory, machine: LocalMachine, openai_server: OpenAIServer
) -> None:
    async def fetch(name: str) -> str:
        """Fetch."""
        return name

    toolbox = Toolbox(seconds=0.05)
    toolbox.add(tool(fetch), seconds=10)

    async def slow() -> None:
        """Slow."""
        await asyncio.Event().wait()

    toolbox.add(tool(slow))
    openai_server.plan(calls("slow", {}), text("done"))
    async with pi_on(factory, machine, toolbox) as run:
        await run.asked("go")
    (result,) = run.results
    assert result.failed
    assert "did not finish within 0.05 s" in result.text


async def test_a_tool_that_crashes_breaks_the_harness(
    factory: HarnessFactory, machine: LocalMachine, openai_server: OpenAIServer
) -> None:
    async def bad() -> None:
        """Bad."""
        raise ZeroDivisionError("a bug in a tool")

    toolbox = Toolbox()
    toolbox.add(tool(bad))
    openai_server.plan(calls("bad", {}))
    async with pi_on(factory, machine, toolbox) as run:
        await run.harness.send("go")
        with pytest.raises(ZeroDivisionError):
            await run.settled()


async def test_tools_come_and_go_while_pi_runs(
    factory: HarnessFactory, machine: LocalMachine, openai_server: OpenAIServer
) -> None:
    async def one() -> str:
        """One."""
        return "1"

    async def two() -> str:
        """Two."""
        return "2"

    toolbox = Toolbox()
    toolbox.add(tool(one))
    openai_server.plan(text("hi"))
    async with pi_on(factory, machine, toolbox) as run:
        await run.asked("hello")
        toolbox.remove("one")
        toolbox.add(tool(two))
        await run.harness.tools_changed()
        async with asyncio.timeout(30):
            names: list[str] = []
            while "two" not in names or "one" in names:
                openai_server.plan(text("hi"))
                await run.asked("which?")
                names = [each["function"]["name"] for each in openai_server.requests[-1].body["tools"]]


async def test_a_message_in_the_middle_of_a_run_is_heard_before_the_next_reply(
    factory: HarnessFactory, machine: LocalMachine, openai_server: OpenAIServer
) -> None:
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> str:
        """Wait."""
        inside.set()
        await go_on.wait()
        return "waited"

    toolbox = Toolbox()
    toolbox.add(tool(wait))
    openai_server.plan(calls("wait", {}), text("understood"))
    async with pi_on(factory, machine, toolbox) as run:
        await run.harness.send("go")
        reading = asyncio.create_task(run.settled())
        await inside.wait()
        await run.harness.send("hurry up")
        go_on.set()
        assert await reading == Settled(answer="understood")
    assert heard_from_users(run.turns) == ["go", "hurry up"]


async def test_an_interrupted_run_stops_its_tools_and_the_conversation_goes_on(
    factory: HarnessFactory, machine: LocalMachine, openai_server: OpenAIServer
) -> None:
    """Of pi's own tools, the whole tree."""
    openai_server.plan(calls("bash", {"command": "echo $$ > pid; sleep 1000 & wait"}), text("fine"))
    async with pi_on(factory, machine) as run:
        await run.harness.send("go")
        await run.until(lambda event: isinstance(event, ToolBegan))
        pid = await written(machine, "pid")
        await run.harness.interrupt()
        assert (await run.settled()).stop == "interrupted"
        assert not is_running(int(pid))
        assert await run.asked("go on") == Settled(answer="fine")


async def test_a_new_pi_goes_on_with_what_an_earlier_one_said(
    factory: HarnessFactory, machine: LocalMachine, openai_server: OpenAIServer
) -> None:
    """On another machine, from the turns alone; the journal gets nothing a second time."""
    openai_server.plan(calls("bash", {"command": "echo seen"}), text("I saw it"), text("you said hello"))
    async with pi_on(factory, machine) as run:
        await run.asked("hello")
    async with local_machine() as other, pi_on(factory, other, turns=tuple(run.turns)) as resumed:
        assert await resumed.asked("what did I say?") == Settled(answer="you said hello")
    sent = openai_server.requests[-1].body["messages"]
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert "seen" in str(sent[3]["content"])
    (turn,) = resumed.turns
    assert turn.index == 2
    assert [message.content for message in turn.heard] == ["what did I say?"]


async def test_a_pi_whose_predecessor_was_cut_short_goes_on_by_itself(
    factory: HarnessFactory, machine: LocalMachine, openai_server: OpenAIServer
) -> None:
    """It hears what became of the tools, and no message of anybody's is made up."""
    openai_server.plan(calls("bash", {"command": "echo seen"}), text("never heard"), text("going on"))
    async with pi_on(factory, machine) as run:
        await run.harness.send("hello")
        await run.until(lambda event: isinstance(event, ToolEnded))
    first = tuple(event.turn for event in run.told if isinstance(event, Turned))[:1]
    results = tuple(run.results)
    openai_server.plan(text("going on"))
    async with pi_on(factory, machine, turns=first, results=results) as resumed:
        await resumed.settled()
    assert heard_from_users(resumed.turns) == []
    assert "seen" in str(openai_server.requests[-1].body["messages"])
