"""Links between two processes, over a unix socket and over loopback TLS: calls, casts, and 100 MB with calls beside it.

The references carry the same over what they have: Thespian alone (TCP on loopback, no encryption), and xoscar and ray
where they are installed.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path

from palmette.actors import wire
from palmette.actors.cluster import authority
from palmette.actors.cluster.channel import Address, dial
from palmette.actors.cluster.credentials import Credentials
from palmette.actors.link import Link
from palmette.actors.node_life import NodeSystem
from tests.bench.companions import others, thespian
from tests.bench.measure import Costs, Line, LoopName, Piece, Settings, compare, rounds

KINDS = ("unix", "tls")
CALL, CAST, PAYLOAD = "link: call round trip", "link: one-way message of 100 bytes", "link: 100 MB one way"
BESIDE = "link: a call beside 100 MB"
ALONE = "Thespian alone"
SECONDS = 120.0


class End:
    """Our end of a link to a :mod:`~tests.bench.link_peer`."""

    def __init__(self) -> None:
        self._system = NodeSystem(name="bench")
        self.link = Link(self._system, lambda link, frame: None, lambda link, why: None, trusting=True)
        self.casts = 0

    async def call(self, path: str, endpoint: str, data: bytes) -> bytes:
        answer: asyncio.Future[wire.Reply | wire.CallFailed] = self._system.loop.create_future()
        self.link.relay(wire.Call(0, path, endpoint, data, SECONDS), answer.set_result)
        frame = await asyncio.wait_for(answer, SECONDS)
        assert isinstance(frame, wire.Reply)
        return frame.result

    def cast(self, path: str, data: bytes) -> None:
        self.link.write(wire.Cast(path, "take", data))
        self.casts += 1

    async def all_taken(self, path: str) -> None:
        """Wait until the other end has had all casts."""
        while int(await self.call(path, "count", b"")) < self.casts:
            pass


@asynccontextmanager
async def linked(kind: str, loop: LoopName) -> AsyncGenerator[End, None]:
    """An end of a link to another process."""
    end = End()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        credentials: Credentials = authority.create(directory / "cluster", "bench")
        command = [sys.executable, "-m", "tests.bench.link_peer", kind, name, loop]
        # It takes a millisecond, and nobody else is there to wait.
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as peer:  # noqa: ASYNC220
            assert peer.stdin is not None
            assert peer.stdout is not None
            port = int(await asyncio.to_thread(peer.stdout.readline))
            if kind == "tls":
                await dial(Address("127.0.0.1", port), lambda: end.link, credentials, SECONDS)
            else:
                where = str(directory / "link")
                await asyncio.get_running_loop().create_unix_connection(lambda: end.link, where)
            yield end
            end.link.fail("measured")
            await asyncio.sleep(0.05)
            peer.stdin.close()


async def call(end: End, units: int) -> float:
    """What one of ``units`` calls costs."""
    begun = time.perf_counter()
    for _ in range(units):
        await end.call("/small", "echo", b"x")
    return (time.perf_counter() - begun) / units


async def cast(end: End, units: int) -> float:
    """What one of ``units`` casts costs, from here until the other side has had it."""
    begun = time.perf_counter()
    for number in range(units):
        end.cast("/small", bytes(100))
        if number % 1000 == 999:
            await asyncio.sleep(0)
    await end.all_taken("/small")
    return (time.perf_counter() - begun) / units


async def payload(end: End, size: int) -> float:
    """What ``size`` bytes cost in one message, with nothing beside them."""
    data = bytes(size)
    begun = time.perf_counter()
    end.cast("/large", data)
    await end.all_taken("/large")
    return time.perf_counter() - begun


async def beside(end: End, size: int) -> float:
    """The median cost of calls while ``size`` bytes are under way."""
    data, costs = bytes(size), list[float]()
    end.cast("/large", data)
    moving = asyncio.ensure_future(end.all_taken("/large"))
    while not moving.done():
        costs.append(await call(end, 1))
    await moving
    return statistics.median(costs)


async def measure(settings: Settings) -> list[Line]:
    """The row."""
    calls, casts, size = settings.size(2_000), settings.size(50_000, 100), settings.size(100 << 20, 1 << 20)
    few, some = settings.size(200), settings.size(5_000)
    count = 1 if settings.small else 3
    async with AsyncExitStack() as ends:
        open_ends = {kind: await ends.enter_async_context(linked(kind, settings.loop)) for kind in KINDS}
        with ExitStack() as stack:
            programs = {ALONE: stack.enter_context(thespian())}
            programs |= {name: stack.enter_context(other) for name, other in others().items()}

            async def beside_others(ours: dict[str, Piece], what: str, units: int) -> Costs:
                theirs: dict[str, Piece] = {
                    name: lambda program=program: program.cost(what, units) for name, program in programs.items()
                }
                return await rounds(count, ours | theirs)

            round_trips = await beside_others(
                {kind: lambda end=end: call(end, calls) for kind, end in open_ends.items()}, "call", few
            )
            one_way = await beside_others(
                {kind: lambda end=end: cast(end, casts) for kind, end in open_ends.items()}, "cast", some
            )
            large = await beside_others(
                {kind: lambda end=end: payload(end, size) for kind, end in open_ends.items()}, "payload", size
            )
        mixed = await rounds(
            count,
            {kind: lambda end=end: call(end, calls) for kind, end in open_ends.items()}
            | {f"{kind} beside": lambda end=end: beside(end, size) for kind, end in open_ends.items()},
        )

    lines = list[Line]()
    for kind in KINDS:
        where, loop = f", {kind}", settings.loop
        lines += [
            compare(CALL + where, loop, round_trips, kind, ALONE, at_most=0.5),
            compare(CAST + where, loop, one_way, kind, ALONE, at_least=100.0),
            compare(PAYLOAD + where, loop, large, kind, ALONE, at_least=5.0),
            compare(BESIDE + where, loop, mixed, f"{kind} beside", kind, at_most=5.0, note="against an idle link's"),
        ]
        for name in programs:
            if name != ALONE:
                bar = 1.0 if name == "xoscar" else None
                lines += [
                    compare(CALL + where, loop, round_trips, kind, name, at_most=bar),
                    compare(CAST + where, loop, one_way, kind, name, speed=True),
                    compare(PAYLOAD + where, loop, large, kind, name, speed=True),
                ]
    return lines
