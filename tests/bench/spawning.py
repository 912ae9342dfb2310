"""Start many inline actors under one dynamic supervisor, one after another, and end them all at once.

By hand the same is: ask a task that owns the others for one more, by name; it starts it, waits until it runs, and
answers; in the end all are cancelled and waited for. The second reference leaves out all but the tasks themselves.
"""

from __future__ import annotations

import asyncio
import time

from palmette.supervisors import DynamicSupervisor, child
from tests.bench.companions import beam
from tests.bench.measure import Costs, Line, Settings, compare, growth, linear, rounds
from tests.bench.raw import Spawner
from tests.bench.workers import Idle, pool

SPAWNER, TASKS, BEAM = "asyncio: tasks, started on request", "asyncio: bare tasks", "BEAM, simple_one_for_one"


async def measure(settings: Settings) -> list[Line]:
    """The row."""
    sizes = (20, 40, 80) if settings.small else (1_000, 10_000, 100_000)
    count = 2 if settings.small else 3
    full = sizes[-1]
    work = f"spawn + stop of {full:,} inline actors"
    by_size: dict[int, Costs] = {}
    for n in sizes:
        by_size[n] = await rounds(
            count,
            {
                "palmette": lambda n=n: _palmette(n),
                SPAWNER: lambda n=n: _spawner(n),
                TASKS: lambda n=n: _tasks(n),
            },
        )
    costs = by_size[full]
    lines = [
        compare(work, settings.loop, costs.cpu, "palmette", SPAWNER, at_most=3.0),
        compare(work, settings.loop, costs.cpu, "palmette", TASKS),
    ]
    # The exponents of the total cost: one is linear.
    exponents = {
        who: [growth({n: n * by_size[n].cpu[who][number] for n in sizes}) for number in range(count)]
        for who in ("palmette", TASKS)
    }
    lines.append(linear(f"{work}: growth with n", settings.loop, exponents["palmette"], exponents[TASKS], TASKS))
    erlang = beam()
    if erlang is not None:
        with erlang:
            costs[BEAM] = [erlang.cost("spawn", full) for _ in range(count)]
        lines.append(compare(work, settings.loop, costs, "palmette", BEAM))
    return lines


async def _palmette(n: int) -> float:
    async with pool() as (_, supervisor):
        begun = time.perf_counter()
        for number in range(n):
            spec = child(Idle, name=f"idle-{number}", restart="temporary")
            await supervisor.call(DynamicSupervisor.start_child, spec)
        await supervisor.stop(timeout=600.0)
        return (time.perf_counter() - begun) / n


async def _spawner(n: int) -> float:
    spawner = Spawner()
    begun = time.perf_counter()
    for number in range(n):
        await spawner.start(f"idle-{number}")
    await spawner.stop()
    return (time.perf_counter() - begun) / n


async def _tasks(n: int) -> float:
    loop = asyncio.get_running_loop()

    async def sleeper(mail: asyncio.Future[None]) -> None:
        await mail

    begun = time.perf_counter()
    tasks: list[asyncio.Task[None]] = []
    for _ in range(n):
        tasks.append(loop.create_task(sleeper(loop.create_future())))
        await asyncio.sleep(0)  # until it runs
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return (time.perf_counter() - begun) / n
