"""A shell on an agent's machine for somebody at a terminal elsewhere, through the control socket: ``palmette ssh``.

Both sides speak lines of JSON: the person's keys and window sizes one way, the terminal's output the other, and at last
how the shell ended. Where either side hangs up the shell is killed, with all that it started.
"""

from __future__ import annotations

import asyncio

import msgspec

from palmette.actors.control_socket import say
from palmette.machines import Machine, Process, TerminalSize

SECONDS = 12 * 3600.0
"""The longest that a shell lives."""
SHELL = 'exec "$(command -v bash || echo sh)" -i'


class Keys(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """From the person."""

    data: bytes = b""
    size: TerminalSize | None = None


class Screen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """To the person."""

    data: bytes = b""
    exit_code: int | None = None
    """The last word: the shell's exit code, or 128 and the signal that ended it."""


class Shell:
    """One shell; called with the connection."""

    def __init__(self, machine: Machine, size: TerminalSize, first: msgspec.Struct) -> None:
        self._machine = machine
        self._size = size
        self._first = first

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        process = await self._machine.open(SHELL, timeout=SECONDS, env={"TERM": "xterm-256color"}, terminal=self._size)
        try:
            await say(writer, self._first)
            typing = asyncio.ensure_future(_type(reader, process))
            showing = asyncio.ensure_future(_show(process, writer))
            try:
                await asyncio.wait([typing, showing], return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (typing, showing):
                    task.cancel()
                await asyncio.wait([typing, showing])
        finally:
            await process.kill()
        if not showing.cancelled() and showing.exception() is None:
            ended = await process.wait()
            code = ended.exit_code if ended.exit_code is not None else 128 + (ended.signal or 0)
            await say(writer, Screen(exit_code=code))


async def _type(reader: asyncio.StreamReader, process: Process) -> None:
    while line := await reader.readline():
        keys = msgspec.json.decode(line, type=Keys)
        if keys.size is not None:
            await process.resize(keys.size)
        if keys.data:
            await process.write(keys.data)


async def _show(process: Process, writer: asyncio.StreamWriter) -> None:
    while (piece := await process.read()) is not None:
        await say(writer, Screen(data=piece[1]))
