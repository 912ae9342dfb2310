"""``palmette ssh``: a shell on the machine of a running agent."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import typer

from palmette.console.options import AgentArgument, IdOption

if TYPE_CHECKING:
    import asyncio

    from palmette.machines import TerminalSize


def ssh(agent: AgentArgument, name: IdOption = None) -> None:
    """Open a shell on the machine of an agent of a running program, whatever kind of machine it is.

    Ends with the shell's own exit code. The agent goes on meanwhile.
    """
    import asyncio

    from palmette.console.failures import UsageError

    if not sys.stdin.isatty():
        raise UsageError("a shell needs a terminal on standard input; for scripts, give the program an endpoint")
    raise typer.Exit(asyncio.run(_talk(agent, name)))


async def _talk(agent: str, name: str | None) -> int:
    import asyncio
    import signal
    import termios
    import tty

    import msgspec

    from palmette.agents.programs.control import ProgramReply, ProgramVerb
    from palmette.agents.programs.shell import Keys
    from palmette.console.control_client import SECONDS, find
    from palmette.console.failures import Failed, UsageError

    reader, writer = await asyncio.open_unix_connection(find(name), limit=1 << 22)
    loop = asyncio.get_running_loop()
    keyboard = sys.stdin.fileno()

    def tell(keys: Keys | ProgramVerb) -> None:
        writer.write(msgspec.json.encode(keys) + b"\n")

    def pressed() -> None:
        data = os.read(keyboard, 1 << 12)
        if data:
            tell(Keys(data=data))
        else:
            loop.remove_reader(keyboard)
            writer.close()

    try:
        tell(ProgramVerb(verb="shell", agent=agent, size=_size()))
        async with asyncio.timeout(SECONDS * 6):
            first = msgspec.json.decode(await reader.readline() or b'{"run": ""}', type=ProgramReply)
        if first.error or not first.run:
            raise (UsageError if first.usage else Failed)(first.error or "the program ended while it was asked")
        before = termios.tcgetattr(keyboard)
        try:
            tty.setraw(keyboard, termios.TCSADRAIN)  # what was typed meanwhile is the shell's
            loop.add_reader(keyboard, pressed)
            loop.add_signal_handler(signal.SIGWINCH, lambda: tell(Keys(size=_size())))
            return await _show(reader)
        finally:
            loop.remove_reader(keyboard)
            loop.remove_signal_handler(signal.SIGWINCH)
            termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
    finally:
        writer.close()


async def _show(reader: asyncio.StreamReader) -> int:
    import msgspec

    from palmette.agents.programs.shell import Screen
    from palmette.console.failures import Failed

    while line := await reader.readline():
        screen = msgspec.json.decode(line, type=Screen)
        sys.stdout.buffer.write(screen.data)
        sys.stdout.buffer.flush()
        if screen.exit_code is not None:
            return screen.exit_code
    raise Failed("the program, or the machine, ended")


def _size() -> TerminalSize:
    from palmette.machines import TerminalSize

    columns, rows = os.get_terminal_size(sys.stdin.fileno())
    return TerminalSize(rows=rows, columns=columns)
