"""An agent program whose agent is a pi, and whose model answers by rule. Its argument is the harness."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.openai_server import OpenAIServer, Reaction, Request, chunk, events, usage_chunk

from palmette.agents.programs import agent, program, wait


@program(image="local")
async def workshop(model: str) -> object:
    await agent("coder", model=model)
    return await wait()


def rule(request: Request) -> Reaction:
    last = request.body["messages"][-1]
    said = str(last["content"][0]["text"] if isinstance(last["content"], list) else last["content"])
    if last["role"] == "user" and "write" in said:
        function = {"name": "write", "arguments": '{"path": "note.txt", "content": "written by pi\\n"}'}
        calls = [{"index": 0, "id": "call_0", "type": "function", "function": function}]
        return events(chunk(calls=calls), chunk(finish="tool_calls"), usage_chunk())
    words = "it is written" if last["role"] == "tool" else f"heard: {said}"
    return events(chunk(words), chunk(finish="stop"), usage_chunk())


async def main(harness: str) -> None:
    async with OpenAIServer(rule=rule) as server:
        await workshop.options(harness=harness)(f"openai/fake@{server.base_url}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
