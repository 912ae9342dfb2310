"""``controllers_to_kill.py KIND IMAGE COUNT AT_ONCE SEED``: controllers that meet ``kill -9`` at any moment.

Each makes machines of the image, runs commands on them that would outlive them, forks and stops them, until it is
killed. They are forks of this program, which has imported everything: so the moments fall into their lives, and not
into the start of Python. Their process ids are printed at the end, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from importlib import import_module

from palmette.machines import HostedMachine, Machine, machine_for
from palmette.machines.identity import MachineId

LEASE = 2
"""Seconds, where a backend has leases."""
LIVES = {"local": 0.4, "local+bwrap": 0.8, "ssh": 1.5, "e2b": 1.5, "docker": 3.0}
"""Seconds that a controller lives at most: about what two machines take."""


def maker(kind: str, image: str) -> Callable[[], Machine]:
    """Imports what machines of ``image`` need; the function makes one, not started."""
    match kind:
        case "docker":
            import_module("docker")  # here, and not in each of the forks
            from palmette.machines.docker import DockerBackend
            from palmette.machines.docker.options import DockerOptions

            options = DockerOptions.parse(image.removeprefix("docker:"))

            def docker() -> Machine:
                id = str(MachineId.new("to-kill"))
                return HostedMachine(DockerBackend(options, id, lease=LEASE), id, image)

            return docker
        case "e2b":
            import_module("e2b")
            from palmette.machines.e2b import E2bBackend

            def sandbox() -> Machine:
                id = str(MachineId.new("to-kill"))
                return HostedMachine(E2bBackend("", id, lease=LEASE), id, image)

            return sandbox
        case "ssh":
            import_module("paramiko")
            return lambda: machine_for(f"{image}&lease={LEASE}", owner="to-kill")
        case _:
            return lambda: machine_for(image, owner="to-kill")


async def live(make: Callable[[], Machine], draw: random.Random) -> None:
    """Until it is killed."""
    while True:
        machine = make()
        await machine.start()
        running = asyncio.create_task(machine.exec("setsid sleep 1000 & (sleep 1001 &) ; sleep 1002", timeout=600))
        for _ in range(draw.randrange(4)):
            match draw.choice(["put", "exec", "open", "fork"]):
                case "put":
                    await machine.put("file", bytes(1 << 16))
                case "exec":
                    await machine.exec("mkdir -p a/b && (sleep 1003 &) ; echo x > a/b/c")
                case "open":
                    await machine.open(["sleep", "1004"])
                case _:
                    twin = await machine.fork()
                    await twin.exec("echo twin")
        await machine.stop()
        await asyncio.wait([running])
        running.exception()


def begin(make: Callable[[], Machine], seed: int) -> int:
    """Fork a controller; its process id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        asyncio.run(live(make, random.Random(seed)))
    finally:
        os._exit(1)  # what it raised was printed; nobody but its parent may go on from here


def main() -> None:
    kind, image, count, at_once, seed = sys.argv[1:]
    draw = random.Random(int(seed))
    make = maker(kind, image)
    pids: list[int] = []
    unkilled = 0
    for first in range(0, int(count), int(at_once)):
        deaths: list[tuple[float, int]] = []
        now = time.monotonic()
        for _ in range(min(int(at_once), int(count) - first)):
            pid = begin(make, draw.randrange(2**31))
            pids.append(pid)
            deaths.append((now + draw.random() * LIVES[kind], pid))
        for at, pid in sorted(deaths):
            time.sleep(max(0.0, at - time.monotonic()))
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            unkilled += not os.WIFSIGNALED(status)
    print(json.dumps({"pids": pids, "unkilled": unkilled}))


if __name__ == "__main__":
    main()
