"""One fault at a time on a simulated node: what each does, when it is noticed, and what is not heard any more."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import threading
from typing import NoReturn, cast

import pytest
from simulation.node_people import Listener, Outer, Taker, Talker, Tick

from palmette.actors import (
    ActorDied,
    DeadlineExceeded,
    Heartbeat,
    Killed,
    MailboxFull,
    System,
    Unreachable,
    deadline,
    simulation,
)
from palmette.actors.simulation import Fault, NodeLoop, SimulatedLoop, SimulationFailed, Stuck, simulate
from palmette.supervisors import StartRefused, Supervisor, child


def world() -> SimulatedLoop:
    return cast("SimulatedLoop", asyncio.get_running_loop())


class Story:
    """What became of a talker in a node, and of a listener here who watches it."""

    def __init__(self) -> None:
        self.heard: list[Tick] = []
        self.said: list[Tick] = []
        self.news: list[str] = []
        self.reasons: list[object] = []
        self.at: list[float] = []
        self.incarnation = 0


async def talk(seconds: float, heartbeat: Heartbeat | None = None) -> Story:
    Talker.said.clear()
    story = Story()
    spec = Supervisor.spec(max_restarts=100, children=[child(Listener, name="listener")])
    async with System.start(spec, heartbeat=heartbeat) as system:
        listener = system.whereis("listener", Listener)
        root = system.ref_at("/", Supervisor)
        await root.call(Supervisor.start_child, child(Talker, listener, name="talker", isolation="process"))
        talker = system.ref_at("/talker", Talker)
        await listener.call(Listener.watch, talker)
        await asyncio.sleep(seconds)
        story.heard = await listener.call(Listener.all_heard)
        story.news = await listener.call(Listener.all_news)
        story.reasons = [record.reason for record in system.why("/talker")]
        story.at = [record.at - simulation.START for record in system.why("/talker")]
        story.incarnation = talker.incarnation
    story.said = list(Talker.said)
    assert world().nodes == {}
    assert asyncio.all_tasks() == {asyncio.current_task()}
    return story


def of(ticks: list[Tick], incarnation: int) -> list[int]:
    return [tick.number for tick in ticks if tick.incarnation == incarnation]


SILENCES = [Fault(kind=kind, path="/talker", message=30, seconds=60.0) for kind in ("partition", "freeze_node")]


@pytest.mark.parametrize("fault", SILENCES, ids=str)
@pytest.mark.parametrize("heartbeat", [None, Heartbeat(interval=1.0, loss=4.0)])
def test_a_silent_node_is_unreachable_within_the_loss_time_and_is_told_of_once(
    fault: Fault, heartbeat: Heartbeat | None
) -> None:
    loss = (heartbeat or Heartbeat()).loss
    result = simulation.run(lambda: talk(120.0, heartbeat), faults=[fault])
    story = result.value
    began = next(float(line.split()[0]) for line in result.log.splitlines() if f" fault /talker#1 {fault.kind}" in line)
    assert isinstance(story.reasons[0], Unreachable)
    assert len(story.news) == 2, "one Down, one Exit"
    assert all("node talker-" in news and "unreachable (silent for" in news for news in story.news)
    # Where the node cannot even be killed, its death is not waited for longer than the kill's grace.
    assert loss / 3 < story.at[0] - began <= loss + 1.0
    assert story.incarnation == 2


@pytest.mark.parametrize("fault", SILENCES, ids=str)
def test_a_node_that_was_given_up_is_fenced(fault: Fault) -> None:
    """Whatever it says when it comes back is not heard beside its successor, and it is killed."""
    result = simulation.run(lambda: talk(120.0), faults=[fault])
    heard = result.value.heard
    first = [tick.incarnation for tick in heard]
    assert first == sorted(first), "the old one was heard after the new one"
    assert of(heard, 1) == list(range(1, len(of(heard, 1)) + 1))
    if fault.kind == "partition":
        ended = next(line for line in result.log.splitlines() if " node ended /talker#1" in line)
        healed = next(line for line in result.log.splitlines() if " healed /talker#1" in line)
        assert float(ended.split()[0]) < float(healed.split()[0]) - 40.0, "it noticed by itself"
        assert len(of(result.value.said, 1)) > len(of(heard, 1)) + 50, "it did talk on, into the void"
    assert -1 not in of(result.value.said, 1), "it was killed, and not ended in order"
    assert "node ended /talker#1" in result.log


def test_a_short_silence_is_no_loss() -> None:
    for fault in SILENCES:
        short = Fault(kind=fault.kind, path="/talker", message=30, seconds=8.0)
        story = simulation.run(lambda: talk(60.0), faults=[short]).value
        assert story.reasons == []
        assert of(story.heard, 1) == list(range(1, len(story.heard) + 1))
        assert len(story.heard) > 500


@pytest.mark.parametrize("kind", ["drop", "duplicate"])
def test_a_frame_that_is_lost_or_comes_twice_ends_the_link_and_both_sides(kind: simulation.Kind) -> None:
    result = simulation.run(lambda: talk(30.0), faults=[Fault(kind=kind, path="/talker", message=30)])
    story = result.value
    [reason] = story.reasons
    assert isinstance(reason, Unreachable)
    assert "was due" in reason.detail
    assert len(story.news) == 2
    numbers = of(story.heard, 1)
    assert numbers == list(range(1, len(numbers) + 1))
    assert story.incarnation == 2


def test_a_lost_frame_that_nothing_follows_is_missed_by_the_next_heartbeat() -> None:
    async def main() -> float:
        spec = Supervisor.spec(children=[child(Taker, name="taker", isolation="process")])
        async with System.start(spec) as system:
            began = system.loop.time()
            with pytest.raises(ActorDied) as died:
                await system.ref_at("/taker", Taker).call(Taker.all_taken)
            assert isinstance(died.value.reason, Unreachable)
            return system.loop.time() - began

    took = simulation.run(main, faults=[Fault(kind="drop", path="/taker", message=4)]).value
    assert took < Heartbeat().interval + 1.5


def test_a_killed_node_runs_nothing_more_and_is_replaced() -> None:
    story = simulation.run(lambda: talk(30.0), faults=[Fault(kind="kill_node", path="/talker", message=30)]).value
    [reason] = story.reasons
    assert isinstance(reason, Killed)
    assert "ended without a word" in reason.detail
    assert -1 not in of(story.said, 1), "no finally"
    assert len(story.news) == 2
    assert story.incarnation == 2


def test_a_node_that_cannot_start_is_a_failed_start_and_a_slow_one_is_waited_for() -> None:
    async def main() -> float:
        spec = Supervisor.spec(children=[child(Taker, name="taker", isolation="process")])
        async with System.start(spec) as system:
            await system.ref_at("/taker", Taker).call(Taker.pid)
            return system.loop.time()

    with pytest.raises(SimulationFailed, match="/taker could not start: NodeError: its process ended before"):
        simulation.run(main, faults=[Fault(kind="fail_node", path="/taker")])
    assert simulation.run(main, faults=[Fault(kind="slow_node", path="/taker", seconds=20.0)]).value > 20.0
    with pytest.raises(SimulationFailed, match="did not call back within 60 s"):
        simulation.run(main, faults=[Fault(kind="slow_node", path="/taker", seconds=61.0)])


def test_slow_links_and_delays_keep_the_order() -> None:
    for fault in (
        Fault(kind="slow_link", path="/talker", message=10, seconds=3.0),
        Fault(kind="delay", path="/talker", message=10, seconds=9.0),
    ):
        story = simulation.run(lambda: talk(30.0), faults=[fault]).value
        assert story.reasons == []
        assert of(story.heard, 1) == list(range(1, len(story.heard) + 1))
        assert len(story.heard) > 200


def test_a_link_that_takes_no_more_refuses_casts_and_delivers_what_it_took() -> None:
    """The buffers of a simulated connection are bounded like a socket's."""

    async def main() -> tuple[int, list[int]]:
        spec = Supervisor.spec(children=[child(Taker, name="taker", isolation="process")])
        async with System.start(spec) as system:
            taker = system.ref_at("/taker", Taker)
            await taker.call(Taker.pid)  # frames 4 and 5; the partition begins with the next
            took = 0
            with contextlib.suppress(MailboxFull):
                while took < 100:
                    taker.cast(Taker.take, took, "x" * (1 << 20))
                    took += 1
                    await asyncio.sleep(0.01)
            await asyncio.sleep(10.0)
            taker.cast(Taker.take, took, "")
            return took + 1, await taker.call(Taker.all_taken)

    took, taken = simulation.run(main, faults=[Fault(kind="partition", path="/taker", message=6, seconds=5.0)]).value
    assert 8 <= took <= 11
    assert taken == list(range(took))


