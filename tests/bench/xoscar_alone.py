"""xoscar without palmette, as a companion program: an actor in another process (see :mod:`tests.bench.companions`)."""

# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUntypedBaseClass=false, reportUnknownArgumentType=false

from __future__ import annotations

import asyncio
import sys
import time

import xoscar
from xoscar.backends.allocate_strategy import ProcessIndex


class Echo(xoscar.Actor):
    """Sends back what it gets, and counts what nobody waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    async def echo(self, message: bytes) -> bytes:
        return message

    async def take(self, message: bytes) -> None:
        self.count += 1

    async def taken(self) -> int:
        return self.count


async def main() -> None:
    """Serve until the input ends."""
    pool = await xoscar.create_actor_pool("127.0.0.1:0", n_process=1)
    where = ProcessIndex(1)
    echo = await xoscar.create_actor(Echo, address=pool.external_address, allocate_strategy=where)
    sent = 0
    while line := await asyncio.to_thread(sys.stdin.readline):
        what, units = line.split()
        number = int(units)
        data = bytes(number if what == "payload" else 100)
        begun = time.perf_counter()
        if what == "call":
            for _ in range(number):
                await echo.echo(b"x")
        else:
            for _ in range(number if what == "cast" else 1):
                await echo.take.tell(data)
                sent += 1
            while await echo.taken() < sent:
                pass
        print((time.perf_counter() - begun) / (1 if what == "payload" else number), flush=True)
    await pool.stop()


if __name__ == "__main__":
    asyncio.run(main())
