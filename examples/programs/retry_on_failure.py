"""A parent that watches its child fail, and gives the next one a better start.

    python examples/programs/retry_on_failure.py

What a child tells is a stream of messages. The parent reads it, learns why the child failed, and spawns another with
the failure in its prompt: a decision, where ``options(restart="transient")`` would just start the same again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from local_model import Call, LocalModel, Message, chosen, text_of

from palmette.agents.programs import Event, agent, done, emit, fail, program, spawn, wait


@program(timeout=120)
async def attempt(task: str, hint: str, model: str) -> object:
    worker = await agent("worker", model=model, system_prompt="Submit the sum, or give up.")

    @worker.on("submit")
    async def submit(answer: int) -> str:
        """Hand in the answer."""
        emit("submitted", answer)
        if answer == 42:
            done(answer)
            return "right"
        fail(f"{answer} is too small")
        return "wrong"

    await worker.send(f"{task} {hint}".strip())
    return await wait()


@program
async def solve(task: str, model: str) -> int:
    hint = ""
    for number in range(1, 4):
        handle = spawn(attempt, task, hint, model)
        async for event in handle.events:
            match event:
                case Event(type="submitted" | "failed", data=data):
                    print(f"attempt {number} {event.type}: {data}")
                    hint = f"Last time: {data}."
                case Event(type="done", data=int(answer)):
                    return answer
                case _:
                    pass
    raise RuntimeError("three attempts were not enough")


def rule(messages: Sequence[Message]) -> str | Call:
    last = messages[-1]
    if last["role"] != "user":
        return "That is all."
    return Call("submit", {"answer": 42 if "too small" in text_of(last) else 41})


async def main() -> None:
    async with LocalModel(rule) as model:
        print(f"the answer is {await solve.options(**chosen())('What is 40 + 2?', model.name)}")


if __name__ == "__main__":
    asyncio.run(main())
