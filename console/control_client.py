"""The other end of a control socket: find a running command, and ask it one thing."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import msgspec

from palmette.actors.runtime_dir import living_sockets
from palmette.console.control import Reply, Verb
from palmette.console.failures import Failed, NotRunning, UsageError

SECONDS = 10.0


def running() -> list[str]:
    """Runs that somebody plays on this host, as this user. Blocks."""
    return [run for run, _ in living_sockets()]


def ask(verb: Verb, run: str | None = None) -> Reply:
    """Send ``verb`` to the command that plays ``run`` (its id, or the beginning of it), or to the only one. Blocks.

    Raises:
        NotRunning: nobody plays it, or anything.
        UsageError: several runs fit.
        Failed: it does not answer, or answers with an error.
    """
    path = _find(run)
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(SECONDS)
            line.connect(os.fspath(path))
            line.sendall(msgspec.json.encode(verb) + b"\n")
            with line.makefile("rb") as file:
                answer = file.readline()
    except TimeoutError:
        raise Failed(
            f"the command behind {path} did not answer within {SECONDS:g} s; is it stopped (Ctrl-Z)?"
        ) from None
    except ConnectionError:
        answer = b""
    if not answer:
        raise NotRunning(f"the command behind {path} ended while it was asked; `palmette runs` lists what there is")
    reply = msgspec.json.decode(answer, type=Reply)
    if reply.error:
        raise Failed(reply.error)
    return reply


def _find(run: str | None) -> Path:
    found = [(name, path) for name, path in living_sockets() if run is None or name.startswith(run)]
    if not found:
        what = "no run is being played" if run is None else f"run {run!r} is not being played"
        raise NotRunning(f"{what} on this host by this user; `palmette runs` lists what there is")
    if len({name for name, _ in found}) > 1:
        names = ", ".join(sorted({name for name, _ in found}))
        raise UsageError(f"several runs are being played: {names}; say which")
    return found[-1][1]
