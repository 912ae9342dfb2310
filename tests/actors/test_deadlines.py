"""Deadlines travel with calls, and hold on whatever clock the loop has."""

from __future__ import annotations

import asyncio

import pytest
from support.probes import Probe, Trapping, actor_of, ended, running, worker
from support.worlds import ROUNDING, everywhere, is_real, took, turns

from palmette.actors import Actor, ActorDied, DeadlineExceeded, Ref, deadline, endpoint, time_left
from palmette.actors.deadlines import DEFAULT_CALL_SECONDS


def about(seconds: float) -> object:
    """Time that is left: this much; in real time, some of it may have passed."""
    return pytest.approx(seconds / 2, abs=seconds / 2 + ROUNDING) if is_real() else pytest.approx(seconds, abs=1e-3)


class Relay(Actor):
    """Passes calls on to ``target``."""

    def __init__(self) -> None:
        self.served = 0

    @endpoint
    async def left(self) -> float | None:
        return time_left()

    @endpoint
    async def ask_left(self, target: Ref[Relay]) -> float | None:
        return await target.call(Relay.left)

    @endpoint
    async def wait_on(self, target: Ref[Probe]) -> str:
        self.served += 1
        return await target.call(Probe.pass_gate)

    @endpoint
    async def wait_on_briefly(self, target: Ref[Probe]) -> str:
        with deadline(1):
            return await target.call(Probe.pass_gate)

    @endpoint
    async def left_in_a_task(self, *, later: bool) -> float | None:
        """What a task that is started by this request has left; ``later`` makes it the one that answers."""
        found: asyncio.Future[float | None] = self.system.loop.create_future()
        token = self.reply_later() if later else None

        async def look() -> None:
            found.set_result(time_left())
            if token is not None:
                token.reply(time_left())

        self.start_task(look())
        return None if later else await found


@everywhere
async def test_a_call_that_nothing_bounds_ends_at_the_default_deadline() -> None:
    async with running(worker(Probe)) as system:
        with pytest.raises(DeadlineExceeded):
            await system.whereis("it", Probe).call(Probe.pass_gate)
        assert took(DEFAULT_CALL_SECONDS)


@everywhere
async def test_a_deadline_bounds_the_calls_in_its_block_and_says_who_did_not_answer() -> None:
    async with running(worker(Probe)) as system:
        with pytest.raises(DeadlineExceeded, match="/it did not answer pass_gate in time"), deadline(3):
            await system.whereis("it", Probe).call(Probe.pass_gate)
        assert took(3)


@everywhere
async def test_of_two_nested_deadlines_the_tighter_one_holds() -> None:
    with deadline(10):
        with deadline(99):
            assert time_left() == about(10)
        with deadline(1):
            assert time_left() == about(1)
        await asyncio.sleep(4)
        assert time_left() == about(6)
        await asyncio.sleep(7)
        assert time_left() == 0
    assert time_left() is None


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
@everywhere
async def test_a_deadline_in_the_past_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="a deadline lies ahead"), deadline(seconds):
        pass


@everywhere
async def test_the_callee_and_its_callees_inherit_the_deadline() -> None:
    async with running(worker(Relay, name="first"), worker(Relay, name="second")) as system:
        first, second = system.whereis("first", Relay), system.whereis("second", Relay)
        with deadline(5):
            assert await first.call(Relay.ask_left, second) == about(5)
        assert await first.call(Relay.left) == about(DEFAULT_CALL_SECONDS)


@everywhere
async def test_a_deadline_does_not_leak_into_the_next_message() -> None:
    async with running(worker(Probe)) as system:
        probe = system.whereis("it", Probe)
        left: list[float | None] = []
        with deadline(5):
            await probe.call(Probe.seen)
            probe.cast(Probe.do, lambda _: left.append(time_left()))
            await probe.call(Probe.do, lambda _: left.append(time_left()))
        probe.cast(Probe.do, lambda _: left.append(time_left()))
        await turns()
        assert left == [None, about(5), None]


