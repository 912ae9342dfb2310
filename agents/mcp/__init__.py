"""Servers of the Model Context Protocol as sources of tools, each an actor under supervision.

>>> child(McpServer, StdioServer(("uvx", "mcp-server-time")), name="time")
>>> for each in await mcp_tools(system.whereis("time", McpServer)):
...     toolbox.add(each)
"""

from palmette.agents.mcp.server import HttpServer, McpError, McpServer, StdioServer
from palmette.agents.mcp.tools import mcp_tools

__all__ = ["HttpServer", "McpError", "McpServer", "StdioServer", "mcp_tools"]
