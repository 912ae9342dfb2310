"""pi as the harness of a program's agents, named and not made: what they hear, call, tell each other, and survive."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
from harness_support import is_running
from pi_support import calls, pi_process, pi_processes, text
from pi_support import pi as pi
from pi_support import pi_command as pi_command
from program_support import told, types, until
from support.openai_server import Hang, OpenAIServer, Reaction, Request, status

from palmette.agents.harnesses import pi as pi_module
from palmette.agents.programs import Agent, ProgramEnded, agent, connect, current_system, program
from palmette.agents.proxy import Proxy

pytestmark = [pytest.mark.worlds("real", why="pi is a process"), pytest.mark.usefixtures("machines_home")]


def last_of(request: Request) -> tuple[str, str]:
    """Who spoke last to the model, and what."""
    message: dict[str, Any] = request.body["messages"][-1]
    content = message["content"]
    return message["role"], content if isinstance(content, str) else "".join(part["text"] for part in content)


def echo(request: Request) -> Reaction:
    return text(f"heard: {last_of(request)[1]}")


@pytest.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer(rule=echo) as one:
        yield one
    assert pi_processes() == []


def model_of(server: OpenAIServer) -> str:
    return f"openai/fake-1@{server.base_url}"


def at_the_top() -> list[str]:
    return sorted(node.kind for node in current_system().tree().children)


def conversation(one: Agent) -> list[str]:
    """What users said to it, and what it said."""
    return [
        message.content
        for turn in one.turns
        for message in (*turn.heard, turn.said)
        if message.role in ("user", "assistant") and message.content
    ]


async def test_an_agent_answers_and_calls_the_program_s_handlers(server: OpenAIServer, pi: str) -> None:
    """Also one that was added after pi had come up; the model's plain name reaches the model's server."""

    @program(image="local", harness=pi, control=False)
    async def main() -> list[int]:
        coder = await agent("coder", model=model_of(server), system_prompt="Submit a number.")
        submitted: list[int] = []

        @coder.on("submit")
        async def submit(answer: int) -> str:
            """Hand in the answer."""
            submitted.append(answer)
            return "thank you"

        server.plan(calls("submit", {"answer": 42}))
        assert await coder.ask("What is 6 times 7?") == "heard: thank you"
        assert types(coder.events) == ["message", "turn", "tool_began", "tool_ended", "turn", "settled"]
        assert conversation(coder) == ["What is 6 times 7?", "heard: thank you"]
        assert at_the_top() == ["Limiter", "ProgramActor", "Proxy"]
        return submitted

    assert await main() == [42]
    assert {request.body["model"] for request in server.requests} == {"fake-1"}


async def test_connected_agents_talk_and_share_the_system_s_one_proxy(server: OpenAIServer, pi: str) -> None:
    def rule(request: Request) -> Reaction:
        role, said = last_of(request)
        if said == "tell the clerk":
            return calls("message", {"receiver": "clerk", "message": "file this"})
        return text("told" if role == "tool" else f"heard: {said}")

    server.rule = rule

    @program(image="local", harness=pi, control=False)
    async def main() -> str:
        boss, clerk = await asyncio.gather(*(agent(name, model=model_of(server)) for name in ("boss", "clerk")))
        connect(boss, clerk, direction="forward")
        assert await boss.ask("tell the clerk") == "told"
        settled = await clerk.events.wait_for("settled", timeout=60)
        assert at_the_top() == ["Limiter", "ProgramActor", "Proxy"]
        return settled.data.text  # type: ignore[attr-defined]

    heard = await main()
    assert heard.startswith("heard: ")
    assert "file this" in heard


async def test_a_killed_pi_comes_back_with_its_conversation_and_loses_no_message(server: OpenAIServer, pi: str) -> None:
    """It is killed while the model thinks; what it had been asked is asked again, once."""

    @program(image="local", harness=pi, control=False)
    async def main() -> None:
        coder = await agent("coder", model=model_of(server))
        assert await coder.ask("one") == "heard: one"
        server.plan(Hang())
        answer = asyncio.create_task(coder.ask("two"))
        await server.asked(2)
        pi_process().kill()
        assert await answer == "heard: two"
        assert types(coder.events).count("restarted") == 1
        assert conversation(coder) == ["one", "heard: one", "two", "heard: two"]

    await main()
    roles = [message["role"] for message in server.requests[-1].body["messages"]]
    assert roles == ["system", "user", "assistant", "user"], "the new pi knew what was said before"


async def test_a_pi_that_hangs_is_replaced(server: OpenAIServer, pi: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pi_module, "PING_SECONDS", 2.0)
    monkeypatch.setattr(pi_module, "GRACE", 0.3)

    @program(image="local", harness=pi, control=False)
    async def main() -> None:
        coder = await agent("coder", model=model_of(server))
        server.plan(Hang())
        answer = asyncio.create_task(coder.ask("go"))
        await server.asked()
        os.kill(pi_process().pid, signal.SIGSTOP)
        assert await answer == "heard: go"
        assert any("HarnessHung" in str(data) for type, data in told(coder.events) if type == "restarting")

    await main()


async def test_an_overloaded_model_is_asked_again_and_one_that_refuses_fails_the_program(
    server: OpenAIServer, pi: str
) -> None:
    @program(image="local", harness=pi, control=False)
    async def main() -> None:
        coder = await agent("coder", model=model_of(server))
        server.plan(status(529, "overloaded"))
        assert await coder.ask("one") == "heard: one"
        assert "restarted" in types(coder.events)
        server.plan(status(401, "no such key"))
        await coder.ask("two")

    with pytest.raises(ProgramEnded, match=r"ended before it answered: ModelRefused: .*no such key"):
        await main()


async def test_an_interrupted_and_a_stopped_pi(server: OpenAIServer, pi: str) -> None:
    @program(image="local", harness=pi, control=False)
    async def main() -> None:
        coder = await agent("coder", model=model_of(server))
        server.plan(calls("bash", {"command": "echo $$; exec sleep 600"}))
        await coder.send("go")
        await coder.events.wait_for("tool_began", timeout=60)
        await coder.interrupt()
        settled = await coder.events.wait_for("settled", timeout=60)
        assert settled.data.stop == "interrupted"  # type: ignore[attr-defined]
        assert await coder.ask("go on") == "heard: go on"
        process = pi_process()
        await coder.stop()
        assert not is_running(process.pid)
        assert (await (await agent("coder", model=model_of(server))).ask("anew")) == "heard: anew"

    await main()


async def test_a_dead_proxy_comes_back_and_its_agents_after_it(server: OpenAIServer, pi: str) -> None:
    @program(image="local", harness=pi, control=False)
    async def main() -> None:
        coder = await agent("coder", model=model_of(server))
        assert await coder.ask("one") == "heard: one"
        current_system().whereis("/model-proxy-1", Proxy).kill("by a test")
        await coder.events.wait_for("restarted", timeout=60)
        assert await coder.ask("two") == "heard: two"
        assert conversation(coder) == ["one", "heard: one", "two", "heard: two"]

    await main()


async def test_programs_in_other_processes_have_a_proxy_of_their_own(server: OpenAIServer, pi: str) -> None:
    """Their agents end with them."""
    from process_programs import coding

    @program(control=False)
    async def main() -> str:
        return await coding(model_of(server), pi)

    assert await main() == "heard: hello"
    await until(lambda: pi_processes() == [])
