"""An agent program whose agent is a pi, and whose model answers by rule. Arguments: the harness."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "programs"))

from collections.abc import Sequence

from local_model import Call, LocalModel, Message, text_of

from palmette.agents.programs import agent, program, wait


@program(image="local")
async def workshop(model: str) -> object:
    await agent("coder", model=model)
    return await wait()


def rule(messages: Sequence[Message]) -> str | Call:
    last = messages[-1]
    if last["role"] == "user" and "write" in text_of(last):
        return Call("write", {"path": "note.txt", "content": "written by pi\n"})
    return "it is written" if last["role"] == "tool" else f"heard: {text_of(last)}"


async def main(harness: str) -> None:
    async with LocalModel(rule) as model:
        await workshop.options(harness=harness)(model.name)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
