"""An MCP server's tools as tools of an agent, like any others."""

from __future__ import annotations

import msgspec

from palmette.actors import ActorDied, DeadlineExceeded, Ref, Refused
from palmette.agents.conversation import ToolSchema
from palmette.agents.errors import BadArguments, ToolFailed
from palmette.agents.mcp.server import McpServer
from palmette.agents.tools import Tool


async def mcp_tools(server: Ref[McpServer], *, prefix: str = "") -> list[Tool]:
    """What ``server`` offers now, as tools named ``prefix`` and its own name.

    They stay good when the server is restarted. A server that dies under a call is bad news for the model, which may
    call again; its supervisor sees to the server.

    Raises:
        ActorDied: the server is not running.
    """
    schemas = await server.call(McpServer.list_tools)
    return [McpTool(server, schema, prefix) for schema in schemas]


class McpTool:
    """Made by :func:`mcp_tools`."""

    def __init__(self, server: Ref[McpServer], schema: ToolSchema, prefix: str) -> None:
        self._server = server
        self._own_name = schema.name
        self._schema = msgspec.structs.replace(schema, name=prefix + schema.name)

    def __repr__(self) -> str:
        return f"McpTool({self._schema.name!r} of {self._server.path})"

    @property
    def schema(self) -> ToolSchema:
        return self._schema

    async def run(self, arguments: str) -> str:
        name = self._schema.name
        try:
            given = msgspec.json.decode(arguments if arguments.strip() else "{}", type=dict[str, object])
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise BadArguments(f"bad arguments for {name}: they are a JSON object, and this is not: {error}") from None
        try:
            outcome = await self._server.call(McpServer.call_tool, self._own_name, given)
        except (ActorDied, DeadlineExceeded, Refused) as error:
            raise ToolFailed(f"{name} did not answer, and whether it did its work is not known: {error}") from None
        if outcome.failed:
            raise ToolFailed(outcome.text)
        return outcome.text
