"""``palmette status``: an agent program at a glance."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from palmette.console.options import AnyProgramArgument, JsonOption

if TYPE_CHECKING:
    from palmette.agents import ToolSchema
    from palmette.agents.programs.control import ProgramStatus


def status(name: AnyProgramArgument = None, json: JsonOption = False) -> None:
    """Show a running agent program: what it started, its agents, what can be called, what was told last."""
    import msgspec

    from palmette.agents.programs.control import ProgramVerb
    from palmette.console.control_client import ask_program

    found = ask_program(ProgramVerb(verb="status"), name).status
    assert found is not None
    if json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n")
    else:
        show(found)


def show(found: ProgramStatus) -> None:
    """For people."""
    from palmette.console.commands.logs import line_of
    from palmette.console.plain import one_line

    print(f"{found.id}: {found.program}, pid {found.pid}")
    for path, state in found.programs.items():
        print(f"  {path}  {state}")
    for agent in found.agents:
        more = f"  on {agent.machine}" if agent.machine else ""
        more += f"  may message {', '.join(agent.may_message)}" if agent.may_message else ""
        print(one_line(f"  {agent.path}  {agent.state}  {agent.turns} turns{more}", 200))
    if found.endpoints:
        print("can be called:")
    for schema in found.endpoints:
        print(one_line(f"  palmette call {found.id} {signature(schema)}", 200))
        if schema.description:
            print(one_line(f"      {schema.description.splitlines()[0]}", 200))
    if found.recent:
        print("told last:")
    for line in found.recent:
        print(f"  {line_of(line)}")


def signature(schema: ToolSchema) -> str:
    """An endpoint as one calls it on a command line.

    >>> from palmette.agents import tool
    >>> async def add_task(spec: str, priority: int = 0) -> int: ...
    >>> signature(tool(add_task).schema)
    'add_task spec=STRING [priority=INTEGER]'
    """
    properties = schema.parameters.get("properties", {})
    required = schema.parameters.get("required", [])
    assert isinstance(properties, dict)
    assert isinstance(required, list)
    words = [schema.name]
    for name, shape in properties.items():  # pyright: ignore[reportUnknownVariableType]
        kind = str(shape.get("type", "JSON") if isinstance(shape, dict) else "JSON").upper()  # pyright: ignore
        words.append(f"{name}={kind}" if name in required else f"[{name}={kind}]")
    return " ".join(words)