@everywhere
async def test_a_callers_impatience_does_not_crash_the_callee_that_waited_on_its_behalf() -> None:
    async with running(worker(Relay, name="relay"), worker(Probe)) as system:
        relay, probe = system.whereis("relay", Relay), system.whereis("it", Probe)
        with pytest.raises(DeadlineExceeded), deadline(3):
            await relay.call(Relay.wait_on, probe)
        await turns()
        assert relay.incarnation == 1
        assert relay.is_alive()
        actor_of(probe).gate.set()
        assert await relay.call(Relay.wait_on, probe) == "passed"


@everywhere
async def test_a_deadline_that_an_actor_set_itself_crashes_it() -> None:
    async with running(worker(Relay, name="relay"), worker(Probe)) as system:
        relay, probe = system.whereis("relay", Relay), system.whereis("it", Probe)
        with pytest.raises(ActorDied, match="did not answer pass_gate in time"):
            await relay.call(Relay.wait_on_briefly, probe)
        assert not relay.is_alive()


@everywhere
async def test_a_late_reply_is_dropped() -> None:
    async with running(worker(Probe)) as system:
        probe = system.whereis("it", Probe)
        with pytest.raises(DeadlineExceeded), deadline(3):
            await probe.call(Probe.pass_gate)
        actor_of(probe).gate.set()
        assert await probe.call(Probe.seen) == []
        assert system.statistics().dead_letters == 0


@everywhere
async def test_a_request_that_waited_past_its_deadline_is_not_worked_on() -> None:
    async with running(worker(Probe)) as system:
        probe = system.whereis("it", Probe)
        gate = asyncio.create_task(probe.call(Probe.pass_gate))
        await turns()
        with pytest.raises(DeadlineExceeded), deadline(3):
            await probe.call(Probe.keep, "too late")
        actor_of(probe).gate.set()
        assert await gate == "passed"
        assert await probe.call(Probe.seen) == []


@everywhere
async def test_a_task_has_the_requests_deadline_only_if_it_owes_the_reply() -> None:
    async with running(worker(Relay)) as system:
        relay = system.whereis("it", Relay)
        with deadline(5):
            assert await relay.call(Relay.left_in_a_task, later=False) is None
            assert await relay.call(Relay.left_in_a_task, later=True) == about(5)


@everywhere
async def test_the_stopping_hook_is_not_bound_by_the_last_requests_deadline() -> None:
    left: list[float | None] = []

    class Leaving(Trapping):
        async def stopping(self, reason: object) -> None:
            left.append(time_left())

    async with running(worker(Leaving)) as system:
        leaving = system.whereis("it", Leaving)
        with deadline(5), pytest.raises(ActorDied):
            await leaving.call(Probe.fail)
        assert left == [None]


@everywhere
async def test_waiting_for_a_name_ends_at_the_deadline() -> None:
    async with running() as system:
        with pytest.raises(DeadlineExceeded, match="nobody lived registered as 'godot' in time"):
            await system.wait_for("godot", Probe, timeout=20)
        with pytest.raises(DeadlineExceeded, match="at '/godot'"), deadline(5):
            await system.wait_for("/godot", Probe)
        assert took(25)


@everywhere
async def test_a_termination_that_takes_too_long_becomes_a_kill() -> None:
    async with running(worker(Probe)) as system:
        probe = system.whereis("it", Probe)
        call = asyncio.create_task(probe.call(Probe.pass_gate))
        await turns()
        end = asyncio.create_task(ended(probe))
        await probe.terminate(timeout=7)
        assert took(7)
        assert str((await end).detail) == "did not stop within 7 s"  # pyright: ignore[reportAttributeAccessIssue, reportUnknownArgumentType, reportUnknownMemberType]
        with pytest.raises(ActorDied):
            await call
