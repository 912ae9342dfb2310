"""Fifty agents of ten programs, killed at random for a minute: all tasks complete, no message is lost or doubled."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence

from program_support import root, thinking
from support.worlds import simulated

from palmette.actors import System, TreeNode
from palmette.agents import Message
from palmette.agents.programs import Event, Handle, agent, current_system, emit, own_events, spawn
from palmette.supervisors import Backoff

PROGRAMS, AGENTS, QUESTIONS = 10, 5, 12
BACKOFF = Backoff(min=0.1, max=2.0)


async def slow_echo(conversation: Sequence[Message]) -> str:
    await asyncio.sleep(2.0)
    return f"answer to {conversation[-1].content}"


@root
async def pool(number: int) -> list[list[str]]:
    async def work(name: str) -> list[str]:
        worker = await agent(name, harness=thinking(slow_echo), restart="permanent", backoff=BACKOFF)
        # What an earlier incarnation of this program has asked, or told, already is not asked or told again.
        answers = [turn.said.content for turn in worker.turns]
        told = {event.data for event in own_events().snapshot() if isinstance(event, Event)}
        for question in range(QUESTIONS):
            asked = len(worker.talk.inbox) > question
            text = f"{number}/{name}/{question}"
            if question < len(answers):
                pass
            elif asked:
                await worker.events.wait_for("turn", where=lambda e, q=question: len(worker.turns) > q)
                answers.append(worker.turns[question].said.content)
            else:
                answers.append(await worker.ask(text))
            if text not in told:
                emit("answered", text)
        heard = [m.content for turn in worker.turns for m in turn.heard if m.role == "user"]
        assert heard == worker.talk.inbox == [f"{number}/{name}/{question}" for question in range(QUESTIONS)]
        return answers

    return await asyncio.gather(*(work(f"agent-{n}") for n in range(AGENTS)))


def victims(node: TreeNode, kinds: tuple[str, ...]) -> list[str]:
    found = [node.path] if node.kind in kinds and node.path != "/main" else []
    return found + [path for below in node.children for path in victims(below, kinds)]


async def kill_for_a_minute(system: System, kinds: tuple[str, ...], draw: random.Random) -> int:
    kills = 0
    until = system.loop.time() + 60.0
    while system.loop.time() < until:
        await asyncio.sleep(draw.random())
        paths = victims(system.tree(), kinds)
        if paths:
            system.whereis(draw.choice(paths), object).kill("at random")
            kills += 1
    return kills


async def play(kinds: tuple[str, ...]) -> tuple[int, list[list[list[str]]], Counter[object]]:
    seen: Counter[object] = Counter()

    async def watch(handle: Handle[list[list[str]]]) -> None:
        number = 0
        async for event in handle.events:
            assert isinstance(event, Event)
            number += 1
            assert event.number == number
            if event.type == "answered":
                seen[event.data] += 1

    @root
    async def main() -> tuple[int, list[list[list[str]]]]:
        system = current_system()
        options = pool.options(restart="transient", backoff=BACKOFF, max_restarts=10_000)
        handles = [spawn(options, number) for number in range(PROGRAMS)]
        watching = [asyncio.create_task(watch(handle)) for handle in handles]
        kills = await kill_for_a_minute(system, kinds, system.random)
        results = [await handle.result(timeout=3000.0) for handle in handles]
        await asyncio.gather(*watching)
        assert victims(system.tree(), ("AgentActor", "ProgramActor")) == []
        return kills, results

    kills, results = await main.options(max_restarts=10_000)()
    return kills, results, seen


def expected() -> list[list[list[str]]]:
    return [
        [[f"answer to {p}/agent-{a}/{q}" for q in range(QUESTIONS)] for a in range(AGENTS)] for p in range(PROGRAMS)
    ]


def complete(kills: int, results: list[list[list[str]]], seen: Counter[object]) -> None:
    assert kills > 40
    assert results == expected()
    assert set(seen.values()) == {1}
    assert len(seen) == PROGRAMS * AGENTS * QUESTIONS


@simulated(why="a minute of kills, each at an instant drawn from the seed")
async def test_agents_that_are_killed_at_random_answer_every_question_once() -> None:
    complete(*await play(("AgentActor",)))


@simulated(why="a minute of kills, each at an instant drawn from the seed")
async def test_programs_and_agents_that_are_killed_at_random_complete_their_tasks() -> None:
    complete(*await play(("AgentActor", "ProgramActor")))
