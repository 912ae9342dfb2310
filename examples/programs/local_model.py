"""A model for the examples: an OpenAI-compatible endpoint on loopback that answers by rule, streamed or not.

    async with LocalModel(rule) as model:
        await main.options(...)(model.name)       # "openai/rules@http://127.0.0.1:PORT/v1"

A rule is a function: from the messages of a conversation (dicts, as OpenAI has them) to the text of the next reply,
or to a :class:`Call` of a tool. It stands in for a real model, so that the examples run offline and always alike;
``PALMETTE_MODEL=openai/gpt-5`` in the environment makes them use a real one instead, and ``--harness pi`` has the pi
coding agent drive it, on a machine for each agent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from palmette.agents.programs.options import Changes

Message = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """A wish to have a tool run."""

    tool: str
    arguments: dict[str, object]


Rule = Callable[[Sequence[Message]], "str | Call"]


def text_of(message: Message) -> str:
    """A message's text; some clients send it in parts."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def chosen(image: str = "local") -> Changes:
    """A program's options, as the command line says: ``--harness pi``, or another that needs machines of ``image``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--harness", help="react (the default), pi, pi:COMMAND or cli:COMMAND")
    harness: str | None = parser.parse_args().harness
    return {} if harness is None else {"harness": harness, "image": image}


class LocalModel:
    """See the module's text."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._server: asyncio.Server | None = None
        self._busy: set[asyncio.Task[None]] = set()

    @property
    def name(self) -> str:
        """What to pass as ``model=``."""
        assert self._server is not None, "the model answers only inside its `async with`"
        port = self._server.sockets[0].getsockname()[1]
        return os.environ.get("PALMETTE_MODEL") or f"openai/rules@http://127.0.0.1:{port}/v1"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._busy:
            task.cancel()
        await asyncio.gather(*self._busy, return_exceptions=True)
        await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._busy.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                length = int(head.partition("content-length:")[2].partition("\r\n")[0] or 0)
                asked = json.loads(await reader.readexactly(length) or b"{}")
                body, kind = self._answer(asked)
                writer.write(
                    f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has hung up
        finally:
            self._busy.discard(task)
            writer.close()

    def _answer(self, asked: dict[str, Any]) -> tuple[bytes, str]:
        messages: list[Message] = asked.get("messages", [])
        said = self._rule(messages)
        reply: Message = {"role": "assistant", "content": said if isinstance(said, str) else None}
        finish = "stop"
        if isinstance(said, Call):
            function = {"name": said.tool, "arguments": json.dumps(said.arguments)}
            reply["tool_calls"] = [{"index": 0, "id": f"call{len(messages)}", "type": "function", "function": function}]
            finish = "tool_calls"
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        common = {"id": "1", "created": 1, "model": asked.get("model", "rules")}
        if not asked.get("stream"):
            choice = {"index": 0, "message": reply, "finish_reason": finish}
            whole = {**common, "object": "chat.completion", "choices": [choice], "usage": usage}
            return json.dumps(whole).encode(), "application/json"
        common["object"] = "chat.completion.chunk"
        chunks: list[dict[str, Any]] = [
            {**common, "choices": [{"index": 0, "delta": reply, "finish_reason": None}]},
            {**common, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]},
            {**common, "choices": [], "usage": usage},
        ]
        lines = [*(json.dumps(chunk) for chunk in chunks), "[DONE]"]
        return "".join(f"data: {line}\n\n" for line in lines).encode(), "text/event-stream"
