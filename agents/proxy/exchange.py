"""One HTTP request and its answer, over ASGI: as little of a web framework as the proxy needs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping
from typing import TypeVar, cast

import msgspec

T = TypeVar("T")
Scope = MutableMapping[str, object]
Receive = Callable[[], Awaitable[MutableMapping[str, object]]]
Send = Callable[[MutableMapping[str, object]], Awaitable[None]]

MAX_BODY = 64 << 20
"""Bytes of a request."""


class HungUp(Exception):
    """The client waits for no answer."""


class TooLong(Exception):
    """The request is longer than ``MAX_BODY``."""


class Exchange:
    """Made by the server for each request."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method = cast("str", scope["method"])
        self.path = cast("str", scope["path"])
        self.query = cast("bytes", scope["query_string"]).decode("latin-1")
        self._headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in cast("list[tuple[bytes, bytes]]", scope["headers"])
        }
        self._receive = receive
        self._send = send
        self.is_begun = False
        """Whether the answer's status has gone out."""

    def header(self, name: str) -> str:
        """Empty where there is none."""
        return self._headers.get(name, "")

    async def body(self) -> bytes:
        """All of it. Raises TooLong or HungUp."""
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise HungUp
            piece = cast("bytes", message.get("body", b""))
            size += len(piece)
            if size > MAX_BODY:
                raise TooLong
            pieces.append(piece)
            if not message.get("more_body", False):
                return b"".join(pieces)

    async def unless_gone(self, work: Coroutine[object, object, T]) -> T:
        """The result of ``work``, which is cancelled where the client hangs up first. After :meth:`body` only.

        Raises:
            HungUp: it did.
        """
        working = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(self._gone())
        try:
            await asyncio.wait([working, gone], return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            raise HungUp
        finally:
            for task in (working, gone):
                task.cancel()
            await asyncio.wait([working, gone])

    async def _gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def start(self, status: int, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        """Begin the answer."""
        self.is_begun = True
        given = {"content-type": content_type, "cache-control": "no-store", **(headers or {})}
        encoded = [(name.encode(), value.encode("latin-1", "replace")) for name, value in given.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})

    async def piece(self, data: bytes) -> None:
        """A part of its body."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        """The last part."""
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def reply(
        self, status: int, body: bytes, content_type: str = "application/json", headers: Mapping[str, str] | None = None
    ) -> None:
        """The whole answer."""
        await self.start(status, content_type, {"content-length": str(len(body)), **(headers or {})})
        await self.end(body)

    async def refuse(self, status: int, text: str, code: str = "", retry_after: float | None = None) -> None:
        """An error, as OpenAI words them."""
        error = {"message": text, "type": "palmette_proxy", "param": None, "code": code or None}
        await self.reply(status, msgspec.json.encode({"error": error}), headers=waiting(retry_after))


def waiting(seconds: float | None) -> dict[str, str]:
    """The headers that ask to wait: whole seconds for all, and milliseconds for who reads OpenAI's own."""
    if seconds is None:
        return {}
    return {"retry-after": str(-int(-seconds // 1)), "retry-after-ms": str(-int(-seconds * 1000 // 1))}
