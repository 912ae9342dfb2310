"""Edges between agents: who may send messages and files to whom, and until when."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from program_support import MindClient, Says, calling, echo, for_ever, results, root, thinking
from support.worlds import everywhere, turns

from palmette.agents import Message, ToolCall
from palmette.agents.programs import Agent, agent, connect, program, spawn


async def use(one: Agent, name: str, **arguments: str) -> str:
    """Call a tool of an agent as its harness would."""
    return str(await one.toolbox.run(ToolCall(id="t", name=name, arguments=json.dumps(arguments))))


async def pair(direction: str = "both") -> tuple[Agent, Agent]:
    a, b = await agent("a", harness=thinking(echo)), await agent("b", harness=thinking(echo))
    connect(a, b, direction=direction)  # pyright: ignore[reportArgumentType]
    return a, b


@everywhere
async def test_connected_agents_send_each_other_messages_that_say_who_speaks() -> None:
    client = MindClient(echo)

    def greets(conversation: Sequence[Message]) -> Says:
        if conversation[-1].content == "go":
            return calling(("message", {"receiver": "b", "message": "hello"}))
        return " ".join(results(conversation))

    @root
    async def main() -> None:
        a, b = await agent("a", harness=thinking(greets)), await agent("b", model=client)
        connect(a, b)
        assert await a.ask("go") == "sent to b"
        await b.events.wait_for("settled")
        assert await use(b, "message", receiver="a", message="and you") == "sent to a"

    await main()
    assert client.asked[0][-1].content == "[From: a] hello"


@everywhere
async def test_a_forward_edge_lets_only_the_first_send() -> None:
    @root
    async def main() -> None:
        a, b = await pair("forward")
        assert await use(a, "message", receiver="b", message="x") == "sent to b"
        assert await use(b, "message", receiver="a", message="x") == (
            "Agent 'b' is not connected to 'a' for this; it is to: nobody"
        )
        assert "not connected" in await use(a, "download_file", sender="b", path="x")
        assert "not connected" in await use(b, "send_file", receiver="a", path="x")

    await main()


@everywhere
async def test_a_direction_that_is_none_is_refused() -> None:
    @root
    async def main() -> None:
        with pytest.raises(ValueError, match="'both' or 'forward', not 'backward'"):
            await pair("backward")

    await main()


@everywhere
async def test_agents_without_an_edge_have_no_such_tools() -> None:
    @root
    async def main() -> None:
        a = await agent("a", harness=thinking(echo))
        assert await use(a, "message", receiver="b", message="x") == "there is no tool 'message'; the tools are: none"
        with pytest.raises(ValueError, match="to itself"):
            connect(a, a)

    await main()


@everywhere
async def test_an_edge_ends_with_its_agent_and_a_later_one_of_the_same_name_has_none() -> None:
    """Failure 13: there the later agent inherited the edge."""

    @root
    async def main() -> None:
        a, b = await pair()
        await b.stop()
        assert b.state == "ended"
        assert "not connected to 'b'" in await use(a, "message", receiver="b", message="x")
        later = await agent("b", harness=thinking(echo))
        assert "not connected to 'b'" in await use(a, "message", receiver="b", message="x")
        assert not later.toolbox.schemas
        connect(a, later)
        assert await use(a, "message", receiver="b", message="x") == "sent to b"
        with pytest.raises(ValueError, match="'b' has ended"):
            connect(a, b)

    await main()


@everywhere
async def test_agents_of_different_programs_can_be_connected_unless_their_names_clash() -> None:
    @root
    async def child() -> None:
        await agent("a", harness=thinking(echo))
        await agent("b", harness=thinking(echo))
        await for_ever()

    @root
    async def main() -> None:
        a = await agent("a", harness=thinking(echo))
        first, second = spawn(child), spawn(child)
        for handle in (first, second):
            while len(handle.agents) < 2:
                await turns()
        connect(a, first.agents["b"])
        assert await use(a, "message", receiver="b", message="x") == "sent to b"
        with pytest.raises(ValueError, match="another agent called 'b': /main/child-1/b"):
            connect(a, second.agents["b"])

    await main()


@everywhere
async def test_an_agent_without_a_machine_says_so() -> None:
    @root
    async def main() -> None:
        a, _ = await pair()
        assert "agent 'a' has no machine; pass image=" in await use(a, "send_file", receiver="b", path="x")

    await main()


# --- on real machines ---------------------------------------------------------------------------------------------


@pytest.mark.worlds("real", why="a machine is a process")
async def test_connected_agents_send_and_fetch_files(machines_home: Path) -> None:
    @program(control=False, image="local")
    async def main() -> None:
        a, b = await agent("a", harness=thinking(echo)), await agent("b", harness=thinking(echo))
        connect(a, b, direction="forward")
        await a.machine.put("report.txt", b"12345")
        assert await use(a, "send_file", receiver="b", path="report.txt") == "5 bytes to b: report.txt"
        assert await b.machine.get("report.txt") == b"12345"
        told = await use(b, "download_file", sender="a", path="report.txt", dest_path="copy/of.txt")
        assert told == "5 bytes from a: copy/of.txt"
        assert (await b.exec("cat copy/of.txt")).text == "12345"
        assert "report.tx" in await use(a, "send_file", receiver="b", path="report.tx")

    await main()