def test_a_node_of_a_node_goes_with_it() -> None:
    async def main() -> list[int]:
        spec = Supervisor.spec(children=[child(Outer, name="outer", isolation="process")])
        async with System.start(spec) as system:
            inner = system.ref_at("/outer/inner", Taker)
            await inner.call(Taker.pid)
            before = list(world().nodes)
            system.ref_at("/outer", Outer).kill()
            await asyncio.sleep(0.01)
            assert world().nodes == {}
            await asyncio.sleep(5.0)
            await inner.call(Taker.pid)
            return before + list(world().nodes)

    assert simulation.run(main).value == [1001, 1002, 1003, 1004]


def test_sys_exit_in_a_task_that_nobody_owns_ends_its_node_only() -> None:
    async def main() -> int:
        spec = Supervisor.spec(children=[child(Taker, name="taker", isolation="process")])
        async with System.start(spec) as system:
            taker = system.ref_at("/taker", Taker)
            taker.cast(Taker.exit_loose)
            with pytest.raises(ActorDied, match="without a word"):
                await taker.call(Taker.wait, 5.0)
            await asyncio.sleep(5.0)
            await taker.call(Taker.pid)
            return taker.incarnation

    assert simulation.run(main).value == 2


def test_heartbeats_alone_are_no_progress() -> None:
    """They would go on for ever; the program is stuck, and is told so."""

    async def main() -> None:
        spec = Supervisor.spec(children=[child(Taker, name="taker", isolation="process")])
        async with System.start(spec) as system:
            await system.ref_at("/taker", Taker).call(Taker.wait, 30.0)
            with deadline(3 * 3600.0):
                await system.ref_at("/taker", Taker).call(Taker.wait, 2 * 3600.0)
            await asyncio.get_running_loop().create_future()

    with pytest.raises(SimulationFailed) as failed:
        simulation.run(main)
    assert isinstance(failed.value.__cause__, Stuck)
    assert failed.value.log.count("\n") < 40


def test_what_belongs_to_another_node_cannot_be_awaited() -> None:
    """Simulated nodes share this process; a future that wandered from one to another would hide a bug."""

    async def main() -> None:
        loop = NodeLoop(world(), 1)
        future = loop.create_future()
        try:
            with pytest.raises(RuntimeError, match="attached to a different loop"):
                await future
        finally:
            loop.die()

    simulation.run(main)


def test_no_socket_process_or_thread_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("this is a simulation")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "socketpair", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert len(simulation.run(lambda: talk(5.0)).value.heard) > 30


@simulate(seeds=20, faults=simulation.RandomFaults(rate=0.5, match="/talker", kinds=("partition", "kill_node", "drop")))
async def test_the_decorator_takes_faults_of_nodes() -> None:
    """Order holds per incarnation, whatever happens."""
    try:
        story = await talk(60.0)
    except (StartRefused, DeadlineExceeded):
        return  # its first start failed
    for incarnation in range(1, story.incarnation + 1):
        numbers = of(story.heard, incarnation)
        assert numbers == list(range(1, len(numbers) + 1))
