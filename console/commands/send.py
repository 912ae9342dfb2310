"""``palmette send``: say something to a running agent."""

from __future__ import annotations

from typing import Annotated

import typer

from palmette.console.options import AgentArgument, IdOption


def send(
    agent: AgentArgument,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to say.")],
    name: IdOption = None,
) -> None:
    """Send a message to an agent of a running program: it hears it before its next reply.

    Ends with 0 once the message is on record.
    """
    from palmette.agents.programs.control import ProgramVerb
    from palmette.console.control_client import ask_program

    ask_program(ProgramVerb(verb="send", agent=agent, text=text), name)
