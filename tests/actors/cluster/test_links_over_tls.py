"""Real links on real connections, unix and TLS, on both kinds of loop: large messages beside small ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
from cluster_hosts import LOOPS, PATIENCE, Hosts, LoopName, run_on, until

from palmette.actors import Heartbeat, wire
from palmette.actors.cluster.channel import dial, listen
from palmette.actors.link import BUFFERED, PIECES_AT_ONCE, Link
from palmette.actors.node_life import NodeSystem
from palmette.actors.outbox import PIECE

KINDS = ("unix", "tls")
on_every_link = pytest.mark.parametrize(("loop", "kind"), [(loop, kind) for loop in LOOPS for kind in KINDS])


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Hosts:
    return Hosts(tmp_path_factory.mktemp("hosts"))


class End:
    """One end of a link; it answers calls and notes what else it hears."""

    def __init__(self) -> None:
        self.system = NodeSystem(name="end")
        self.heard = list[wire.Frame]()
        self.link = Link(self.system, self._on_frame, lambda link, why: None, trusting=True)

    def _on_frame(self, link: Link, frame: wire.Frame) -> None:
        if isinstance(frame, wire.Call):
            link.write(wire.Reply(frame.id, frame.arguments))
        else:
            self.heard.append(frame)

    async def call(self) -> None:
        answer: asyncio.Future[wire.Reply | wire.CallFailed] = self.system.loop.create_future()
        self.link.relay(wire.Call(0, "/small", "e", b"x", PATIENCE), answer.set_result)
        await asyncio.wait_for(answer, PATIENCE)


@asynccontextmanager
async def pair(kind: str, hosts: Hosts, directory: Path) -> AsyncGenerator[tuple[End, End], None]:
    """Two ends of a link."""
    here, there, loop = End(), End(), asyncio.get_running_loop()
    if kind == "tls":
        server = await listen(lambda: there.link, hosts.head, port=0)
        await dial(server.address, lambda: here.link, hosts.gpu, PATIENCE)
    else:
        server = await loop.create_unix_server(lambda: there.link, str(directory / "s"))
        await loop.create_unix_connection(lambda: here.link, str(directory / "s"))
    try:
        yield here, there
    finally:
        for end in (here, there):
            end.link.fail("the test is over")
        server.close()
        await asyncio.sleep(0.05)


@on_every_link
def test_calls_get_through_beside_large_messages_both_ways_and_order_is_kept(
    hosts: Hosts, loop: LoopName, kind: str, tmp_path: Path
) -> None:
    large = [wire.Cast("/large", "e", bytes([number]) * (8 << 20)) for number in range(3)]
    small = [wire.Cast("/large", "after", b""), wire.Cast("/other", "aside", b"")]

    async def main() -> None:
        async with pair(kind, hosts, tmp_path) as (here, there):
            for end in (here, there):
                for frame in (*large, *small):
                    end.link.write(frame)
            calls = 0
            while len(here.heard) < 5 or len(there.heard) < 5:
                await here.call()
                calls += 1
            assert calls > 20
            for end in (here, there):
                assert end.heard == [small[1], *large, small[0]]
                assert not end.link.is_congested()

    run_on(loop, main)


@on_every_link
def test_one_that_does_not_read_is_given_no_more_than_its_share(
    hosts: Hosts, loop: LoopName, kind: str, tmp_path: Path
) -> None:
    async def main() -> None:
        async with pair(kind, hosts, tmp_path) as (here, there):
            await here.call()
            reading = cast("asyncio.Transport", there.link._transport)  # pyright: ignore[reportPrivateUsage]
            writing = cast("asyncio.Transport", here.link._transport)  # pyright: ignore[reportPrivateUsage]
            reading.pause_reading()
            frames = [wire.Cast("/large", "e", bytes(16 << 20)), wire.Cast("/other", "e", bytes(1 << 20))]
            for frame in frames:
                here.link.write(frame)
            most, deadline = 0, time.monotonic() + 0.2
            while time.monotonic() < deadline:
                most = max(most, writing.get_write_buffer_size())
                await asyncio.sleep(0)
            assert most <= BUFFERED + PIECES_AT_ONCE * 2 * PIECE
            assert here.link.is_congested()
            assert there.heard == []
            reading.resume_reading()
            await until(lambda: len(there.heard) == 2)
            assert there.heard == frames[::-1]

    run_on(loop, main)


@on_every_link
@pytest.mark.parametrize("leased", [False, True])
def test_a_link_is_drained_when_all_has_left(
    hosts: Hosts, loop: LoopName, kind: str, tmp_path: Path, leased: bool
) -> None:
    async def main() -> None:
        async with pair(kind, hosts, tmp_path) as (here, there):
            if leased:
                here.link.keep_alive(Heartbeat(), None, lambda: None)
            frames = [wire.Cast("/large", "e", bytes(4 << 20)), wire.Started("/last")]
            for frame in frames:
                here.link.write(frame)
            await here.link.drain(PATIENCE)
            if leased:
                assert there.heard == frames[::-1]  # the other side has all of it
            await until(lambda: len(there.heard) == 2)

    run_on(loop, main)
