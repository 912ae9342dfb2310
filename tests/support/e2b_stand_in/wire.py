"""The Connect protocol as envd speaks it: JSON unary calls, JSON server streams in frames, and their errors."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator
from typing import cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

Message = dict[str, object]

_STATUS = {
    "invalid_argument": 400,
    "unauthenticated": 401,
    "not_found": 404,
    "already_exists": 409,
    "resource_exhausted": 429,
    "unknown": 500,
    "internal": 500,
    "unimplemented": 501,
    "unavailable": 503,
}


class RpcError(Exception):
    """A call failed in a way that the protocol has a code for."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def response(self) -> Response:
        return JSONResponse({"code": self.code, "message": str(self)}, _STATUS[self.code])


def frame(message: Message, *, last: bool = False) -> bytes:
    """One message of a stream: a flag byte (2 on the last), four bytes of length, JSON."""
    body = json.dumps(message).encode()
    return struct.pack(">BI", 2 if last else 0, len(body)) + body


async def unframed(request: Request) -> Message:
    """The only message of the request that opens a server stream."""
    return decoded((await request.body())[5:])


async def unary(request: Request) -> Message:
    return decoded(await request.body())


async def frames(request: Request) -> AsyncIterator[Message]:
    """The messages of a client stream, as they come."""
    held = b""
    async for chunk in request.stream():
        held += chunk
        while len(held) >= 5 and len(held) >= 5 + (size := int.from_bytes(held[1:5], "big")):
            yield decoded(held[5 : 5 + size])
            held = held[5 + size :]


def decoded(body: bytes) -> Message:
    try:
        found = json.loads(body)
    except ValueError as error:
        raise RpcError("invalid_argument", f"not JSON: {error}") from error
    if not isinstance(found, dict):
        raise RpcError("invalid_argument", "not an object")
    return cast(Message, found)


def child(message: Message, name: str) -> Message:
    """A message inside a message; empty where there is none."""
    found = message.get(name)
    return cast(Message, found) if isinstance(found, dict) else {}


def text(message: Message, name: str, default: str = "") -> str:
    found = message.get(name)
    return found if isinstance(found, str) else default


def number(message: Message, name: str, default: int = 0) -> int:
    found = message.get(name)
    return int(found) if isinstance(found, (int, float, str)) else default


def words(message: Message, name: str) -> list[str]:
    found = message.get(name)
    return [str(word) for word in cast("list[object]", found)] if isinstance(found, list) else []


def texts(message: Message, name: str) -> dict[str, str]:
    return {key: str(value) for key, value in child(message, name).items()}
