"""Machines on E2B against the e2b SDK alone: start, a command, a fork; the server is a stand-in on this host.

What a network would add is left out, so these are the costs of what we do ourselves: two rounds of requests more at
the start (ours has its runner up and its sandbox examined), and for a command afterwards one short request in place
of one that starts a process through E2B. Over a network ours has fewer, and shorter, waits.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING

from palmette.machines.e2b import E2bAccount, E2bBackend
from palmette.machines.hosted import HostedMachine
from palmette.machines.identity import MachineId
from tests.bench.measure import Line, Settings, compare, rounds, timed

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))  # where pytest finds `support` by itself

from support.e2b_stand_in import StandIn

if TYPE_CHECKING:
    from e2b import AsyncSandbox

START, EXEC, FORK = "start of an e2b machine", "exec in an e2b machine", "fork of an e2b machine"
PARALLEL = "16 execs at once in an e2b machine"
RAW = {
    START: "e2b SDK: Sandbox.create, first command",
    EXEC: "e2b SDK: commands.run",
    FORK: "e2b SDK: fork, first command",
    PARALLEL: "e2b SDK: 16 commands.run",
}


async def measure(settings: Settings) -> list[Line]:
    """The rows."""
    with StandIn.running() as stand_in:
        lines = await _measure(settings, stand_in)
        await stand_in.forget()  # the SDK's pool would keep its connections, and so the server
        return lines


async def _measure(settings: Settings, stand_in: StandIn) -> list[Line]:
    from e2b import AsyncSandbox

    commands = settings.size(20, small=3)
    account = E2bAccount(**stand_in.connection)

    def machine() -> HostedMachine:
        id = str(MachineId.new("bench"))
        return HostedMachine(E2bBackend("", id, account=account), id, "e2b")

    async def our_start() -> float:
        one = machine()
        cost = await timed(_started(one))
        await one.stop()
        return cost

    async def their_start() -> float:
        async def start() -> AsyncSandbox:
            one = await AsyncSandbox.create(timeout=300, **stand_in.connection)
            await one.commands.run("true")
            return one

        return await _timed_and_killed(start())

    async def our_exec() -> float:
        async def run() -> None:
            for _ in range(commands):
                await ours.exec("true")

        return await timed(run(), commands)

    async def their_exec() -> float:
        async def run() -> None:
            for _ in range(commands):
                await theirs.commands.run("true")

        return await timed(run(), commands)

    async def our_parallel() -> float:
        return await timed(asyncio.gather(*(ours.exec("true") for _ in range(16))))

    async def their_parallel() -> float:
        return await timed(asyncio.gather(*(theirs.commands.run("true") for _ in range(16))))

    async def our_fork() -> float:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        twin = await ours.fork()
        await twin.exec("true")
        cost = loop.time() - begun
        await twin.stop()
        return cost

    async def their_fork() -> float:
        async def fork() -> AsyncSandbox:
            (twin,) = await theirs.fork(timeout=300)
            if isinstance(twin, Exception):
                raise twin
            await twin.commands.run("true")
            return twin

        return await _timed_and_killed(fork())

    async with machine() as ours:
        theirs = await AsyncSandbox.create(timeout=3600, **stand_in.connection)
        costs = await rounds(
            settings.rounds,
            {
                START: our_start,
                RAW[START]: their_start,
                EXEC: our_exec,
                RAW[EXEC]: their_exec,
                PARALLEL: our_parallel,
                RAW[PARALLEL]: their_parallel,
                FORK: our_fork,
                RAW[FORK]: their_fork,
            },
        )
        await theirs.kill()
    bars = {EXEC: 1.5}
    return [compare(work, settings.loop, costs, work, raw, at_most=bars.get(work)) for work, raw in RAW.items()]


async def _timed_and_killed(work: Coroutine[object, object, AsyncSandbox]) -> float:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    sandbox = await work
    cost = loop.time() - begun
    await sandbox.kill()
    return cost


async def _started(machine: HostedMachine) -> None:
    await machine.start()
    await machine.exec("true")


if __name__ == "__main__":
    for line in asyncio.run(measure(Settings())):
        print(line)
