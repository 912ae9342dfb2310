"""Starts are synchronous; one that fails has left nothing behind when its starter learns of it."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from support.probes import Boom, Probe, actor_of, insist, running, worker
from support.worlds import everywhere, took, turns

from palmette.actors import Actor, Killed, Reason, StartFailed, System, endpoint
from palmette.supervisors import ChildSpec, StartRefused, Supervisor, child

LOG: list[str] = []


@pytest.fixture(autouse=True)
def empty_log() -> None:
    LOG.clear()


class Logged(Actor):
    """Writes down what happens to it; fails where told to."""

    def __init__(self, *, fail: str = "", wait: float = 0.0) -> None:
        self.fail = fail
        self.wait = wait
        self.note("init")

    def note(self, what: str) -> None:
        LOG.append(f"{self.path.rpartition('/')[2]} {what}")
        if what == self.fail:
            raise Boom(f"no {what}")

    async def started(self) -> None:
        await asyncio.sleep(self.wait)
        self.note("started")

    async def continued(self) -> None:
        await asyncio.sleep(self.wait)
        self.note("continued")

    async def stopping(self, reason: Reason) -> None:
        self.note("stopping")

    @endpoint
    async def ping(self) -> None:
        self.note("ping")


def tree(**options: dict[str, object]) -> ChildSpec[Supervisor]:
    return Supervisor.spec(children=[child(Logged, name=name, **kwargs) for name, kwargs in options.items()])  # pyright: ignore[reportArgumentType]


@everywhere
async def test_an_actor_knows_its_address_in_its_initializer() -> None:
    async with running(worker(Logged)):
        assert LOG[0] == "it init"


@everywhere
async def test_each_child_is_up_before_the_next_begins_and_they_stop_in_reverse() -> None:
    async with System.start(tree(a={"wait": 3.0}, b={}, c={})):
        started = [line for line in LOG if not line.endswith("continued")]
        assert started == ["a init", "a started", "b init", "b started", "c init", "c started"]
        LOG.clear()
        await asyncio.sleep(5)
    assert LOG[-3:] == ["c stopping", "b stopping", "a stopping"]


@pytest.mark.parametrize("where", ["init", "started"])
@everywhere
async def test_a_failing_start_rolls_back_in_reverse_and_is_not_tried_again(where: str) -> None:
    with pytest.raises(StartFailed, match=f"/c could not start: Boom: no {where}") as caught:
        async with System.start(tree(a={}, b={}, c={"fail": where}, d={})):
            pass
    assert caught.value.child == "/c"
    assert LOG.count("c init") == 1
    assert "d init" not in LOG
    stops = [line for line in LOG if line.endswith("stopping")]
    # A half-started actor may undo what it began; one that was never made has nothing to undo.
    assert stops == (["c stopping"] if where == "started" else []) + ["b stopping", "a stopping"]


@everywhere
async def test_the_innermost_failure_is_the_one_that_is_shown() -> None:
    inner = Supervisor.spec(name="inner", children=[child(Logged, name="leaf", fail="started")])
    with pytest.raises(StartFailed, match=r"^/outer/inner/leaf could not start: Boom: no started$"):
        async with System.start(Supervisor.spec(children=[Supervisor.spec(name="outer", children=[inner])])):
            pass


@everywhere
async def test_a_start_that_takes_too_long_is_killed_and_gone_when_that_is_told() -> None:
    tree = Supervisor.spec(children=[child(Logged, name="slow", wait=100, start_timeout=5)])
    with pytest.raises(StartFailed, match=r"/slow could not start: killed \(its start took longer than 5 s\)"):
        async with System.start(tree):
            pass
    assert took(5)
    assert LOG == ["slow init"]


@everywhere
async def test_a_start_that_will_not_be_cancelled_fails_all_the_same_and_is_a_zombie() -> None:
    release = asyncio.Event()

    class Undying(Actor):
        async def started(self) -> None:
            await insist(release)

    async with running() as system:
        root = system.whereis("/", Supervisor)
        with pytest.raises(Exception, match="its start took longer than 5 s"):
            await root.call(Supervisor.start_child, child(Undying, name="it", start_timeout=5))
        assert system.statistics().zombies == 1
        with pytest.raises(Exception, match="still taken by a zombie"):
            await root.call(Supervisor.start_child, child(Undying, name="it", start_timeout=5))
        release.set()
        await turns(10)
        assert "/it" not in system.slots
        await root.call(Supervisor.start_child, child(Undying, name="it"))


@everywhere
async def test_a_kill_from_outside_fails_a_start() -> None:
    async def kill_it(system: System) -> None:
        await asyncio.sleep(1)
        system.ref_at("/it", Logged).kill("changed my mind")

    async with running() as system:
        killing = asyncio.create_task(kill_it(system))
        with pytest.raises(Exception, match="changed my mind"):
            await system.whereis("/", Supervisor).call(Supervisor.start_child, child(Logged, name="it", wait=10))
        await killing
        assert system.why("/it")[-1].reason == Killed("changed my mind")


@everywhere
async def test_an_actor_that_stops_itself_in_its_start_has_started_and_then_ended() -> None:
    class Brief(Actor):
        async def started(self) -> None:
            self.stop()

    async with running(worker(Brief)) as system:
        await turns()
        assert [record.path for record in system.exits] == ["/it"]
        assert system.whereis("/", Supervisor).is_alive()


@everywhere
async def test_continued_runs_before_any_queued_message() -> None:
    class Impatient(Probe):
        async def started(self) -> None:
            self.system.ref_at("/it", Logged).cast(Logged.ping)

    async with running(worker(Logged, wait=3), worker(Impatient, name="impatient")) as system:
        await system.whereis("it", Logged).call(Logged.ping)
        assert LOG == ["it init", "it started", "it continued", "it ping", "it ping"]


@everywhere
async def test_the_starter_does_not_wait_for_continued() -> None:
    async with running(worker(Logged, wait=3)):
        assert took(3)
        assert "it continued" not in LOG


@everywhere
async def test_a_crash_in_continued_is_a_crash_after_the_start() -> None:
    async with running(worker(Logged, fail="continued")) as system:
        await turns(10)
        assert [record.path for record in system.exits] == ["/it"]


@everywhere
async def test_messages_sent_to_oneself_while_starting_are_served_after_the_start() -> None:
    class Eager(Probe):
        def __init__(self) -> None:
            super().__init__()
            self.ref.send("from init")

        async def started(self) -> None:
            self.ref.cast(Probe.keep, "from started")

    async with running(worker(Eager)) as system:
        await turns()
        assert actor_of(system.whereis("it", Eager)).got == ["from init", "from started"]


@pytest.mark.parametrize("steps", range(12))
@everywhere
async def test_a_system_that_is_cancelled_while_it_starts_stops_what_is_up_in_reverse(steps: int) -> None:
    async def main() -> None:
        async with System.start(tree(a={}, b={"wait": 100.0}, c={})):
            raise AssertionError("b takes longer than that")

    task = asyncio.create_task(main())
    await turns(steps)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert took(0)
    assert "c init" not in LOG
    assert ("a init" in LOG) == ("a stopping" in LOG)
    if "b stopping" in LOG:
        assert LOG.index("b stopping") < LOG.index("a stopping")


@everywhere
async def test_a_start_that_swallows_its_kill_and_returns_has_failed_all_the_same() -> None:
    class Deaf(Actor):
        async def started(self) -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(100)

    async with running() as system:
        with pytest.raises(StartRefused, match="its start took longer than 5 s"):
            await system.whereis("/", Supervisor).call(
                Supervisor.start_child, child(Deaf, name="deaf", start_timeout=5)
            )
        assert "/deaf" not in system.slots
        assert took(5)
