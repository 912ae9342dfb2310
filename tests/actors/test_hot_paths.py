"""What the kernel leaves out where nothing has to be waited for, and that nobody can tell."""

from __future__ import annotations

import asyncio
import math

import pytest
from support.probes import actor_of, running, worker
from support.worlds import everywhere, is_real, now, simulated, took, turns

from palmette.actors import Actor, ActorDied, DeadlineExceeded, Reason, deadline, endpoint
from palmette.actors.deadlines import DEFAULT_CALL_SECONDS
from palmette.actors.eager import Done, first_step
from palmette.actors.expiry import TICKS, Expiry
from palmette.actors.parking import PLACES
from palmette.actors.slot import Slot


class Echo(Actor):
    def __init__(self) -> None:
        self.context_at_start = self.path

    @endpoint
    async def echo(self, value: int) -> int:
        async with asyncio.timeout(1000):  # needs a real task
            await asyncio.sleep(0)
        return value

    @endpoint
    async def wait(self, seconds: float) -> None:
        await (asyncio.sleep(seconds) if seconds < math.inf else asyncio.Event().wait())


@everywhere
async def test_a_deadline_holds_to_the_instant_however_far_off_it_is() -> None:
    async with running(worker(Echo)) as system:
        echo = system.whereis("it", Echo)
        for seconds in (0.01, 0.1, 0.125, 1.0, 3.3, 20.0):
            begun = now()
            with pytest.raises(DeadlineExceeded), deadline(seconds):
                await echo.call(Echo.wait, math.inf if is_real() else seconds + 0.001)
            assert took(seconds, since=begun, give=1e-6)
            await asyncio.sleep(1)


@everywhere
async def test_a_deadline_without_end_is_no_deadline() -> None:
    async with running(worker(Echo)) as system:
        with deadline(math.inf):
            await system.whereis("it", Echo).call(Echo.wait, DEFAULT_CALL_SECONDS + 1)


def timers() -> int:
    """Timers that the running loop has set."""
    return len(getattr(asyncio.get_running_loop(), "_scheduled"))  # noqa: B009 - private, and the one place to look


@simulated(why="looks into asyncio's own list of timers")
async def test_answered_calls_leave_nothing_behind_but_one_timer_per_tick() -> None:
    expiry = Expiry(asyncio.get_running_loop())
    before = timers()
    for _ in range(1000):
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        drawer = expiry.watch(future, 10.0, Slot("/echo"), Echo.echo)
        future.set_result(None)
        del drawer[future]
    assert timers() == before + 1
    await asyncio.sleep(10.0 + 1 / TICKS)
    assert timers() == before
    expiry.close()


@everywhere
async def test_more_busy_actors_than_places_all_answer_and_few_keep_a_task() -> None:
    count = PLACES + 50
    async with running(*(worker(Echo, name=f"echo-{number}") for number in range(count))) as system:
        refs = [system.whereis(f"echo-{number}", Echo) for number in range(count)]
        for value in range(20):
            # Out of step, so that an engine is sent away while a message for its cell is on the way.
            for stride in (1, 7):
                answers = await asyncio.gather(*(ref.call(Echo.echo, value) for ref in refs[::stride]))
                assert set(answers) == {value}
        await turns()
        kept = [ref for ref in refs if actor_of(ref)._cell.task is not None]  # pyright: ignore[reportPrivateUsage]
        assert 0 < len(kept) <= PLACES


@everywhere
async def test_an_actor_whose_engine_was_sent_away_can_be_killed_and_stopped() -> None:
    count = PLACES + 2
    async with running(*(worker(Echo, name=f"echo-{number}") for number in range(count))) as system:
        refs = [system.whereis(f"echo-{number}", Echo) for number in range(count)]
        for ref in refs:
            for value in range(10):
                await ref.call(Echo.echo, value)
        refs[0].kill()
        refs[-1].kill()
        await refs[1].stop()
        await refs[-2].stop()
        await turns(20)
        assert not any(ref.is_alive() for ref in (refs[0], refs[1], refs[-1], refs[-2]))
        with pytest.raises(ActorDied):
            await refs[-1].call(Echo.echo, 1)


class Early(Actor):
    """Does much in ``__init__``, which runs in its starter's turn."""

    log: list[str]

    def __init__(self, log: list[str], *, leave: bool = False) -> None:
        self.log = log
        self.ref.send("to myself")
        if leave:
            self.stop()

    async def continued(self) -> None:
        self.log.append("continued")

    async def receive(self, message: object) -> None:
        self.log.append(str(message))

    async def stopping(self, reason: Reason) -> None:
        self.log.append(type(reason).__name__)


@everywhere
async def test_continued_runs_before_what_init_sent_to_itself() -> None:
    log: list[str] = []
    async with running(worker(Early, log)):
        await turns()
        assert log == ["continued", "to myself"]


@everywhere
async def test_an_actor_that_stops_itself_in_init_starts_and_ends() -> None:
    log: list[str] = []
    async with running(worker(Early, log, leave=True)):
        await turns(20)
        assert log[-1] == "Normal"
        assert "to myself" not in log


class Slow(Actor):
    """Waits in its hooks, which begin in place."""

    waits_in_place = True

    def __init__(self, seconds: float, log: list[float]) -> None:
        self._seconds, self._log = seconds, log

    async def started(self) -> None:
        await asyncio.sleep(self._seconds)
        self._log.append(self.system.loop.time())

    async def stopping(self, reason: Reason) -> None:
        await asyncio.sleep(self._seconds)
        self._log.append(self.system.loop.time())


@everywhere
async def test_a_hook_that_begins_in_place_goes_on_in_a_task_where_it_waits() -> None:
    log: list[float] = []
    async with running(worker(Slow, 2.0, log)):
        assert len(log) == 1
        assert took(2)
    assert len(log) == 2
    assert took(4)


@everywhere
async def test_what_is_left_after_the_first_step_gets_results_errors_and_cancellation() -> None:
    seen: list[str] = []

    async def work(future: asyncio.Future[str]) -> str:
        try:
            seen.append(await future)
            seen.append(await asyncio.wait_for(future, 1))
        except (ValueError, asyncio.CancelledError) as error:
            seen.append(type(error).__name__)
            raise
        return "done"

    loop = asyncio.get_running_loop()
    good: asyncio.Future[str] = loop.create_future()
    bad: asyncio.Future[str] = loop.create_future()
    never: asyncio.Future[str] = loop.create_future()

    def begun(future: asyncio.Future[str]) -> asyncio.Task[str]:
        rest = first_step(work(future))
        assert not isinstance(rest, Done)
        return asyncio.create_task(rest)

    async def has_a_result() -> None:
        task = begun(good)
        good.set_result("x")
        assert await task == "done"

    async def has_an_error() -> None:
        task = begun(bad)
        bad.set_exception(ValueError("broken"))
        with pytest.raises(ValueError, match="broken"):
            await task

    async def is_cancelled() -> None:
        task = begun(never)
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    await has_a_result()
    await has_an_error()
    await is_cancelled()
    assert seen == ["x", "x", "ValueError", "CancelledError"]


@everywhere
async def test_what_never_waits_is_done_at_once() -> None:
    async def work() -> int:
        return 7

    step = first_step(work())
    assert isinstance(step, Done)
    assert step.value == 7
