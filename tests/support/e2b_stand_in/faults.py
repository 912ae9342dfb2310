"""Failures on order: which requests are answered with what, in place of or before the true answer."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:  # tests that plan a fault need no server
    from starlette.types import ASGIApp, Receive, Scope, Send

_NAMES = re.compile(r"/(i[0-9a-f]{20})(?=/|$)")


class Fault(msgspec.Struct, kw_only=True):
    """What happens to the next ``times`` requests whose "METHOD /path" matches the expression ``where``."""

    where: str
    times: int = 1
    status: int | None = None
    """Answered at once with this, JSON ``message`` and ``headers``."""
    message: str = "injected"
    headers: dict[str, str] = {}
    delay: float = 0.0
    """Seconds before the answer."""
    hang: bool = False
    """No answer at all, for as long as the client waits."""
    after: bool = False
    """The true answer is made, and the connection broken in place of sending it."""


class Faults:
    """Counts what the server is asked, and spoils some of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.planned: list[Fault] = []
        self.asked: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/stand-in/"):
            await self._app(scope, receive, send)
            return
        what = f"{scope['method']} {scope['path']}"
        self.asked[_NAMES.sub("/{id}", what)] += 1
        fault = next((one for one in self.planned if one.times > 0 and re.search(one.where, what)), None)
        if fault is None:
            await self._app(scope, receive, send)
            return
        fault.times -= 1
        await asyncio.sleep(fault.delay)
        if fault.hang:
            while (await receive())["type"] != "http.disconnect":
                pass
        elif fault.after:
            await self._app(scope, receive, _lost)
            # Headers that promise a body, and an error instead of it: the server can but break the connection.
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})
            raise ConnectionResetError(what)
        elif fault.status is None:
            await self._app(scope, receive, send)
        else:
            await _answer(fault, fault.status, receive, send)


async def _answer(fault: Fault, status: int, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass
    headers = {"content-type": "application/json"} | fault.headers
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": msgspec.json.encode({"code": status, "message": fault.message})})


async def _lost(message: object) -> None:
    del message
