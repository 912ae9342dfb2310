"""Who may talk to whom: edges between agents, and the tools that agents on an edge are given.

``connect(a, b)`` lets both send messages and files to each other. With ``direction="forward"`` only ``a`` may send, and
``b`` may fetch files from ``a``. An edge ends with either agent: a later one of the same name has none.
"""

from __future__ import annotations

import posixpath
from typing import Literal, get_args

from palmette.agents.errors import ToolFailed
from palmette.agents.programs.agent_handle import Agent
from palmette.agents.programs.errors import NoMachine, ProgramEnded
from palmette.agents.tools import Tool, tool
from palmette.machines import FileTooLarge, NotAFile, PathEscapes

Direction = Literal["both", "forward"]


def connect(a: Agent, b: Agent, *, direction: Direction = "both") -> None:
    """Make an edge. What there is already stays.

    Raises:
        ValueError: the direction is none, an agent is connected to itself, or one has ended or knows another agent by
            the same name.
    """
    if direction not in get_args(Direction):
        raise ValueError(f"direction is 'both' or 'forward', not {direction!r}")
    if a is b:
        raise ValueError(f"agent {a.name!r} cannot be connected to itself")
    for one in (a, b):
        if one.state == "ended":
            raise ValueError(f"agent {one.name!r} has ended")
    for one, other in ((a, b), (b, a)):
        known = one.outgoing.get(other.name) or one.incoming.get(other.name)
        if known is not None and known is not other:
            raise ValueError(f"agent {one.name!r} is connected to another agent called {other.name!r}: {known.path}")
    _edge(a, b)
    if direction == "both":
        _edge(b, a)
    for one in (a, b):
        if "message" not in one.toolbox:
            one.add_tools(*_tools(one))


def _edge(a: Agent, b: Agent) -> None:
    a.outgoing[b.name] = b
    b.incoming[a.name] = a


def _tools(me: Agent) -> list[Tool]:
    def other(edges: dict[str, Agent], name: str) -> Agent:
        found = edges.get(name)
        if found is None:
            known = ", ".join(edges) or "nobody"
            raise ToolFailed(f"Agent {me.name!r} is not connected to {name!r} for this; it is to: {known}")
        return found

    async def message(receiver: str, message: str) -> str:
        """Send a message to another agent.

        Args:
            receiver: The agent's name.
            message: What to say.
        """
        agent = other(me.outgoing, receiver)
        try:
            await agent.send(f"[From: {me.name}] {message}")
        except ProgramEnded as error:
            raise ToolFailed(str(error)) from error
        return f"sent to {receiver}"

    async def send_file(receiver: str, path: str, dest_path: str = "") -> str:
        """Copy a file from your machine to another agent's.

        Args:
            receiver: The agent's name.
            path: The file on your machine.
            dest_path: Where it goes; by default the same name in the working directory.
        """
        return await _copy(me, other(me.outgoing, receiver), path, dest_path, f"to {receiver}")

    async def download_file(sender: str, path: str, dest_path: str = "") -> str:
        """Copy a file from another agent's machine to yours.

        Args:
            sender: The agent's name.
            path: The file on its machine.
            dest_path: Where it goes; by default the same name in the working directory.
        """
        return await _copy(other(me.incoming, sender), me, path, dest_path, f"from {sender}")

    return [tool(message), tool(send_file), tool(download_file)]


async def _copy(source: Agent, target: Agent, path: str, dest_path: str, what: str) -> str:
    destination = dest_path or posixpath.basename(path)
    try:
        data = await source.machine.get(path)
        await target.machine.put(destination, data)
    except (NoMachine, OSError, NotAFile, FileTooLarge, PathEscapes, ValueError) as error:
        raise ToolFailed(str(error)) from error
    return f"{len(data)} bytes {what}: {destination}"
