"""An actor that holds up the event loop is named from outside of it, with what it does and where it stands."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from support.probes import Probe, actor_of, running, worker
from support.worlds import everywhere, in_real_time

from palmette.actors import Reason, System, endpoint
from palmette.actors.simulation import run
from palmette.actors.watchdog import Judge, Sight
from palmette.supervisors import Supervisor

SECONDS = 0.02

watched_over = in_real_time(why="a simulation is not watched")


class Alarm(logging.Handler):
    """What blocking code waits for: no longer than until the watchdog has said what it is to say."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.rung = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
        self.rung.set()

    def block(self) -> None:
        assert self.rung.wait(20), "nobody complained"


@pytest.fixture
def alarm() -> Iterator[Alarm]:
    alarm, logger = Alarm(), logging.getLogger("palmette")
    alarm.setLevel(logging.WARNING)
    logger.addHandler(alarm)
    yield alarm
    logger.removeHandler(alarm)


class Blocking(Probe):
    """Blocks the loop where it is told to, until the watchdog complains."""

    def __init__(self, alarm: Alarm, where: str = "") -> None:
        super().__init__()
        self.alarm = alarm
        self.where = where
        self.block_in("init")

    def block_in(self, place: str) -> None:
        if place == self.where:
            self.alarm.block()

    async def started(self) -> None:
        self.block_in("started")

    async def continued(self) -> None:
        self.block_in("continued")

    async def stopping(self, reason: Reason) -> None:
        self.block_in("stopping")

    async def receive(self, message: object) -> None:
        self.block_in("receive")

    @endpoint
    async def block(self) -> str:
        await asyncio.sleep(0)
        self.alarm.block()
        return "done"

    async def work(self) -> None:
        self.alarm.block()


@asynccontextmanager
async def watched(alarm: Alarm, where: str = "", seconds: float | None = SECONDS) -> AsyncGenerator[System]:
    tree = Supervisor.spec(children=[worker(Blocking, alarm, where)])
    async with System.start(tree, blocked_after=seconds) as system:
        yield system


@watched_over
async def test_it_names_the_actor_the_endpoint_and_the_line_once_and_says_when_it_is_over(alarm: Alarm) -> None:
    async with watched(alarm) as system:
        ref = system.whereis("it", Blocking)
        assert await ref.call(Blocking.block) == "done"
    during, after = [text for text in alarm.texts if text.startswith("/it ")]
    assert re.fullmatch(
        r"/it \(Blocking\) has blocked the event loop for 0\.\d+ s in block, and nothing else runs: "
        r"test_watchdog\.py:\d+ in block → threading\.py:\d+ in wait\. Give blocking work to asyncio\.to_thread.*",
        during,
    )
    assert re.fullmatch(r"/it blocked the event loop for [\d.]+ s in block", after)
    [record] = system.blocked_by("/it")
    assert (record.path, record.kind, record.incarnation, record.doing) == ("/it", "Blocking", 1, "block")
    assert record.seconds >= SECONDS
    assert system.statistics().blocked == len(system.blocked) >= 1
    assert record in system.blocked_by("/")
    assert system.blocked_by("/i") == []
    assert "blocked the event loop" in str(record)


@pytest.mark.parametrize(
    ("where", "doing"),
    [
        ("init", "__init__()"),
        ("started", "started()"),
        ("continued", "continued()"),
        ("stopping", "stopping()"),
        ("receive", "receive(str)"),
    ],
)
@watched_over
async def test_it_knows_hooks_and_plain_messages(alarm: Alarm, where: str, doing: str) -> None:
    async with watched(alarm, where) as system:
        system.whereis("it", Blocking).send("message")
        await asyncio.sleep(0)
    assert [(record.path, record.doing) for record in system.blocked_by("/it")] == [("/it", doing)]


def block_in_a_tagged_task(me: Blocking) -> None:
    me.start_task(me.work(), tag="t")


def block_in_a_task(me: Blocking) -> None:
    me.start_task(me.work())


def block_in_a_bare_task(me: Blocking) -> None:
    me.bare = asyncio.ensure_future(me.work())  # pyright: ignore[reportAttributeAccessIssue]


def block_in_a_callback(me: Blocking) -> None:
    me.system.loop.call_soon(me.alarm.block)


async def block_beside_the_mailbox(alarm: Alarm, how: Callable[[Blocking], None], doing: str) -> None:
    async with watched(alarm) as system:
        ref = system.whereis("it", Blocking)
        await ref.call(Probe.do, how)  # pyright: ignore[reportArgumentType]
        for _ in range(20):
            await asyncio.sleep(0)
    assert [(record.path, record.doing) for record in system.blocked_by("/it")] == [("/it", doing)]


