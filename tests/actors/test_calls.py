"""Calls, casts and plain messages: answers, refusals, and what a death does to all of them."""

from __future__ import annotations

import asyncio

import pytest
from support.probes import Boom, Probe, actor_of, begun, ended, running, text_of, worker
from support.worlds import everywhere, took, turns

from palmette.actors import (
    Actor,
    ActorDied,
    BadCall,
    Crashed,
    Endpoint,
    Killed,
    NoProcess,
    Refused,
    System,
    endpoint,
)
from palmette.supervisors import Supervisor, child


class Counter(Actor):
    def __init__(self, value: int = 0) -> None:
        self.value = value

    @endpoint
    async def add(self, step: int, *, twice: bool = False) -> int:
        if step < 0:
            raise ValueError(f"step must be >= 0, got {step}")
        self.value += step * (2 if twice else 1)
        return self.value

    @endpoint
    async def refuse(self) -> None:
        raise Refused("not today")

    @endpoint
    async def raise_it(self, error: BaseException) -> None:
        raise error

    async def not_an_endpoint(self) -> None:
        self.value = -1


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@everywhere
async def test_a_call_returns_what_the_endpoint_returns() -> None:
    async with running(worker(Counter, 10)) as system:
        counter = system.whereis("it", Counter)
        total: int = await counter.call(Counter.add, 5)
        assert total == 15
        assert await counter.call(Counter.add, 1, twice=True) == 17


@everywhere
async def test_inside_the_actor_an_endpoint_is_a_plain_method() -> None:
    class Double(Counter):
        @endpoint
        async def add_two(self) -> int:
            await self.add(1)
            return await self.add(1)

    async with running(worker(Double)) as system:
        assert await system.whereis("it", Double).call(Double.add_two) == 2


@everywhere
async def test_casts_and_sends_arrive_in_order_with_calls() -> None:
    async with running(worker(Probe)) as system:
        probe = system.whereis("it", Probe)
        probe.cast(Probe.keep, 1)
        probe.send(2)
        probe.cast(Probe.keep, 3)
        assert await probe.call(Probe.seen) == [1, 2, 3]


@everywhere
async def test_a_crash_fails_the_pending_call_and_those_queued_behind_it() -> None:
    async with running(worker(Counter)) as system:
        counter = system.whereis("it", Counter)
        counter.suspend()
        crashing, queued = await begun(counter.call(Counter.add, -1), counter.call(Counter.add, 1))
        counter.resume()
        for call in (crashing, queued):
            with pytest.raises(ActorDied, match="step must be >= 0, got -1") as caught:
                await call
            assert isinstance(caught.value.reason, Crashed)
            assert caught.value.path == "/it"
        assert took(0)  # at once, and not at the deadline


@everywhere
async def test_a_call_to_the_dead_fails_at_once_and_names_the_address() -> None:
    async with running(worker(Counter)) as system:
        counter = system.whereis("it", Counter)
        await counter.stop()
        with pytest.raises(ActorDied, match="/it is not running") as caught:
            await counter.call(Counter.add, 1)
        assert caught.value.reason == NoProcess("/it")


@everywhere
async def test_casts_and_sends_to_the_dead_become_dead_letters() -> None:
    async with running(worker(Counter)) as system:
        counter = system.whereis("it", Counter)
        await counter.stop()
        counter.cast(Counter.add, 1)
        counter.send("hello")
        assert [(letter.path, letter.message) for letter in system.dead_letters] == [
            ("/it", "<cast add>"),
            ("/it", "'hello'"),
        ]
        assert system.statistics().dead_letters == 2


@everywhere
async def test_unread_casts_and_messages_of_an_actor_that_crashes_become_dead_letters() -> None:
    async with running(worker(Counter)) as system:
        counter = system.whereis("it", Counter)
        counter.cast(Counter.add, -1)
        counter.cast(Counter.add, 1)
        counter.send("late")
        await ended(counter)
        assert [letter.message for letter in system.dead_letters] == ["<cast add>", "'late'"]


@everywhere
async def test_a_message_whose_repr_raises_cannot_disturb_an_end() -> None:
    class Nameless:
        def __repr__(self) -> str:
            raise RuntimeError("nameless")

    async with running(worker(Counter), worker(Probe, name="probe")) as system:
        counter = system.whereis("it", Counter)
        counter.cast(Counter.add, -1)
        counter.send(Nameless())
        assert text_of(await ended(counter)) == "step must be >= 0, got -1"
        assert "Nameless" in system.dead_letters[-1].message


