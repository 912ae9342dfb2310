"""The actor that holds the connection to one MCP server, through the official SDK.

A server on standard input and output is started by the actor and ends with it, with all that it started; one at an
address is connected to. In both cases the server's end is the actor's: it is noticed at once where there is a process,
and by a look every :data:`PROBE_SECONDS` elsewhere, which also finds new tools. Its supervisor starts it anew.

>>> tree = Supervisor.spec(children=[child(McpServer, StdioServer(("uvx", "mcp-server-time")), name="time")])

The server's process has the environment that the SDK gives it (``HOME``, ``PATH`` and the like) and what its settings
say, and nothing else of this process's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Final

import msgspec

from palmette.actors import Actor, endpoint, time_left
from palmette.agents.boundary import in_plain_words, public_url
from palmette.agents.conversation import ToolSchema
from palmette.agents.endpoint import is_local
from palmette.agents.errors import AgentError, MissingExtra, NoApiKey

if TYPE_CHECKING:
    from mcp import Client
    from mcp.client._transport import Transport, TransportStreams
    from mcp.types import CallToolResult

PROBE_SECONDS: Final = 30.0
"""How often its tools are listed anew, and how long the answer may take."""
_HTTP_SECONDS: Final = 300.0
"""Between two pieces of an answer; how long a call takes is its own deadline's affair."""
_CLOSED: Final = -32000
"""The SDK's error code for a connection that is closed."""
_Json = dict[str, object]


class McpError(AgentError):
    """An MCP server ended, cannot be reached, or does not speak the protocol."""

    retryable = True


class StdioServer(msgspec.Struct, frozen=True):
    """A program that speaks MCP on its standard input and output."""

    command: tuple[str, ...]
    env: dict[str, str] = {}
    """Besides the few variables that every server has."""
    cwd: str | None = None

    def __repr__(self) -> str:
        return f"StdioServer({self.command[0]!r}, …)"  # arguments and environment may hold secrets


class HttpServer(msgspec.Struct, frozen=True):
    """A server that speaks MCP's streamable HTTP."""

    url: str
    token_env: str | None = None
    """The environment variable with its bearer token, if it wants one."""

    def __repr__(self) -> str:
        return f"HttpServer({public_url(self.url)!r})"


class ToolOutcome(msgspec.Struct, frozen=True):
    """What a tool had to say."""

    text: str
    failed: bool = False


class McpServer(Actor):
    """One server. It is up when the server has answered the handshake and listed its tools."""

    def __init__(self, server: StdioServer | HttpServer) -> None:
        self._server = server
        self._client: Client | None = None
        self._schemas: list[ToolSchema] = []
        self._gone = asyncio.Event()

    async def started(self) -> None:
        await asyncio.to_thread(_import_sdk)
        ready: asyncio.Future[None] = self.system.loop.create_future()
        # One task of its own: what the SDK opens has to be closed where it was opened.
        self.start_task(self._hold(ready))
        await ready

    @endpoint
    async def list_tools(self) -> list[ToolSchema]:
        """Its tools, as the model is told of them."""
        return self._schemas

    @endpoint
    async def call_tool(self, name: str, arguments: dict[str, object]) -> ToolOutcome:
        """Run one of its tools; several may run at once. The call's deadline is the tool's."""
        return self.answer_later(self._call(name, arguments, time_left()))

    def describe_state(self) -> object:
        return {"server": repr(self._server), "tools": [schema.name for schema in self._schemas]}

    async def _hold(self, ready: asyncio.Future[None]) -> None:
        from mcp import Client

        try:
            async with Client(self._transport()) as client:
                self._client = client
                self._schemas = await _schemas(client)
                ready.set_result(None)
                while not await _happens(self._gone, PROBE_SECONDS):
                    async with asyncio.timeout(PROBE_SECONDS):
                        self._schemas = await _schemas(client)
            raise McpError(f"{self._server!r} ended")
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises, the connection is lost
            told = error if isinstance(error, AgentError) else self._lost(error)
            if not ready.done():
                ready.set_exception(told)
                ready.exception()  # looked at, if this crash is faster than whoever waits
            raise told from None

    async def _call(self, name: str, arguments: _Json, seconds: float | None) -> ToolOutcome:
        from mcp import MCPError

        assert self._client is not None, "nobody calls before the start is complete"
        try:
            async with asyncio.timeout(seconds):
                return _outcome(await self._client.call_tool(name, arguments))
        except TimeoutError:
            return ToolOutcome(f"{name} did not finish in time", failed=True)
        except MCPError as error:
            if error.code == _CLOSED or self._gone.is_set():
                raise self._lost(error) from None
            return ToolOutcome(str(error), failed=True)

    def _lost(self, error: BaseException) -> McpError:
        return McpError(f"{self._server!r} is lost: {in_plain_words(error)}")

    def _transport(self) -> Transport:
        server = self._server
        if isinstance(server, HttpServer):
            return _http(server)
        from mcp import StdioServerParameters, stdio_client

        program, *arguments = server.command
        parameters = StdioServerParameters(command=program, args=arguments, env=server.env, cwd=server.cwd)
        return _watched(stdio_client(parameters, errlog=sys.__stderr__ or sys.stderr), self._gone)


