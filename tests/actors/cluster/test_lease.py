"""Leases: whatever is lost or late between two sides, the one with a lease goes before the other gives it up."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palmette.actors import Heartbeat, simulation, wire
from palmette.actors.heartbeat import Lease
from palmette.actors.link import Link


class Wire:
    """One direction between two links, on which any write may be lost or late; the transport of the sending link."""

    def __init__(self, fate: Callable[[], float | None]) -> None:
        self.fate = fate
        self.to: Link | None = None
        self.closed = False
        self._last = 0.0

    def write(self, data: bytes) -> None:
        late = self.fate()
        if late is None or self.closed or self.to is None:
            return
        loop = asyncio.get_running_loop()
        self._last = max(self._last, loop.time() + late)
        loop.call_at(self._last, self._deliver, data)

    def _deliver(self, data: bytes) -> None:
        assert self.to is not None
        # What is lost breaks the numbers, as it should; here it is time that is looked at.
        self.to._reader._due = wire.HEADER.unpack_from(data)[1]  # pyright: ignore[reportPrivateUsage]
        self.to.data_received(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def abort(self) -> None:
        self.closed = True


class Pair:
    """A head and a far node, and when each of them gave up."""

    def __init__(self, there: Callable[[], float | None], back: Callable[[], float | None]) -> None:
        self.lapsed_at: float | None = None
        self.lost_at: float | None = None
        system = simulated_system()
        self.node = Link(system, ignore, ignore, trusting=True)
        self.head = Link(system, ignore, self._lost, trusting=True)
        for link, other, fate in ((self.node, self.head, there), (self.head, self.node, back)):
            transport = Wire(fate)
            transport.to = other
            link._transport = transport  # pyright: ignore[reportPrivateUsage]

    def _lost(self, link: Link, why: str) -> None:
        self.lost_at = asyncio.get_running_loop().time()

    def lapsed(self) -> None:
        self.lapsed_at = asyncio.get_running_loop().time()

    def stop(self) -> None:
        for link in (self.node, self.head):
            link.fail("the test is over")


def ignore(*_: object) -> None: ...


def noted(heard: list[wire.Frame]) -> Callable[[Link, wire.Frame], None]:
    return lambda _, frame: heard.append(frame)


def simulated_system() -> simulation.SimulatedSystem:
    return simulation.SimulatedSystem()


@given(
    seed=st.integers(0, 2**32),
    interval=st.sampled_from([0.1, 1.0, 3.0]),
    times=st.floats(3.0, 8.0),
    phase=st.floats(0.0, 1.0),
    losses=st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0)),
    delay=st.floats(0.0, 3.0),
    cut=st.tuples(st.floats(0.0, 30.0), st.floats(0.0, 30.0)),
)
@settings(max_examples=300)
def test_a_far_node_has_gone_no_later_than_its_head_gives_it_up(
    seed: int,
    interval: float,
    times: float,
    phase: float,
    losses: tuple[float, float],
    delay: float,
    cut: tuple[float, float],
) -> None:
    heartbeat = Heartbeat(interval=interval, loss=interval * times)

    async def main() -> Pair:
        rng, loop = random.Random(seed), asyncio.get_running_loop()

        def fate(loss: float, until: float) -> Callable[[], float | None]:
            def draw() -> float | None:
                if loop.time() > until * interval or rng.random() < loss / 2:
                    return None
                return rng.random() * delay * interval

            return draw

        pair = Pair(fate(losses[0], cut[0]), fate(losses[1], cut[1]))
        pair.node.keep_alive(heartbeat, None, pair.lapsed)
        await asyncio.sleep(phase * interval)
        pair.head.keep_alive(heartbeat, lambda: True)
        await asyncio.sleep(60 * interval)
        lost_at = pair.lost_at
        pair.stop()
        pair.lost_at = lost_at
        return pair

    pair = simulation.run(main).value
    if pair.lost_at is not None:
        assert pair.lapsed_at is not None
        assert pair.lapsed_at <= pair.lost_at


@pytest.mark.parametrize("times", [3.0, 5.0])
def test_on_a_good_network_nobody_goes(times: float) -> None:
    heartbeat = Heartbeat(interval=1.0, loss=times)

    async def main() -> tuple[float | None, float | None]:
        pair = Pair(lambda: 0.1, lambda: 0.1)
        pair.node.keep_alive(heartbeat, None, pair.lapsed)
        pair.head.keep_alive(heartbeat, lambda: True)
        await asyncio.sleep(1000.0)
        gone = pair.lapsed_at, pair.lost_at
        pair.stop()
        return gone

    assert simulation.run(main).value == (None, None)


def test_one_who_stood_still_for_longer_than_the_lease_takes_in_nothing_more() -> None:
    heard = list[wire.Frame]()

    async def main() -> float | None:
        pair = Pair(lambda: 0.0, lambda: 0.0)
        pair.node._on_frame = noted(heard)  # pyright: ignore[reportPrivateUsage]
        pair.node.keep_alive(Heartbeat(interval=1.0, loss=3.0), None, pair.lapsed)
        loop = asyncio.get_running_loop()
        await asyncio.sleep(1.5)
        pair.head.write(wire.Started("/before"))
        await asyncio.sleep(0.01)
        loop._now += 100.0  # type: ignore[attr-defined]  # pyright: ignore
        # What came in meanwhile is read in the same turn, before the timers.
        data = b"".join(wire.encode_frame(wire.Started("/after"), 0))
        pair.node._reader._due = 0  # pyright: ignore[reportPrivateUsage]
        pair.node.data_received(data)
        await asyncio.sleep(0.01)
        lapsed = pair.lapsed_at
        pair.stop()
        return lapsed

    assert simulation.run(main).value is not None
    assert heard == [wire.Started("/before")]


@given(st.lists(st.one_of(st.floats(allow_nan=True, allow_infinity=True)), max_size=20))
def test_no_echo_makes_a_lease_longer_than_its_seconds(echoes: list[float]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        lease = Lease(loop, 5.0, ignore)
        for echo in echoes:
            lease.echoed(echo)
            assert lease.until <= loop.time() + 5.0
        lease.stop()

    simulation.run(main)


def test_what_a_node_says_last_has_been_heard_when_it_goes() -> None:
    async def main() -> tuple[bool, bool]:
        pair = Pair(lambda: 0.5, lambda: 0.5)
        heard = list[wire.Frame]()
        pair.head._on_frame = noted(heard)  # pyright: ignore[reportPrivateUsage]
        pair.node.keep_alive(Heartbeat(), None, pair.lapsed)
        pair.node.write(wire.Started("/last"))
        await asyncio.sleep(0.1)
        early = bool(heard)
        await pair.node.drain(10.0, until_heard=True)
        late = bool(heard)
        pair.stop()
        return early, late

    assert simulation.run(main).value == (False, True)


def test_one_whose_loop_is_blocked_goes_all_the_same() -> None:
    async def main() -> None:
        left, late = threading.Event(), list[str]()
        lease = Lease(asyncio.get_running_loop(), 0.05, lambda: late.append("by the loop"))
        lease.guard(left.set)
        assert left.wait(30.0)
        assert late == []
        lease.stop()

    asyncio.run(main())


def test_the_guard_of_a_lease_that_is_stopped_goes_without_a_word() -> None:
    async def main() -> None:
        left, before = threading.Event(), set(threading.enumerate())
        lease = Lease(asyncio.get_running_loop(), 60.0, left.set)
        lease.guard(left.set)
        lease.stop()
        for thread in set(threading.enumerate()) - before:
            thread.join(30.0)
            assert not thread.is_alive()
        assert not left.is_set()

    asyncio.run(main())