@everywhere
async def test_a_refusal_reaches_the_caller_and_the_actor_lives_on() -> None:
    async with running(worker(Counter)) as system:
        counter = system.whereis("it", Counter)
        with pytest.raises(Refused, match="not today"):
            await counter.call(Counter.refuse)
        assert await counter.call(Counter.add, 1) == 1
        assert counter.incarnation == 1


@everywhere
async def test_a_refused_cast_is_a_dead_letter_and_no_crash() -> None:
    async with running(worker(Counter)) as system:
        counter = system.whereis("it", Counter)
        counter.cast(Counter.refuse)
        counter.cast(Counter.add, "one", 2, 3)  # pyright: ignore[reportCallIssue, reportArgumentType]
        assert await counter.call(Counter.add, 1) == 1
        assert [letter.message for letter in system.dead_letters] == ["<cast refuse>", "<cast add>"]


@everywhere
async def test_an_unknown_endpoint_is_a_bad_call_that_lists_the_known_ones() -> None:
    class Other(Actor):
        @endpoint
        async def multiply(self) -> int:
            return 0

    async with running(worker(Counter)) as system:
        counter = system.whereis("it", Counter)
        with pytest.raises(BadCall, match="/it has no endpoint 'multiply'; it has: add, raise_it, refuse"):
            await counter.call(Other.multiply)  # pyright: ignore[reportArgumentType]
        assert await counter.call(Counter.add, 1) == 1


@everywhere
async def test_arguments_that_do_not_fit_are_a_bad_call_that_shows_the_signature() -> None:
    async with running(worker(Counter)) as system:
        counter = system.whereis("it", Counter)
        with pytest.raises(BadCall, match=r"Counter.add\(.*missing a required argument: 'step'"):
            await counter.call(Counter.add)  # pyright: ignore[reportCallIssue]
        with pytest.raises(BadCall, match="unexpected keyword argument 'stop'"):
            await counter.call(Counter.add, 1, stop=2)  # pyright: ignore[reportCallIssue]
        assert await counter.call(Counter.add, 1) == 1


@everywhere
async def test_a_type_error_inside_the_handler_is_a_crash_and_no_bad_call() -> None:
    async with running(worker(Counter)) as system:
        counter = system.whereis("it", Counter)
        with pytest.raises(ActorDied, match="TypeError"):
            await counter.call(Counter.add, "one")  # pyright: ignore[reportArgumentType]


@everywhere
async def test_an_override_without_endpoint_withdraws_it() -> None:
    class Closed(Counter):
        async def add(self, step: int, *, twice: bool = False) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
            return 0

    async with running(worker(Closed)) as system:
        with pytest.raises(BadCall, match="no endpoint 'add'"):
            await system.whereis("it", Closed).call(Counter.add, 1)


def test_an_endpoint_is_an_async_method() -> None:
    def plain(self: Counter) -> int:
        return 1

    with pytest.raises(TypeError, match=r"an endpoint is an `async def` method; .*plain is not"):
        Endpoint(plain)  # pyright: ignore[reportArgumentType, reportUnknownVariableType]


@everywhere
async def test_an_actor_that_calls_itself_is_told_so_instead_of_waiting() -> None:
    async with running(worker(Probe)) as system:
        probe = system.whereis("it", Probe)
        with pytest.raises(BadCall, match="/it calls itself"):
            await probe.call(Probe.go, lambda me: me.ref.call(Probe.seen))
        with pytest.raises(BadCall, match=r"use self\.stop"):
            await probe.call(Probe.go, lambda me: me.ref.stop())
        assert await probe.call(Probe.seen) == []


@everywhere
async def test_a_task_beside_the_mailbox_may_call_its_own_actor() -> None:
    async with running(worker(Probe)) as system:
        probe = system.whereis("it", Probe)
        await probe.call(Probe.do, lambda me: me.start_task(me.ref.call(Probe.keep, "from the task")))
        await turns()
        assert await probe.call(Probe.seen) == ["from the task"]


@everywhere
async def test_an_unexpected_message_crashes_an_actor_without_receive() -> None:
    async with running(worker(Counter)) as system:
        counter = system.whereis("it", Counter)
        counter.send("what?")
        assert text_of(await ended(counter)) == "Counter has no receive() for 'what?'"


@everywhere
async def test_a_call_whose_caller_has_gone_is_not_worked_on() -> None:
    async with running(worker(Probe)) as system:
        probe = system.whereis("it", Probe)
        gate = asyncio.create_task(probe.call(Probe.pass_gate))
        await turns()
        unwanted = asyncio.create_task(probe.call(Probe.keep, "unwanted"))
        await turns()
        unwanted.cancel()
        await turns()
        actor_of(probe).gate.set()
        assert await gate == "passed"
        assert await probe.call(Probe.seen) == []


