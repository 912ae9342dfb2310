"""The same question to several agents at once, and a vote.

    python examples/programs/gather.py

``asyncio.gather`` of calls runs the programs side by side. Where one fails, the others are cancelled with their agents
before the error comes out, as anywhere in asyncio with a task group.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from local_model import Call, LocalModel, Message, chosen, text_of

from palmette.agents.programs import agent, program


@program(timeout=120)
async def opinion(voter: int, question: str, model: str) -> str:
    one = await agent("voter", model=model, system_prompt=f"You are voter {voter}.")
    return await one.ask(f"As voter {voter}: {question}")


@program
async def vote(question: str, model: str) -> Counter[str]:
    return Counter(await asyncio.gather(*(opinion(voter, question, model) for voter in range(5))))


def rule(messages: Sequence[Message]) -> str | Call:
    return "tea" if text_of(messages[-1]).startswith(("As voter 0", "As voter 3")) else "coffee"


async def main() -> None:
    async with LocalModel(rule) as model:
        for choice, votes in (await vote.options(**chosen())("Tea or coffee?", model.name)).most_common():
            print(f"{choice}: {votes}")


if __name__ == "__main__":
    asyncio.run(main())
