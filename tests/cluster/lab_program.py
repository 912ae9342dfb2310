"""A program that a test kills: ``python lab_program.py HEAD`` prints where its two children live, and waits."""

from __future__ import annotations

import asyncio
import sys

from lab_actors import Settler

from palmette.actors import System, run
from palmette.actors.cluster.needs import needs
from palmette.supervisors import Supervisor, child


async def main(head: str) -> None:
    tree = Supervisor.spec(children=[child(Settler, name=name, on=needs(gpu=2)) for name in ("one", "two")])
    async with System.start(tree, cluster=head) as system:
        print(*[await system.whereis(name, Settler).call(Settler.pid) for name in ("one", "two")], flush=True)
        await asyncio.sleep(300)


if __name__ == "__main__":
    run(main(sys.argv[1]))
