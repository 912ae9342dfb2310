"""Whatever its tasks, its consumer and fate do: a stream keeps its order and its bounds, and gives each item once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.probes import Boom, Probe
from support.worlds import here, turns
from task_support import present, tasks_running

from palmette.actors import ActorDied, DeadlineExceeded, Ref, System
from palmette.supervisors import Exited, Ok, TaskSupervisor
from palmette.supervisors.stream import OnTimeout

TIMEOUT = 10.0
GRACE = 5.0
"""More than the seconds that anybody here takes to clean up."""


class Item(msgspec.Struct, frozen=True):
    """What one task does."""

    number: int
    seconds: float
    end: str
    """``return``, ``crash``, or ``slow``: it takes a second to clean up when it is cancelled."""


class Scenario(msgspec.Struct, frozen=True):
    """One run of a stream."""

    items: tuple[Item, ...]
    max_concurrency: int
    ordered: bool
    on_timeout: OnTimeout
    pause: float
    """Seconds that the consumer takes over each result."""
    leave_after: int | None
    strikes: tuple[tuple[float, str], ...]
    """What is killed, and when: a ``task``, the ``supervisor``, the ``owner``."""


class Watch:
    """What the tasks of a scenario were seen doing."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.running = self.most_running = self.most_buffered = 0
        self.taken: list[int] = []
        self.begun: list[int] = []
        self.delivered: list[Ok[int] | Exited] = []
        self.over: str | None = None

    def take(self) -> Iterator[Item]:
        for item in self.scenario.items:
            self.taken.append(item.number)
            yield item

    async def work(self, item: Item) -> int:
        self.begun.append(item.number)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.most_buffered = max(self.most_buffered, len(self.taken) - len(self.delivered))
        try:
            await asyncio.sleep(item.seconds)
            if item.end == "crash":
                raise Boom(str(item.number))
            return item.number
        except asyncio.CancelledError:
            if item.end == "slow":
                await asyncio.sleep(0.5)
            raise
        finally:
            self.running -= 1

    async def consume(self, tasks: Ref[TaskSupervisor]) -> None:
        scenario = self.scenario
        answers = TaskSupervisor.async_stream(
            tasks,
            self.work,
            self.take(),
            max_concurrency=scenario.max_concurrency,
            ordered=scenario.ordered,
            timeout=TIMEOUT,
            on_timeout=scenario.on_timeout,
        )
        try:
            async with aclosing(answers):
                async for answer in answers:
                    self.delivered.append(answer)
                    if len(self.delivered) == scenario.leave_after:
                        break
                    await asyncio.sleep(scenario.pause)
                else:
                    self.over = "all"
                    return
            self.over = "left" if self.running == 0 else "left, but tasks run on"
        except DeadlineExceeded:
            self.over = "overdue"
        except ActorDied:
            self.over = "died"


seconds = st.sampled_from([0.0, 1.0, 2.0, 3.0, 9.0, 11.0, 1000.0])
items = st.lists(st.tuples(seconds, st.sampled_from(["return", "return", "crash", "slow"])), max_size=12).map(
    lambda drawn: tuple(Item(number, *one) for number, one in enumerate(drawn))
)
strikes = st.lists(
    st.tuples(st.sampled_from([0.5, 1.5, 4.0, 9.5]), st.sampled_from(["task", "task", "supervisor", "owner"])),
    max_size=3,
)


@pytest.mark.worlds("simulated", why="takes minutes for each of hundreds of examples", drawn=True)
@settings(max_examples=100)
@given(
    seed=st.integers(0, 1_000_000),
    scenario=st.builds(
        Scenario,
        items=items,
        max_concurrency=st.integers(1, 4),
        ordered=st.booleans(),
        on_timeout=st.sampled_from(["exit", "kill_task"]),
        pause=st.sampled_from([0.0, 0.0, 1.0, 5.0]),
        leave_after=st.none() | st.integers(1, 6),
        strikes=strikes.map(lambda drawn: tuple(sorted(drawn))),
    ),
)
def test_a_stream_keeps_its_promises(seed: int, scenario: Scenario) -> None:
    watch = Watch(scenario)

    @here(seed=seed)
    async def check() -> None:
        async with tasks_running() as (system, tasks):
            owner = system.whereis("owner", Probe)
            owner.cast(Probe.do, lambda actor: actor.start_task(watch.consume(tasks), tag="consumed"))
            at = 0.0
            for when, what in scenario.strikes:
                await asyncio.sleep(when - at)
                at = when
                await strike(system, tasks, what)
            await asyncio.sleep(len(scenario.items) * (TIMEOUT + scenario.pause + GRACE) + GRACE)
            await system.wait_for("tasks", TaskSupervisor)
            assert await present(tasks) == []
            assert watch.running == 0
            assert owner.is_alive() != any(what == "owner" for _, what in scenario.strikes)

    check()
    judge(watch)


async def strike(system: System, tasks: Ref[TaskSupervisor], what: str) -> None:
    match what:
        case "supervisor":
            tasks.kill()
        case "owner":
            system.ref_at("/owner", Probe).kill()
        case _:
            below = next(node.children for node in system.tree().children if node.name == "tasks")
            for node in below[:1]:
                system.ref_at(node.path, Probe).kill("struck")
    await turns()


def judge(watch: Watch) -> None:
    scenario = watch.scenario
    assert watch.most_running <= scenario.max_concurrency
    assert watch.most_buffered <= 2 * scenario.max_concurrency
    given = [numbered(answer) for answer in watch.delivered]
    assert len(set(given)) == len(given), "an item was delivered twice"
    assert watch.taken == list(range(len(watch.taken))), "the items were not taken in order"
    assert len(set(watch.begun)) == len(watch.begun), "an item was worked on twice"
    assert set(given) <= set(watch.taken)
    if scenario.ordered:
        assert given == list(range(len(given)))
    killed = any(scenario.strikes)
    for answer in watch.delivered:
        item = scenario.items[numbered(answer)]
        if isinstance(answer, Ok):
            assert item.end != "crash"
            assert item.seconds < TIMEOUT
        else:
            assert killed or item.end == "crash" or item.seconds > TIMEOUT
    match watch.over:
        case "all":
            assert sorted(given) == list(range(len(scenario.items)))
            if scenario.leave_after is not None:
                assert len(given) < scenario.leave_after
        case "left":
            assert len(given) == scenario.leave_after
        case "overdue":
            assert scenario.on_timeout == "exit"
            assert any(item.seconds > TIMEOUT for item in scenario.items)
        case "died":
            assert any(what == "supervisor" for _, what in scenario.strikes)
        case _:
            assert any(what == "owner" for _, what in scenario.strikes), "the stream hung"


def numbered(answer: Ok[int] | Exited) -> int:
    if isinstance(answer, Ok):
        return answer.value
    assert isinstance(answer.item, Item)
    return answer.item.number