@contextlib.asynccontextmanager
async def _watched(transport: Transport, gone: asyncio.Event) -> AsyncGenerator[TransportStreams]:
    """``transport``, and ``gone`` set when the other side has ended."""
    import anyio
    from mcp.shared.message import SessionMessage

    async with transport as (reading, writing):
        passing, passed = anyio.create_memory_object_stream[SessionMessage | Exception](0)

        async def pass_on() -> None:
            try:
                async with passing:
                    async for message in reading:
                        await passing.send(message)
            except (anyio.ClosedResourceError, anyio.BrokenResourceError):
                pass  # we are closing it ourselves
            finally:
                gone.set()

        task = asyncio.create_task(pass_on())
        try:
            yield passed, writing
        finally:
            task.cancel()
            await asyncio.wait([task])
            passed.close()


@contextlib.asynccontextmanager
async def _http(server: HttpServer) -> AsyncGenerator[TransportStreams]:
    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    headers: dict[str, str] = {}
    if server.token_env is not None:
        token = os.environ.get(server.token_env, "")
        if not token:
            raise NoApiKey(server.token_env, public_url(server.url))
        headers["authorization"] = f"Bearer {token}"
    async with (
        httpx2.AsyncClient(headers=headers, trust_env=not is_local(server.url), timeout=_HTTP_SECONDS) as http,
        streamable_http_client(server.url, http_client=http) as streams,
    ):
        yield streams


async def _happens(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


async def _schemas(client: Client) -> list[ToolSchema]:
    """All pages of them."""
    found: list[ToolSchema] = []
    cursor: str | None = None
    while True:
        page = await client.list_tools(cursor=cursor, cache_mode="refresh")
        found += [
            ToolSchema(name=tool.name, description=tool.description or "", parameters=dict(tool.input_schema))
            for tool in page.tools
        ]
        cursor = page.next_cursor
        if cursor is None:
            return found


def _outcome(result: CallToolResult) -> ToolOutcome:
    """Its texts, and a word for whatever else it returned."""
    parts: list[str] = []
    for block in result.content:
        text: object = getattr(block, "text", None)
        if block.type == "resource":
            text = getattr(block.resource, "text", None)
        parts.append(text if isinstance(text, str) else f"[{block.type}]")
    if not parts and result.structured_content is not None:
        parts.append(msgspec.json.encode(result.structured_content).decode())
    return ToolOutcome("\n".join(parts), failed=bool(result.is_error))


def _import_sdk() -> None:
    """In a thread: it takes about a second."""
    try:
        import mcp
    except ModuleNotFoundError:
        raise MissingExtra("mcp", "mcp") from None
    del mcp
