"""One agent, one machine, one answer.

    python examples/programs/single_worker.py

The program starts an agent with a machine of its own and two tools: one runs a command there, the other hands the
answer in, which ends the program.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from local_model import Call, LocalModel, Message, chosen, text_of

from palmette.agents.programs import agent, done, program, wait


@program(image="local", timeout=120)
async def count_words(text: str, model: str) -> object:
    worker = await agent("worker", model=model, system_prompt="Use run(), then submit() one number.")
    await worker.machine.put("text.txt", text.encode())

    @worker.on("run")
    async def run(command: str) -> str:
        """Run a shell command in the working directory."""
        result = await worker.exec(command)
        return result.text if result.ok else f"exit code {result.exit_code}: {result.stderr.decode()}"

    @worker.on("submit")
    async def submit(answer: int) -> str:
        """Hand in the answer."""
        done(answer)
        return "thank you"

    await worker.send("How many words are in text.txt?")
    return await wait()


def rule(messages: Sequence[Message]) -> str | Call:
    last = messages[-1]
    if last["role"] == "user":
        return Call("run", {"command": "wc -w < text.txt"})
    return Call("submit", {"answer": int(text_of(last))}) if text_of(last).strip().isdigit() else "I am done."


async def main() -> None:
    async with LocalModel(rule) as model:
        words = await count_words.options(**chosen())("A palmette is a tree trained flat on a frame", model.name)
    print(f"the text has {words} words")


if __name__ == "__main__":
    asyncio.run(main())
