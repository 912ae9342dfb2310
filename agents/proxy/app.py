"""The proxy's doors, as an ASGI application.

::

    POST /SESSION/v1/chat/completions | completions | responses     to the model, recorded
    GET  /SESSION/v1/models                                         to the model's server
    GET  /SESSION/tools?after=N                                     our tools, once they are newer than version N
    POST /SESSION/tools/NAME                                        call one: {"id", "arguments"} -> {"text", "failed"}

All of them ask for the session's token (``Authorization: Bearer``). Nothing else is passed on: no header, no path.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from urllib.parse import parse_qs

import msgspec

from palmette.actors import Ref
from palmette.agents.conversation import ToolCall
from palmette.agents.errors import ModelError
from palmette.agents.limiter import Limiter
from palmette.agents.proxy.call import PATHS, ModelCall
from palmette.agents.proxy.exchange import MAX_BODY, Exchange, HungUp, Receive, Scope, Send, TooLong
from palmette.agents.proxy.records import Upstream
from palmette.agents.proxy.session import Session
from palmette.agents.proxy.upstream import Line

_SIGN_OF_LIFE = 30.0
"""Seconds after which a client that waits for a tool is sent a space: some hang up on who is silent for minutes."""
_CLOSED = "this token is not valid here, or its session was closed"
TOOLS_SECONDS = 20.0
"""How long a program that asks for newer tools is kept waiting for some."""


class ProxyApp:
    """See the module's text.

    Args:
        upstream: Where calls go.
        line: Through what.
        sessions: By id; the proxy's actor adds and removes.
        limiter: Whom to ask before each call.
        broken: Told of what should not have happened.
    """

    def __init__(
        self,
        upstream: Upstream,
        line: Line,
        sessions: Mapping[str, Session],
        limiter: Callable[[], Ref[Limiter] | None],
        broken: Callable[[Exception], None],
    ) -> None:
        self._upstream = upstream
        self._line = line
        self._sessions = sessions
        self._limiter = limiter
        self._broken = broken

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send)
        task = asyncio.current_task()
        assert task is not None
        try:
            name, _, path = exchange.path.removeprefix("/").partition("/")
            session = self._sessions.get(name)
            scheme, _, token = exchange.header("authorization").partition(" ")
            if session is None or scheme.lower() != "bearer" or not session.knows(token.strip()):
                await exchange.refuse(401, _CLOSED, "invalid_api_key")
                return
            session.running.add(task)
            try:
                await self._answer(session, exchange, path)
            except asyncio.CancelledError:
                if not session.is_over or exchange.is_begun:
                    raise
                task.uncancel()
                await exchange.refuse(401, _CLOSED, "invalid_api_key")
            finally:
                session.running.discard(task)
        except TooLong:
            await exchange.refuse(413, f"the request is longer than {MAX_BODY} bytes")
        except HungUp:
            pass
        except Exception as error:
            self._broken(error)
            raise

    async def _answer(self, session: Session, exchange: Exchange, path: str) -> None:
        kind, _, rest = path.partition("/")
        match exchange.method, kind, rest:
            case "POST", "v1", rest if rest in PATHS:
                await self._call(session, exchange, rest)
            case "GET", "v1", "models":
                await self._models(exchange)
            case "GET", "tools", "":
                await _tools(session, exchange)
            case "POST", "tools", name if name:
                await _use_tool(session, exchange, name)
            case _:
                served = ", ".join(f"/v1/{each}" for each in (*PATHS, "models"))
                await exchange.refuse(404, f"there is no {exchange.method} /{path} here; there is {served}")

    async def _call(self, session: Session, exchange: Exchange, path: str) -> None:
        try:
            body = msgspec.json.decode(await exchange.body(), type=dict[str, object])
        except (msgspec.DecodeError, UnicodeError) as error:
            await exchange.refuse(400, f"the request is no JSON object: {error}")
            return
        call = ModelCall(session, exchange, path, body, upstream=self._upstream, line=self._line)
        await call.run(self._limiter())

    async def _models(self, exchange: Exchange) -> None:
        try:
            async with self._line.ask("GET", "models") as answer:
                text = self._line.without_key((await answer.aread()).decode("utf-8", "replace"))
                kind = answer.headers.get("content-type", "application/json")
                await exchange.reply(answer.status_code, text.encode(), kind)
        except ModelError as error:
            await exchange.refuse(502, str(error))


async def _tools(session: Session, exchange: Exchange) -> None:
    await exchange.body()
    (than,) = parse_qs(exchange.query).get("after", ["-1"])[:1]
    with contextlib.suppress(ValueError):
        await exchange.unless_gone(session.newer_tools(int(than), TOOLS_SECONDS))
    await exchange.reply(200, msgspec.json.encode({"version": session.tools_version, "tools": session.tools}))


class _Wish(msgspec.Struct):
    id: str
    arguments: str


async def _use_tool(session: Session, exchange: Exchange, name: str) -> None:
    try:
        wish = msgspec.json.decode(await exchange.body(), type=_Wish)
    except (msgspec.DecodeError, UnicodeError) as error:
        await exchange.refuse(400, f'a call of a tool is {{"id": …, "arguments": …}}: {error}')
        return
    call = ToolCall(id=wish.id, name=name, arguments=wish.arguments)

    async def use() -> tuple[str, bool]:
        using = asyncio.ensure_future(session.use_tool(call))
        try:
            while not (await asyncio.wait([using], timeout=_SIGN_OF_LIFE))[0]:
                await exchange.piece(b" ")
            return using.result()
        finally:
            using.cancel()

    await exchange.start(200, "application/json")
    text, failed = await exchange.unless_gone(use())
    await exchange.end(msgspec.json.encode({"text": text, "failed": failed}))
