"""``palmette attach``: watch an agent and talk to it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from palmette.console.options import AgentArgument, IdOption


def attach(
    agent: AgentArgument,
    name: IdOption = None,
    last: Annotated[int, typer.Option("--last", "-n", min=0, metavar="EVENTS", help="How many of the past.")] = 40,
) -> None:
    """Show what an agent of a running program hears, says and does, and send it what you type, line by line.

    The agent goes on when you leave (Ctrl-D or Ctrl-C). Ends when the agent does.
    """
    import threading

    from palmette.agents.programs.control import ProgramVerb
    from palmette.console.commands.logs import line_of
    from palmette.console.control_client import ask_program, follow_program
    from palmette.console.failures import ConsoleError, say

    ask_program(ProgramVerb(verb="agent", agent=agent), name)  # for its complaint, if it has one
    ended: list[BaseException | None] = []
    done = threading.Event()

    def show() -> None:
        try:
            for reply in follow_program(ProgramVerb(verb="attach", agent=agent, last=last), name, seconds=None):
                if reply.line is not None:
                    print(line_of(reply.line, most=4000), flush=True)
            ended.append(None)
        except ConsoleError as error:
            ended.append(error)
        finally:
            done.set()

    def listen() -> None:
        try:
            for line in sys.stdin:
                if text := line.strip():
                    ask_program(ProgramVerb(verb="send", agent=agent, text=text), name)
        except ConsoleError as error:
            say(str(error))
        done.set()

    # Both may wait for ever; neither keeps this process from ending.
    for work in (show, listen):
        threading.Thread(target=work, daemon=True).start()
    try:
        done.wait()
    except KeyboardInterrupt:
        return
    if ended and ended[0] is not None:
        raise ended[0]
