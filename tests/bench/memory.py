"""What an idle actor weighs under a dynamic supervisor, everything counted that is there because of it.

That is: its cell and mailbox, its address, its child spec with the name, the supervisor's record, and its places in the
dictionaries of the system and the supervisor. The user's own object (the instance and its ``__dict__``) is subtracted.
Allocations are counted by ``tracemalloc``, over all actors.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Awaitable, Callable

from palmette.supervisors import DynamicSupervisor, child
from tests.bench.companions import beam
from tests.bench.measure import Line, Settings, compare
from tests.bench.raw import Server
from tests.bench.workers import Idle, pool

WORK = "idle actor, memory"
NEWBORN = 2700.0
"""Bytes of a BEAM process at birth (the issue's bar)."""


async def measure(settings: Settings) -> list[Line]:
    """The row."""
    n = settings.size(50_000, 200)

    async def actors() -> object:
        for number in range(n):
            await supervisor.call(DynamicSupervisor.start_child, child(Idle, name=f"idle-{number}"))
        return None

    async def objects() -> object:
        made = [Idle() for _ in range(n)]
        for one in made:
            one._cell = None  # pyright: ignore[reportPrivateUsage,reportAttributeAccessIssue] - as the kernel does
        return made

    async def servers() -> object:
        made = [Server() for _ in range(n)]
        await made[-1].call(1)
        return made

    costs = {"BEAM process at birth": [NEWBORN]}
    async with pool() as (_, supervisor):
        # The supervisor's own first use is not the children's.
        await supervisor.call(DynamicSupervisor.start_child, child(Idle, name="first"))
        own, _objects = await _weigh(objects)
        del _objects
        total, _ = await _weigh(actors)
    costs["palmette"] = [(total - own) / n]
    raw, made = await _weigh(servers)
    assert isinstance(made, list)
    for server in made:  # pyright: ignore[reportUnknownVariableType]
        assert isinstance(server, Server)
        server.task.cancel()
    costs["asyncio: task + deque"] = [raw / n]
    note = f"{n} actors; the user's object ({own / n:.0f} B) not counted"
    lines = [
        compare(WORK, settings.loop, costs, "palmette", "BEAM process at birth", unit="B", at_most=1.0, note=note),
        compare(WORK, settings.loop, costs, "palmette", "asyncio: task + deque", unit="B"),
    ]
    erlang = beam()
    if erlang is not None:
        with erlang:
            costs["BEAM, idle gen_server"] = [erlang.cost("memory", settings.size(10_000, 200))]
        lines.append(compare(WORK, settings.loop, costs, "palmette", "BEAM, idle gen_server", unit="B"))
    return lines


async def _weigh(make: Callable[[], Awaitable[object]]) -> tuple[int, object]:
    """Bytes that are still there after ``make``, and what it made."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        made = await make()
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before, made
    finally:
        tracemalloc.stop()
