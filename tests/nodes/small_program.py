"""A program with process nodes, for tests that kill it: ``small_program.py FILE`` writes its processes into FILE.

A line ``ready HEAD HOST NODE NODE`` once all is up, a line ``stopping PATH`` per actor that ends in order, and one
``ended`` at the end.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from node_actors import Marking, Worker
from node_processes import host_of

from palmette.actors import System
from palmette.supervisors import Supervisor, child


async def main(file: str) -> None:
    names = ("first", "second")
    spec = Supervisor.spec(children=[child(Marking, file, name=name, isolation="process") for name in names])
    async with System.start(spec) as system:
        pids = [await system.whereis(name, Worker).call(Worker.pid) for name in names]
        # Another process in the session: what a user's own fork would be.
        await system.whereis("second", Worker).call(Worker.run_program)
        with open(file, "a") as out:  # noqa: ASYNC230
            out.write(" ".join(map(str, ["ready", os.getpid(), host_of(system), *pids])) + "\n")
        await asyncio.sleep(600)


try:
    asyncio.run(main(sys.argv[1]))
finally:
    with Path(sys.argv[1]).open("a") as out:
        out.write("ended\n")
