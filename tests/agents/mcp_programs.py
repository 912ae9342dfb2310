"""A real MCP server, written with the SDK: ``mcp_programs.py stdio`` or ``mcp_programs.py PORT``."""

from __future__ import annotations

import asyncio
import os
import sys

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("tests")


@server.tool()
def add(x: int, y: int) -> int:
    """Add two numbers."""
    return x + y


@server.tool()
def environment() -> list[str]:
    """The names of all environment variables."""
    return sorted(os.environ)


@server.tool()
def pid() -> str:
    """Of this process."""
    return str(os.getpid())


@server.tool()
def fail() -> str:
    """Has bad news."""
    raise ToolError("no such thing")


@server.tool()
async def die() -> str:
    """Ends the server in the middle of the call."""
    os._exit(3)


@server.tool()
async def hang() -> str:
    """Never ends."""
    await asyncio.Event().wait()
    return ""


@server.tool()
async def grow() -> str:
    """Brings a new tool."""

    def grown() -> str:
        return "new"

    server.add_tool(grown, description="Was not there before.")
    return "ok"


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        server.run("stdio")
    else:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