@pytest.mark.parametrize(
    ("how", "doing"),
    [
        (block_in_a_tagged_task, "its task 't'"),
        (block_in_a_task, "a task of its own"),
    ],
)
@watched_over
async def test_it_knows_what_an_actor_has_going_on_beside_its_mailbox(
    alarm: Alarm, how: Callable[[Blocking], None], doing: str
) -> None:
    await block_beside_the_mailbox(alarm, how, doing)


@pytest.mark.parametrize("how", [block_in_a_bare_task, block_in_a_callback])
def test_it_knows_what_an_actor_gives_to_the_loop_itself_where_the_loop_is_asyncios(
    alarm: Alarm, how: Callable[[Blocking], None]
) -> None:
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:  # uvloop's stack does not show it
        runner.run(block_beside_the_mailbox(alarm, how, "a callback or task of its own"))


@watched_over
async def test_it_finds_code_that_hardly_lets_go_of_the_interpreter(alarm: Alarm) -> None:
    def compute(_: Probe) -> None:
        for _round in range(1000):
            sum(range(1_000_000))  # one step in C
            if alarm.rung.is_set():
                return

    async with watched(alarm) as system:
        await system.whereis("it", Blocking).call(Probe.do, compute)
    [record] = system.blocked_by("/it")
    assert record.doing == "do"
    assert "in compute" in record.where


# --- the judgement, without a clock -----------------------------------------------------------------------------------


@asynccontextmanager
async def sights() -> AsyncGenerator[Callable[[int], Sight]]:
    async with running(worker(Probe)) as system:
        cell = actor_of(system.whereis("it", Probe))._cell  # pyright: ignore[reportPrivateUsage]
        yield lambda step: Sight(cell, (step, 0), "do", "here")


@everywhere
async def test_one_step_that_stands_for_the_threshold_is_reported_once() -> None:
    async with sights() as sight:
        judge = Judge(1.0, 0.0, 0.0)
        assert judge.look(lambda: sight(1), 0.2, 0.0, turned=True) is None
        for now in (0.4, 0.6, 0.8, 1.0, 1.1):
            assert judge.look(lambda: sight(1), now, 0.0, turned=False) is None
        found = judge.look(lambda: sight(1), 1.21, 0.0, turned=False)
        assert found is not None
        assert found.since == 0.2
        assert judge.look(lambda: sight(1), 5.0, 0.0, turned=False) is None
        assert judge.look(lambda: sight(2), 5.2, 0.0, turned=True) is None


@everywhere
async def test_a_loop_that_turns_and_a_handler_that_changes_are_not_blocked() -> None:
    async with sights() as sight:
        judge = Judge(1.0, 0.0, 0.0)
        for number in range(20):  # a long handler of many short steps
            assert judge.look(lambda: sight(1), 0.2 * number, 0.2 * number, turned=True) is None
        for number in range(20):  # one short handler after the other, between two turns of the loop
            assert judge.look(partial(sight, number), 10 + 0.2 * number, 0.0, turned=False) is None
        for number in range(20):  # somebody who is no actor
            assert judge.look(lambda: None, 20 + 0.2 * number, 0.0, turned=False) is None


@everywhere
async def test_who_kept_the_watchdog_from_looking_is_who_stands_there_when_it_comes_in() -> None:
    async with sights() as sight:
        judge = Judge(1.0, 0.0, 0.0)
        assert judge.look(lambda: None, 0.2, 0.0, turned=True) is None
        found = judge.look(lambda: sight(1), 3.2, 2.9, turned=True)
        assert found is not None
        assert found.since == 0.2


@everywhere
async def test_a_process_that_was_asleep_blames_nobody() -> None:
    async with sights() as sight:
        judge = Judge(1.0, 0.0, 0.0)
        assert judge.look(lambda: None, 0.2, 0.0, turned=True) is None
        assert judge.look(lambda: sight(1), 3600.0, 0.1, turned=True) is None


# --- where nobody watches ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [None, 1.0])
@watched_over
async def test_nobody_watches_after_the_end_nor_where_it_is_switched_off(alarm: Alarm, seconds: float | None) -> None:
    def watchdogs() -> int:
        return sum(thread.name == "palmette-watchdog" for thread in threading.enumerate())

    before = watchdogs()
    async with watched(alarm, seconds=seconds):
        assert watchdogs() == before + (seconds is not None)
    assert watchdogs() == before


@everywhere
async def test_a_threshold_is_more_than_nothing() -> None:
    with pytest.raises(ValueError, match="blocked_after is more than 0 seconds, or None to watch nothing; got 0"):
        async with System.start(Supervisor.spec(), blocked_after=0):
            pass


def test_a_simulation_is_not_watched() -> None:
    async def main() -> bool:
        async with running(worker(Probe)):
            return any(thread.name == "palmette-watchdog" for thread in threading.enumerate())

    assert run(main, seed=1).value is False
