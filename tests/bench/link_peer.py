"""The far end of a link, as a program of its own: ``python -m tests.bench.link_peer unix|tls DIRECTORY LOOP``.

It says its port (0 for the unix socket ``link`` in the directory), and answers calls until its input ends: ``echo``
with what it was given, ``count`` with the number of casts that have come.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import cast

from palmette.actors import wire
from palmette.actors.cluster.channel import listen
from palmette.actors.cluster.credentials import Credentials
from palmette.actors.link import Link
from palmette.actors.node_life import NodeSystem
from tests.bench.measure import LoopName, run


async def serve(kind: str, directory: Path) -> None:
    """Until the input ends."""
    loop, system, casts = asyncio.get_running_loop(), NodeSystem(name="bench"), 0

    def on_frame(link: Link, frame: wire.Frame) -> None:
        nonlocal casts
        if isinstance(frame, wire.Call):
            link.write(wire.Reply(frame.id, frame.arguments if frame.endpoint == "echo" else str(casts).encode()))
        elif isinstance(frame, wire.Cast):
            casts += 1

    def link() -> Link:
        return Link(system, on_frame, lambda link, why: None, trusting=True)

    ended = loop.create_future()
    loop.add_reader(sys.stdin, lambda: sys.stdin.readline() or ended.done() or ended.set_result(None))
    if kind == "tls":
        listener = await listen(link, Credentials.load(directory / "cluster"), port=0)
        print(listener.address.port, flush=True)
        await ended
        listener.close()
    else:
        server = await loop.create_unix_server(link, str(directory / "link"))
        print(0, flush=True)
        await ended
        server.close()


if __name__ == "__main__":
    run(serve(sys.argv[1], Path(sys.argv[2])), cast("LoopName", sys.argv[3]))
