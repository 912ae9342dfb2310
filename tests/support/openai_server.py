"""A chat completions endpoint on loopback that does as it is told, faults included.

It is a real HTTP server for real clients. Each request takes the next of the planned reactions:

>>> async with OpenAIServer() as server:
...     server.plan(says("hello"), status(429, "slow down", retry_after="2"), Hang())
...     client = OpenAIClient("m", base_url=server.base_url)

It is written on asyncio streams and not on a web framework, because what it is for lies below one: connections that
hang, drip, or break in the middle of an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Any

import msgspec
import pytest


class Request(msgspec.Struct, frozen=True):
    """What a client sent."""

    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: dict[str, Any]


class Http(msgspec.Struct, frozen=True):
    """Answer with this."""

    status: int
    body: bytes
    headers: dict[str, str] = {}


class Hang(msgspec.Struct, frozen=True):
    """Say nothing until the client hangs up."""


class Drip(msgspec.Struct, frozen=True):
    """Send an answer that goes on, byte by byte, until the client hangs up."""


class HangUp(msgspec.Struct, frozen=True):
    """Close the connection after ``body`` bytes of a longer answer; after nothing at all where it is ``None``."""

    body: bytes | None = None


class Stream(msgspec.Struct, frozen=True):
    """Send ``pieces`` of a stream of events, each once ``go_on`` was released once more, and hang up."""

    pieces: tuple[bytes, ...]
    go_on: asyncio.Semaphore


Reaction = Http | Hang | Drip | HangUp | Stream


def says(
    text: str | None,
    *,
    calls: Sequence[tuple[str, str]] = (),
    finish: str | None = None,
    usage: tuple[int, int] = (7, 3),
    tokens: tuple[list[int], list[int], list[float]] | None = None,
    cost: float | None = None,
    **more: object,
) -> Http:
    """A completion.

    ``calls`` are (tool, arguments), ``tokens`` are prompt ids, output ids and log-probabilities, and ``more`` goes to
    the top level.
    """
    message: dict[str, object] = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = [
            {"id": f"id{at}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for at, (name, arguments) in enumerate(calls)
        ]
    choice: dict[str, object] = {
        "index": 0,
        "message": message,
        "finish_reason": finish or ("tool_calls" if calls else "stop"),
    }
    spent: dict[str, object] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    if cost is not None:
        spent["cost"] = cost
    body: dict[str, object] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "served-model",
        "choices": [choice],
        "usage": spent,
    }
    if tokens is not None:
        prompt, output, logprobs = tokens
        body["prompt_token_ids"] = prompt
        choice["token_ids"] = output
        choice["logprobs"] = {"content": [{"token": "t", "logprob": value, "top_logprobs": []} for value in logprobs]}
    return answers(body | more)


def answers(body: object, *, status: int = 200) -> Http:
    """Any JSON."""
    return Http(status, msgspec.json.encode(body), {"content-type": "application/json"})


def events(*chunks: object) -> Http:
    """A stream of chunks, sent at once and ended as OpenAI does."""
    return Http(200, sse(*chunks, "[DONE]"), {"content-type": "text/event-stream"})


def sse(*chunks: object) -> bytes:
    """The bytes of some events."""
    return b"".join(
        b"data: " + (chunk.encode() if isinstance(chunk, str) else msgspec.json.encode(chunk)) + b"\n\n"
        for chunk in chunks
    )


def chunk(
    text: str | None = None, *, finish: str | None = None, calls: object = None, **more: object
) -> dict[str, object]:
    """A piece of a completion; ``more`` goes to its choice."""
    delta: dict[str, object] = {"role": "assistant", "content": text}
    if calls is not None:
        delta["tool_calls"] = calls
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "served-model",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish, **more}],
    }


def usage_chunk(prompt: int = 7, completion: int = 3) -> dict[str, object]:
    """What comes last where the usage was asked for."""
    spent = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "served-model", "choices": [],
        "usage": spent,
    }  # fmt: skip


def status(code: int, message: str, *, error_code: str | None = None, retry_after: str | None = None) -> Http:
    """An error as OpenAI words it."""
    error = {"message": message, "type": "error", "param": None, "code": error_code}
    headers = {"content-type": "application/json"} | ({"retry-after": retry_after} if retry_after else {})
    return Http(code, msgspec.json.encode({"error": error}), headers)


class OpenAIServer:
    """``key``: refuse requests that do not carry it. ``requests``: what came, in order.

    ``rule``: what is done with a request where nothing is planned.
    """

    def __init__(self, *, key: str | None = None, rule: Callable[[Request], Reaction] | None = None) -> None:
        self.key = key
        self.rule = rule
        self.requests: list[Request] = []
        self._plan: deque[Reaction] = deque()
        self._news = asyncio.Condition()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def plan(self, *reactions: Reaction) -> None:
        """Add to what is done with the coming requests."""
        self._plan.extend(reactions)

    @property
    def port(self) -> int:
        assert self._server is not None, "the server runs only inside its `async with`"
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def asked(self, times: int = 1) -> None:
        """Wait until so many requests have come, since the beginning."""
        async with asyncio.timeout(20), self._news:
            await self._news.wait_for(lambda: len(self.requests) >= times)

    async def idle(self) -> None:
        """Wait until every client has hung up."""
        async with asyncio.timeout(10):
            while self._connections:
                await asyncio.wait(self._connections)

    async def __aenter__(self) -> OpenAIServer:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            # The client may reset at any point; that is what some tests are about.
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._one_request(reader, writer):
                    pass
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _one_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection is good for another one."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        request = Request(head[0].split()[1], headers, msgspec.json.decode(body or b"{}"))
        self.requests.append(request)
        async with self._news:
            self._news.notify_all()
        match self._reaction(request):
            case Http() as answer:
                await _send(writer, answer, len(answer.body))
                return True
            case Hang():
                await reader.read()
            case Drip():
                await _send(writer, Http(200, b"", {"content-type": "application/json"}), 1 << 20)
                while not reader.at_eof():
                    writer.write(b" ")
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(reader.read(1), 0.01)
            case Stream(pieces, go_on):
                writer.write(b"HTTP/1.1 200 Planned\r\ncontent-type: text/event-stream\r\n\r\n")
                for piece in pieces:
                    await go_on.acquire()
                    writer.write(piece)
                    await writer.drain()
            case HangUp(None):
                pass
            case HangUp(part):
                await _send(writer, Http(200, part or b"", {"content-type": "application/json"}), 1 << 20)
        return False

    def _reaction(self, request: Request) -> Reaction:
        given = request.headers.get("authorization")
        if self.key is not None and given != f"Bearer {self.key}":
            return status(401, f"Incorrect API key provided: {given}")
        if self._plan:
            return self._plan.popleft()
        return self.rule(request) if self.rule else status(500, "the test planned no reaction to this request")


async def _send(writer: asyncio.StreamWriter, answer: Http, length: int) -> None:
    headers = {"content-length": str(length), **answer.headers}
    lines = [f"HTTP/1.1 {answer.status} Planned", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    writer.write("\r\n".join(lines).encode("latin-1") + answer.body)
    await writer.drain()


@pytest.fixture
async def openai_server() -> AsyncIterator[OpenAIServer]:
    """A server for one test."""
    async with OpenAIServer() as server:
        yield server
