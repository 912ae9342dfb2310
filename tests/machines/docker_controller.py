"""A controller to kill: starts a container, keeps a snapshot, forks, and waits. ``DOCKER_HOST`` is set."""

from __future__ import annotations

import asyncio
import json
import sys

from docker_support import OPTIONS, new_id

from palmette.machines.docker import DockerBackend


async def main() -> None:
    backend = DockerBackend(OPTIONS, new_id())
    await backend.start()
    image = await backend.snapshot(f"of-{backend.id.rpartition('.')[2]}")
    twin = await backend.fork(new_id())
    print(json.dumps({"containers": [backend.container, twin.container], "image": image}), flush=True)
    sys.stdin.read()


asyncio.run(main())
