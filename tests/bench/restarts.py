"""A crash of an inline actor until its next incarnation may be talked to.

What it costs besides the start is mostly the traceback, which is kept as text in the exit's record.
"""

from __future__ import annotations

import time
from contextlib import ExitStack

from palmette.supervisors import DynamicSupervisor, child
from tests.bench.companions import beam
from tests.bench.measure import Line, Piece, Settings, compare, rounds
from tests.bench.workers import Echo, pool, until

WORK = "crash → restarted, inline"
CALL, BEAM = "one message round trip", "BEAM, gen_server under a supervisor"


async def measure(settings: Settings) -> list[Line]:
    """The row."""
    crashes, calls = settings.size(1_000), settings.size(20_000)

    async def crash() -> float:
        begun = time.perf_counter()
        for _ in range(crashes):
            incarnation = ref.incarnation
            ref.cast(Echo.crash)
            await until(lambda: ref.incarnation > incarnation and ref.is_alive())  # noqa: B023 - awaited at once
        return (time.perf_counter() - begun) / crashes

    async def call() -> float:
        begun = time.perf_counter()
        for number in range(calls):
            await ref.call(Echo.echo, number)
        return (time.perf_counter() - begun) / calls

    with ExitStack() as stack:
        pieces: dict[str, Piece] = {"palmette": crash, CALL: call}
        erlang = beam()
        if erlang is not None:
            machine = stack.enter_context(erlang)
            pieces[BEAM] = lambda: machine.cost("restart", crashes)
        async with pool() as (system, supervisor):
            path = await supervisor.call(DynamicSupervisor.start_child, child(Echo, name="echo"))
            ref = system.ref_at(path, Echo)
            costs = await rounds(settings.rounds, pieces)
    lines = [compare(WORK, settings.loop, costs.cpu, "palmette", CALL, at_most=50.0)]
    if BEAM in costs:
        lines.append(compare(WORK, settings.loop, costs, "palmette", BEAM))
    return lines
