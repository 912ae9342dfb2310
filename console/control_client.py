"""The other end of a control socket: find a running command or program, and ask it one thing."""

from __future__ import annotations

import os
import socket
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from palmette.actors.runtime_dir import living_sockets
from palmette.agents.programs.control import ProgramReply, ProgramVerb
from palmette.console.control import Reply, Verb
from palmette.console.failures import Failed, NotRunning, UsageError

NODE = "node-"
"""What the names of a cluster's nodes begin with."""
SECONDS = 10.0
"""For an answer, unless what is asked for takes longer."""


def running() -> list[str]:
    """Runs and programs that run on this host, as this user. Blocks."""
    return [name for name, _ in living_sockets()]


def ask(verb: Verb, run: str | None = None) -> Reply:
    """Send ``verb`` to whatever runs as ``run`` (its id, or the beginning of it), or to the only one. Blocks.

    Raises:
        NotRunning: nobody plays it, or anything.
        UsageError: several fit.
        Failed: it does not answer, or answers with an error.
    """
    path = find(run)
    reply = msgspec.json.decode(next(_answers(path, msgspec.json.encode(verb), SECONDS)), type=Reply)
    if reply.error:
        raise Failed(reply.error)
    return reply


def ask_program(verb: ProgramVerb, name: str | None = None, *, seconds: float = SECONDS) -> ProgramReply:
    """The same for a program. Raises as :func:`ask`, and UsageError where the request cannot be meant."""
    return next(follow_program(verb, name, seconds=seconds))


def follow_program(verb: ProgramVerb, name: str | None, *, seconds: float | None = SECONDS) -> Iterator[ProgramReply]:
    """Its answers, until it has no more; ``seconds`` for each, ``None`` without a bound."""
    path = find(name)
    for line in _answers(path, msgspec.json.encode(verb), seconds):
        reply = msgspec.json.decode(line, type=ProgramReply)
        if reply.kind != "program":
            raise UsageError(f"{reply.run} is no agent program; `palmette ls` lists those")
        if reply.error:
            raise UsageError(reply.error) if reply.usage else Failed(reply.error)
        yield reply


def glance(path: Path) -> dict[str, object]:
    """The answer to ``status``, of whatever kind. Raises as :func:`ask`."""
    return msgspec.json.decode(next(_answers(path, b'{"verb": "status"}', SECONDS)), type=dict[str, object])


def find(name: str | None) -> Path:
    """The socket of what runs as ``name`` (its id, or the beginning of it), or of the only one.

    Raises NotRunning or UsageError.
    """
    found = [(each, path) for each, path in living_sockets() if each.startswith(name or "")]
    if name is None:  # a node of this host is meant only where it is named
        found = [(each, path) for each, path in found if not each.startswith(NODE)]
    exact = [(each, path) for each, path in found if each == name]
    found = exact or found
    if not found:
        what = "no run is being played" if name is None else f"run {name!r} is not being played"
        raise NotRunning(f"{what} on this host by this user; `palmette ls` and `palmette runs` list what there is")
    if len({each for each, _ in found}) > 1:
        names = ", ".join(sorted({each for each, _ in found}))
        raise UsageError(f"several runs are being played: {names}; say which")
    return found[-1][1]


def _answers(path: Path, request: bytes, seconds: float | None) -> Iterator[bytes]:
    """At least one line."""
    answer = b""
    with _patience(path, seconds), socket.socket(socket.AF_UNIX) as line:
        line.settimeout(SECONDS)
        line.connect(os.fspath(path))
        line.sendall(request + b"\n")
        line.settimeout(seconds)
        with line.makefile("rb") as file:
            for answer in file:
                yield answer
    if not answer:
        raise NotRunning(f"what served {path} ended while it was asked; `palmette ls` lists what there is")


@contextmanager
def _patience(path: Path, seconds: float | None) -> Generator[None]:
    try:
        yield
    except TimeoutError:
        raise Failed(f"{path} did not answer within {seconds or 0:g} s; is its process stopped (Ctrl-Z)?") from None
    except ConnectionError:
        return
