"""Harnesses by name: what ``react``, ``pi`` and ``cli:COMMAND`` mean in a program, and what they share."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from program_support import types
from support.openai_server import OpenAIServer, Reaction, Request, says

from palmette.actors import ActorDied, TreeNode
from palmette.agents import AgentError
from palmette.agents.limiter import Limiter
from palmette.agents.programs import Agent, agent, current_system, program
from palmette.machines import MachineError

pytestmark = [pytest.mark.worlds("real", why="sockets and processes"), pytest.mark.usefixtures("machines_home")]


def echo(request: Request) -> Reaction:
    last: dict[str, Any] = request.body["messages"][-1]
    return says(f"heard: {last['content']}")


@pytest.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer(rule=echo) as one:
        yield one


def model_of(server: OpenAIServer) -> str:
    return f"openai/fake-1@{server.base_url}"


def conversation(one: Agent) -> list[str]:
    """What users said to it, and what it said."""
    return [
        message.content
        for turn in one.turns
        for message in (*turn.heard, turn.said)
        if message.role in ("user", "assistant")
    ]


async def test_agents_with_one_endpoint_ask_one_limiter_first(server: OpenAIServer) -> None:
    """Of all programs of the system. One that dies is back in a moment, and so is who needed it meanwhile."""

    @program(control=False)
    async def child(number: int) -> str:
        one = await agent("one", model=model_of(server))
        answer = await one.ask(f"from {number}")
        assert "restarting" not in types(one.events) or number == 7
        return answer

    @program(control=False)
    async def main() -> None:
        answers = await asyncio.gather(*(child(number) for number in range(6)))
        assert answers == [f"heard: from {number}" for number in range(6)]
        limiter = current_system().whereis("/model-limiter-1", Limiter)
        assert (await limiter.call(Limiter.statistics)).granted == len(server.requests) == 6
        async with OpenAIServer(rule=echo) as other:
            await (await agent("two", model=model_of(other))).ask("elsewhere")
        assert (await limiter.call(Limiter.statistics)).granted == 6
        limiter.kill("by a test")
        assert await child(7) == "heard: from 7"

    await main()


async def test_any_command_can_be_the_harness(server: OpenAIServer) -> None:
    """``cli:``: run once for each message, with an address and a token of its own."""
    script = (
        "import json, os, sys, urllib.request as r; e = os.environ\n"
        "q = {'model': e['OPENAI_MODEL'], 'messages': [{'role': 'user', 'content': sys.stdin.read()}]}\n"
        "h = {'authorization': 'Bearer ' + e['OPENAI_API_KEY'], 'content-type': 'application/json'}\n"
        "a = r.urlopen(r.Request(e['OPENAI_BASE_URL'] + '/chat/completions', json.dumps(q).encode(), h))\n"
        "print(json.load(a)['choices'][0]['message']['content'])\n"
    )

    @program(image="local", harness=f"cli:{sys.executable} agent.py", control=False)
    async def main() -> list[str]:
        worker = await agent("worker", model=model_of(server))
        await worker.machine.put("agent.py", script.encode())
        assert await worker.ask("one") == "heard: one"
        assert await worker.ask("two") == "heard: two"
        return conversation(worker)

    assert await main() == ["one", "heard: one", "two", "heard: two"]


async def test_what_a_harness_by_name_lacks_is_told_at_once(server: OpenAIServer) -> None:
    """And nothing is left of the agent."""

    @program(control=False)
    async def main() -> None:
        for harness, image, model, why in [
            ("pie", "local", model_of(server), "there is no harness 'pie'; there are pi, pi:COMMAND"),
            ("pi", "local", "", "which model is behind 'pi'"),
            ("pi", None, model_of(server), "needs a machine"),
            ("cli:", "local", model_of(server), "cli: needs a command"),
            ("pi:no-such-pi", "local", model_of(server), "no-such-pi"),
        ]:
            with pytest.raises((AgentError, MachineError), match=why):
                await agent("coder", harness=harness, image=image, model=model)
        assert below(current_system().tree().children[0]) == []
        with pytest.raises(ActorDied):
            current_system().whereis("/main/coder", object)

    await main()


def below(node: TreeNode) -> list[str]:
    return [each.path for each in node.children]
