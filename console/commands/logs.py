"""``palmette logs``: what a running agent program tells."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from palmette.console.options import AnyProgramArgument

if TYPE_CHECKING:
    from palmette.agents.programs.log import Line


def logs(
    name: AnyProgramArgument = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the program ends.")] = False,
    last: Annotated[int, typer.Option("--last", "-n", min=0, metavar="LINES", help="How many of the past.")] = 1000,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Print what the programs and agents of a running program tell, oldest first."""
    import msgspec

    from palmette.agents.programs.control import ProgramVerb
    from palmette.console.control_client import SECONDS, follow_program

    if last == 0 and not follow:
        return
    verb = ProgramVerb(verb="logs", follow=follow, last=last)
    for reply in follow_program(verb, name, seconds=None if follow else SECONDS):
        if reply.line is None:
            print(f"({reply.dropped} lines are not remembered)", file=sys.stderr)
        elif json:
            print(msgspec.json.encode(reply.line).decode(), flush=True)
        else:
            print(line_of(reply.line), flush=True)


def line_of(line: Line, *, most: int = 300) -> str:
    """For people; at most so many characters of its text."""
    from palmette.console.plain import one_line

    clock = time.strftime("%H:%M:%S", time.localtime(line.at))
    words = (clock, one_line(line.who, 120), one_line(line.type, 60), one_line(line.text, most))
    return "  ".join(words).rstrip()
