"""Programs that call programs: a draft, its review, and its revision, as functions that are awaited.

    python examples/programs/composition.py

Each call is a program of its own, a child of the one that calls: with its own agent, its own events and its own end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from local_model import Call, LocalModel, Message, chosen, text_of

from palmette.agents.programs import agent, program


@program
async def draft(topic: str, model: str) -> str:
    writer = await agent("writer", model=model, system_prompt="You write one line.")
    return await writer.ask(f"Write about {topic}.")


@program
async def review(text: str, model: str) -> str:
    critic = await agent("critic", model=model, system_prompt="You name one flaw.")
    return await critic.ask(f"Review: {text}")


@program
async def revise(text: str, flaw: str, model: str) -> str:
    # Also called "writer": names are a program's own.
    writer = await agent("writer", model=model, system_prompt="You write one line.")
    return await writer.ask(f"Revise: {text} ({flaw})")


@program
async def article(topic: str, model: str) -> str:
    text = await draft(topic, model)
    flaw = await review(text, model)
    return await revise(text, flaw, model)


def rule(messages: Sequence[Message]) -> str | Call:
    match text_of(messages[-1]).partition(" "):
        case ("Write", _, _):
            return "Trees are tall."
        case ("Review:", _, _):
            return "too plain"
        case _:
            return "Trees stand tall and patient."


async def main() -> None:
    async with LocalModel(rule) as model:
        print(await article.options(**chosen())("trees", model.name))


if __name__ == "__main__":
    asyncio.run(main())
