"""Agents driven by pi whose processes, machines and model connections die at random answer every question once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
from pi_support import pi as pi
from pi_support import pi_command as pi_command
from pi_support import pi_processes, text
from program_support import until
from support.openai_server import HangUp, OpenAIServer, Reaction, Request

from palmette.actors import System, TreeNode
from palmette.agents.programs import Event, Handle, agent, current_system, emit, own_events, program, spawn
from palmette.supervisors import Backoff

PROGRAMS, AGENTS, QUESTIONS = 2, 2, 5
SECONDS = 10.0
BACKOFF = Backoff(min=0.1, max=1.0)


@program(image="local", max_restarts=10_000)
async def pool(number: int, model: str) -> list[list[str]]:
    async def work(name: str) -> list[str]:
        worker = await agent(name, model=model, backoff=BACKOFF, restart="permanent")
        answers: list[str] = []
        for question in range(QUESTIONS):
            answers.append(await worker.ask(f"{number}/{name}/{question}", timeout=200))
            emit("answered", f"{number}/{name}/{question}")
        heard = [m.content for turn in worker.turns for m in turn.heard if m.role == "user"]
        assert heard == worker.talk.inbox == [f"{number}/{name}/{question}" for question in range(QUESTIONS)]
        return answers

    result = await asyncio.gather(*(work(f"agent-{n}") for n in range(AGENTS)))
    assert [event.number for event in own_events().snapshot() if isinstance(event, Event)] == list(
        range(1, AGENTS * QUESTIONS + 1)
    )
    return result


class Provider:
    """Answers, and now and then hangs up instead: before a word, or in the middle of one."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self.hung_up = 0

    def __call__(self, request: Request) -> Reaction:
        if self._draw.random() < 0.25:
            self.hung_up += 1
            return self._draw.choice([HangUp(), HangUp(b"data: {")])
        said = request.body["messages"][-1]["content"]
        question = said if isinstance(said, str) else "".join(part["text"] for part in said)
        return text(f"answer to {question}")


def machines(node: TreeNode) -> list[str]:
    found = [node.path] if node.kind == "MachineActor" else []
    return found + [path for below in node.children for path in machines(below)]


async def kill_at_random(system: System, draw: random.Random) -> Counter[str]:
    kills: Counter[str] = Counter()
    end = system.loop.time() + SECONDS
    while system.loop.time() < end:
        await asyncio.sleep(0.5 + draw.random())
        found = pi_processes() if draw.random() < 0.6 else machines(system.tree())
        if found:
            victim = draw.choice(found)
            if isinstance(victim, str):
                system.whereis(victim, object).kill("at random")
                kills["machine"] += 1
            else:
                victim.kill()
                kills["pi"] += 1
    return kills


@pytest.mark.worlds("real", why="pi is a process")
@pytest.mark.usefixtures("machines_home")
async def test_pi_agents_that_are_killed_at_random_answer_every_question_once(pi: str) -> None:
    draw = random.Random(7)
    seen: Counter[object] = Counter()

    async def watch(handle: Handle[list[list[str]]]) -> None:
        number = 0
        async for event in handle.events:
            assert isinstance(event, Event)
            number += 1
            assert event.number == number
            if event.type == "answered":
                seen[event.data] += 1

    async with OpenAIServer(rule=Provider(draw)) as server:

        @program(control=False, harness=pi, max_restarts=10_000, timeout=240)
        async def main() -> tuple[Counter[str], list[list[list[str]]]]:
            model = f"openai/fake-1@{server.base_url}"
            handles = [spawn(pool, number, model) for number in range(PROGRAMS)]
            watching = [asyncio.create_task(watch(handle)) for handle in handles]
            kills = await kill_at_random(current_system(), draw)
            results = [await handle.result(timeout=200) for handle in handles]
            await asyncio.gather(*watching)
            return kills, results

        kills, results = await main()
        assert isinstance(server.rule, Provider)
        assert kills.total() > 3
        assert server.rule.hung_up
    assert results == [
        [[f"answer to {p}/agent-{a}/{q}" for q in range(QUESTIONS)] for a in range(AGENTS)] for p in range(PROGRAMS)
    ]
    assert set(seen.values()) == {1}
    assert len(seen) == PROGRAMS * AGENTS * QUESTIONS
    await until(lambda: pi_processes() == [])