@everywhere
async def test_cancelling_a_caller_does_not_disturb_the_actor() -> None:
    async with running(worker(Probe)) as system:
        probe = system.whereis("it", Probe)
        call = asyncio.create_task(probe.call(Probe.pass_gate))
        await turns()
        call.cancel()
        actor_of(probe).gate.set()
        assert await probe.call(Probe.keep, 1) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt("stop"), SystemExit(3)], ids=["interrupt", "exit"])
@everywhere
async def test_what_would_end_the_program_ends_one_actor(error: BaseException) -> None:
    async with running(worker(Counter), worker(Probe, name="probe")) as system:
        with pytest.raises(ActorDied) as caught:
            await system.whereis("it", Counter).call(Counter.raise_it, error)
        assert isinstance(caught.value.reason, Crashed)
        assert caught.value.reason.error == f"builtins.{type(error).__name__}"
        assert await system.whereis("probe", Probe).call(Probe.seen) == []


@everywhere
async def test_an_exception_that_cannot_say_its_text_is_still_an_exit_reason() -> None:
    async with running(worker(Counter)) as system:
        with pytest.raises(ActorDied, match=r"no text: Unspeakable\.__str__ raised RuntimeError"):
            await system.whereis("it", Counter).call(Counter.raise_it, Unspeakable())


@everywhere
async def test_a_cancelled_error_of_ones_own_making_is_an_abnormal_end() -> None:
    async with running(worker(Counter)) as system:
        with pytest.raises(ActorDied) as caught:
            await system.whereis("it", Counter).call(Counter.raise_it, asyncio.CancelledError())
        assert caught.value.reason == Killed("cancelled")


@everywhere
async def test_a_crash_reason_carries_type_text_traceback_and_the_errors_own_word_on_retrying() -> None:
    class RateLimited(Exception):
        retryable = True
        retry_after = 7

    async with running(worker(Counter)) as system:
        with pytest.raises(ActorDied) as caught:
            await system.whereis("it", Counter).call(Counter.raise_it, RateLimited("slow down"))
        reason = caught.value.reason
        assert isinstance(reason, Crashed)
        assert reason.error.endswith("RateLimited")
        assert (reason.text, reason.retryable, reason.retry_after) == ("slow down", True, 7.0)
        assert "in raise_it" in reason.traceback


@everywhere
async def test_a_reference_survives_restarts_and_counts_incarnations() -> None:
    tree = Supervisor.spec(children=[child(Counter, name="counter")])
    async with System.start(tree) as system:
        counter = system.whereis("counter", Counter)
        await counter.call(Counter.add, 5)
        with pytest.raises(ActorDied):
            await counter.call(Counter.add, -1)
        await system.wait_for("counter", Counter)
        assert await counter.call(Counter.add, 1) == 1
        assert counter.incarnation == 2


@everywhere
async def test_a_reference_survives_the_restart_of_the_supervisor_above_it() -> None:
    inner = Supervisor.spec(name="inner", children=[child(Counter, name="counter")])
    async with System.start(Supervisor.spec(children=[inner])) as system:
        counter = system.whereis("counter", Counter)
        system.whereis("inner", Supervisor).kill()
        await ended(counter)
        await system.wait_for("counter", Counter)
        assert await counter.call(Counter.add, 1) == 1


@everywhere
async def test_a_reference_to_a_sibling_that_is_not_there_yet_comes_alive_with_it() -> None:
    class First(Probe):
        async def started(self) -> None:
            self.later = self.sibling("later", Probe)
            assert not self.later.is_alive()

    async with running(worker(First, name="first"), worker(Probe, name="later")) as system:
        later = actor_of(system.whereis("first", First)).later
        assert await later.call(Probe.keep, 1) == 1
        assert later == system.whereis("later", Probe)
        assert {later, system.whereis("later", Probe)} == {later}


@everywhere
async def test_many_messages_to_one_actor_do_not_starve_the_others() -> None:
    async with running(worker(Probe), worker(Probe, name="other")) as system:
        busy, other = system.whereis("it", Probe), system.whereis("other", Probe)
        for item in range(2000):
            busy.cast(Probe.keep, item)
        await other.call(Probe.keep, 1)
        assert len(actor_of(busy).got) < 2000
        assert await busy.call(Probe.seen) == list(range(2000))


@everywhere
async def test_a_crash_in_receive_is_a_crash_like_any_other() -> None:
    class Fragile(Actor):
        async def receive(self, message: object) -> None:
            raise Boom(f"broken by {message}")

    async with running(worker(Fragile)) as system:
        fragile = system.whereis("it", Fragile)
        fragile.send("a stone")
        assert text_of(await ended(fragile)) == "broken by a stone"
