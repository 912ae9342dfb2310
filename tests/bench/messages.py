"""One-way messages: a sender fills the mailbox a thousand at a time, and the actor works them off.

``send`` is what the bar is about: a message for the actor's own ``receive``, as the raw mailbox carries it. ``cast``
carries an endpoint and its arguments besides, which the raw one does not.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack

from tests.bench.companions import beam
from tests.bench.measure import Line, Piece, Settings, compare, rounds
from tests.bench.raw import Callback, Server
from tests.bench.workers import Echo, echo, until

WORK = "one-way messages, inline"
SERVER, CALLBACK, BEAM = "asyncio: deque mailbox, task", "asyncio: deque mailbox, callback", "BEAM, gen_server:cast"
BATCH = 1000


async def measure(settings: Settings) -> list[Line]:
    """The row."""
    n = settings.size(100_000, BATCH)

    async def stream(send: Callable[[int], None], handled: Callable[[], int]) -> float:
        enough = handled() + n
        begun = time.perf_counter()
        for _ in range(n // BATCH):
            for number in range(BATCH):
                send(number)
            await asyncio.sleep(0)
        await until(lambda: handled() >= enough)
        return (time.perf_counter() - begun) / n

    with ExitStack() as stack:
        async with echo() as (system, ref):
            target = system.slots[ref.path].target
            actor = getattr(target, "actor", None)
            assert isinstance(actor, Echo)
            server, callback = Server(), Callback()
            pieces: dict[str, Piece] = {
                "palmette send": lambda: stream(ref.send, lambda: actor.handled),
                "palmette cast": lambda: stream(lambda number: ref.cast(Echo.echo, number), lambda: actor.handled),
                SERVER: lambda: stream(server.send, lambda: server.handled),
                CALLBACK: lambda: stream(callback.send, lambda: callback.handled),
            }
            erlang = beam()
            if erlang is not None:
                machine = stack.enter_context(erlang)
                pieces[BEAM] = lambda: machine.cost("cast", n)
            costs = await rounds(settings.rounds, pieces)
            server.task.cancel()

    lines = [
        compare(f"{WORK}: send", settings.loop, costs.cpu, "palmette send", SERVER, at_least=0.5),
        compare(f"{WORK}: send", settings.loop, costs.cpu, "palmette send", CALLBACK, speed=True),
        compare(f"{WORK}: cast", settings.loop, costs.cpu, "palmette cast", SERVER, speed=True),
    ]
    if BEAM in costs:
        lines.append(compare(f"{WORK}: cast", settings.loop, costs, "palmette cast", BEAM, speed=True))
    return lines
