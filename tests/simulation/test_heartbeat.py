"""Heartbeats: silence is noticed within the loss time and never before its time, also by those who stood still."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palmette.actors import Heartbeat, simulation
from palmette.actors.heartbeat import Pulse


class Line:
    """What a pulse keeps alive; notes when it was given up."""

    def __init__(self) -> None:
        self.beats: list[float] = []
        self.heard = False
        self.lost: list[float] = []

    def beat(self) -> None:
        self.beats.append(asyncio.get_running_loop().time())

    def was_heard(self) -> bool:
        heard, self.heard = self.heard, False
        return heard

    def gone_silent(self, seconds: float) -> None:
        self.lost.append(asyncio.get_running_loop().time())

    def hear(self) -> None:
        self.heard = True


@given(st.floats(0.01, 10.0), st.floats(3.0, 20.0), st.floats(0.0, 1.0), st.integers(1, 30))
@settings(max_examples=50)
def test_silence_is_noticed_within_the_loss_time(interval: float, times: float, phase: float, words: int) -> None:
    heartbeat = Heartbeat(interval=interval, loss=interval * times)
    line = Line()

    async def main() -> float:
        loop = asyncio.get_running_loop()
        pulse = Pulse(loop, line, heartbeat, lambda: True)
        await asyncio.sleep(phase * interval)
        last = loop.time()
        for _ in range(words):  # the other side's own pulse: once an interval, at some phase of ours
            line.hear()
            last = loop.time()
            await asyncio.sleep(interval)
        assert line.lost == []
        await asyncio.sleep(2 * heartbeat.loss)
        pulse.stop()
        return last

    last = simulation.run(main).value
    [lost] = line.lost
    assert lost - last <= heartbeat.loss * 1.000001
    assert lost - last >= heartbeat.loss - 3 * interval
    assert lost - last > interval


def test_one_that_is_busy_is_waited_for() -> None:
    async def main() -> tuple[int, list[float]]:
        line = Line()
        busy = True
        pulse = Pulse(asyncio.get_running_loop(), line, Heartbeat(interval=1.0, loss=3.0), lambda: not busy)
        await asyncio.sleep(100.5)
        assert line.lost == []
        busy = False  # it is stopped from now on
        await asyncio.sleep(10.0)
        pulse.stop()
        return len(line.beats), line.lost

    assert simulation.run(main).value == (102, [102.0])


def test_nobody_is_given_up_by_one_who_stood_still() -> None:
    """A stopped program finds one turn of its clock missed, however long it was."""

    async def main() -> list[float]:
        line = Line()
        loop = asyncio.get_running_loop()
        pulse = Pulse(loop, line, Heartbeat(interval=1.0, loss=3.0), lambda: True)
        for _ in range(3):
            await asyncio.sleep(0.5)
            line.hear()
            await asyncio.sleep(1.0)
            loop._now += 1000.0  # type: ignore[attr-defined]  # pyright: ignore
            # What has come in meanwhile may be read after the timers of this turn of the loop, and not before.
            loop.call_later(0.01, line.hear)
        pulse.stop()
        return line.lost

    assert simulation.run(main).value == []


@pytest.mark.parametrize(("interval", "loss"), [(0.0, 1.0), (-1.0, 5.0), (1.0, 2.9), (float("nan"), 1.0)])
def test_a_heartbeat_that_cannot_work_is_refused(interval: float, loss: float) -> None:
    with pytest.raises(ValueError, match="at least three intervals"):
        Heartbeat(interval=interval, loss=loss)
