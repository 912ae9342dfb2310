"""``kill -9`` of a process actor until its replacement answers, against what it costs to start one that answers."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from palmette.actors import ActorDied
from palmette.supervisors import DynamicSupervisor, child
from tests.bench.companions import thespian
from tests.bench.measure import Line, Settings, compare, rounds
from tests.bench.workers import Echo, pool

WORK = "kill -9 of a process actor → its replacement answers"
START, CALL = "starting one", "call round trip, process"
ALONE = "Thespian alone"


async def measure(settings: Settings) -> list[Line]:
    """The row."""
    count = 1 if settings.small else 5
    calls = settings.size(1_000)
    async with pool() as (system, supervisor):

        async def start() -> float:
            begun = time.perf_counter()
            spec = child(Echo, name=f"echo-{begun}", isolation="process", restart="temporary")
            path = await supervisor.call(DynamicSupervisor.start_child, spec)
            await system.ref_at(path, Echo).call(Echo.echo, 1)
            cost = time.perf_counter() - begun
            await supervisor.call(DynamicSupervisor.terminate_child, spec.name)
            return cost

        async def kill() -> float:
            pid = await ref.call(Echo.pid)
            begun = time.perf_counter()
            os.kill(pid, signal.SIGKILL)
            while True:
                try:
                    if await ref.call(Echo.pid) != pid:
                        return time.perf_counter() - begun
                except ActorDied:
                    await asyncio.sleep(0.001)

        async def call() -> float:
            begun = time.perf_counter()
            for number in range(calls):
                await ref.call(Echo.echo, number)
            return (time.perf_counter() - begun) / calls

        path = await supervisor.call(DynamicSupervisor.start_child, child(Echo, name="echo", isolation="process"))
        ref = system.ref_at(path, Echo)
        with thespian() as alone:
            costs = await rounds(
                count,
                {
                    "palmette": kill,
                    START: start,
                    CALL: call,
                    f"{ALONE}, start": lambda: alone.cost("start", 1),
                    f"{ALONE}, call": lambda: alone.cost("call", settings.size(200)),
                },
            )
    return [
        compare(WORK, settings.loop, costs, "palmette", START, at_most=3.0),
        compare("start of a process actor", settings.loop, costs, START, f"{ALONE}, start"),
        compare(CALL, settings.loop, costs, CALL, f"{ALONE}, call", speed=True),
    ]
