"""A call round trip: somebody asks an idle actor and waits for the reply, one question at a time."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pykka

from tests.bench.companions import beam, thespian
from tests.bench.measure import Line, Piece, Settings, compare, fastest, rounds
from tests.bench.raw import Callback, Server
from tests.bench.workers import Echo, echo

WORK = "call round trip, inline"
CALLBACK, SERVER = "asyncio: deque + future, callback", "asyncio: deque + future, task"
PYKKA, THESPIAN, BEAM = "pykka", "Thespian alone", "BEAM, gen_server:call"


class PykkaEcho(pykka.ThreadingActor):
    """The same in pykka."""

    def on_receive(self, message: int) -> int:
        return message


async def measure(settings: Settings) -> list[Line]:
    """The row."""
    n, few = settings.size(20_000), settings.size(2_000)

    async def palmette() -> float:
        begun = time.perf_counter()
        for number in range(n):
            await ref.call(Echo.echo, number)
        return (time.perf_counter() - begun) / n

    async def by_hand(mailbox: Callback | Server) -> float:
        begun = time.perf_counter()
        for number in range(n):
            await mailbox.call(number)
        return (time.perf_counter() - begun) / n

    def in_pykka() -> float:
        begun = time.perf_counter()
        for number in range(few):
            threaded.ask(number)
        return (time.perf_counter() - begun) / few

    with ExitStack() as stack:
        pieces: dict[str, Piece] = {
            "palmette": palmette,
            CALLBACK: lambda: by_hand(callback),
            SERVER: lambda: by_hand(server),
            PYKKA: in_pykka,
        }
        alone = stack.enter_context(thespian())
        pieces[THESPIAN] = lambda: alone.cost("call", settings.size(200))
        erlang = beam()
        if erlang is not None:
            machine = stack.enter_context(erlang)
            pieces[BEAM] = lambda: machine.cost("call", n)
        threaded = PykkaEcho.start()
        stack.callback(threaded.stop)
        async with echo() as (_, ref):
            callback, server = Callback(), Server()
            costs = await rounds(settings.rounds, pieces)
            server.task.cancel()

    best = fastest(costs.cpu, [CALLBACK, SERVER])
    other = SERVER if best == CALLBACK else CALLBACK
    lines = [
        compare(WORK, settings.loop, costs.cpu, "palmette", best, at_most=2.0),
        compare(WORK, settings.loop, costs.cpu, "palmette", other),
        compare(WORK, settings.loop, costs, "palmette", PYKKA, at_least=5.0),
        compare(WORK, settings.loop, costs, "palmette", THESPIAN, speed=True),
    ]
    if BEAM in costs:
        lines.append(compare(WORK, settings.loop, costs, "palmette", BEAM))
    return lines
