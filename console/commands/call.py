"""``palmette call``: an endpoint of a running agent program."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from palmette.console.options import JsonOption, ProgramArgument


def call(
    name: ProgramArgument,
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="What it exposes; see `palmette status`.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[K=V]…", help="Read as the endpoint wants them: text, or JSON.", show_default=False),
    ] = None,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="How long to wait for the answer.")] = 60.0,
    json: JsonOption = False,
) -> None:
    """Call an endpoint of a running agent program and print what it answers.

    NAME is the program's id or the beginning of it; `NAME/pool-1` is a program that it started.
    Text is printed as it is, everything else (and with --json everything) as JSON.
    Ends with 1 where the endpoint raised or did not answer in time, and with 2 where the call cannot be meant.
    """
    import msgspec

    from palmette.agents.programs.control import ProgramVerb
    from palmette.console.control_client import SECONDS, ask_program

    root, _, below = name.partition("/")
    verb = ProgramVerb(verb="call", program=below, endpoint=endpoint, raw=parsed(arguments or ()), timeout=timeout)
    result = ask_program(verb, root or None, seconds=timeout + SECONDS).result
    value: object = msgspec.json.decode(result)
    if isinstance(value, str) and not json:
        print(value)
    elif json or value is not None:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def parsed(words: list[str] | tuple[str, ...]) -> dict[str, str]:
    """``k=v`` words by name. Raises UsageError."""
    from palmette.console.failures import UsageError

    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise UsageError(f"{word!r} is no argument; write it as NAME=VALUE")
        if name in found:
            raise UsageError(f"the argument {name!r} is given twice")
        found[name] = value
    return found
