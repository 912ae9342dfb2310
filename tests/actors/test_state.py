"""An actor's state is seen at any time, and replaced between two handlers: all of it or none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import cast

import msgspec
import pytest
from support.probes import Boom, Probe, Stubborn, actor_of, running, worker
from support.worlds import everywhere, took, turns

from palmette.actors import (
    Actor,
    ActorDied,
    ActorState,
    BadCall,
    DeadlineExceeded,
    MailboxFull,
    Refused,
    deadline,
    endpoint,
)


class Counter(Probe):
    limit = 10

    def __init__(self, value: int = 1) -> None:
        super().__init__()
        self.value = value
        self.api_key = "sk-1234"
        self.headers = {"Authorization": "Bearer sk-1234", "Accept": "*/*"}
        self.url = "postgresql://me:sk-1234@host/runs"
        self.max_tokens = 100
        self.history = [value]

    @endpoint
    async def get(self) -> int:
        return self.value


class Evil:
    def __repr__(self) -> str:
        raise Boom("no repr")


# --- looking ----------------------------------------------------------------------------------------------------------


@everywhere
async def test_a_state_shows_attributes_as_text_without_secrets() -> None:
    async with running(worker(Counter)) as system:
        counter = system.whereis("it", Counter)
        actor_of(counter).got.append(Evil())
        setattr(actor_of(counter), "long", "x" * 10_000)  # noqa: B010 - a new attribute
        state = await counter.state()
        assert (state.path, state.kind, state.incarnation, state.state) == ("/it", "Counter", 1, "running")
        value = cast("dict[str, str]", state.value)
        assert value["value"] == "1"
        assert value["api_key"] == "<hidden>"
        assert value["headers"] == "{'Accept': '*/*', 'Authorization': <hidden>}"
        assert value["url"] == "'postgresql://<hidden>@host/runs'"
        assert value["max_tokens"] == "100"
        assert "sk-1234" not in str(state)
        assert "_cell" not in value
        assert "Evil" in value["got"]
        assert len(value["long"]) < 300


@everywhere
async def test_an_actor_may_say_itself_what_there_is_to_see() -> None:
    class View(msgspec.Struct, frozen=True):
        value: int

    class Described(Counter):
        def describe_state(self) -> object:
            return View(self.value)

    async with running(worker(Described)) as system:
        state = await system.whereis("it", Described).state()
        assert state == ActorState(path="/it", kind="Described", incarnation=1, state="running", value=View(1))


@everywhere
async def test_a_description_that_raises_is_told_and_hurts_nobody() -> None:
    class Shy(Counter):
        def describe_state(self) -> object:
            raise Boom("shy")

    async with running(worker(Shy)) as system:
        shy = system.whereis("it", Shy)
        with pytest.raises(Refused, match=r"describe_state\(\) of /it raised Boom: shy"):
            await shy.state()
        assert await shy.call(Counter.get) == 1


@everywhere
async def test_slots_are_seen_too() -> None:
    class Slotted(Actor):
        __slots__ = ("unset", "value")

        def __init__(self) -> None:
            self.value = 5

    async with running(worker(Slotted)) as system:
        slotted = system.whereis("it", Slotted)
        await slotted.replace_state(lambda me: {"value": me.value + 1})
        assert (await slotted.state()).value == {"value": "6"}


@everywhere
async def test_a_busy_and_a_suspended_actor_can_be_looked_at_and_a_dead_one_cannot() -> None:
    async with running(worker(Counter)) as system:
        counter = system.whereis("it", Counter)
        call = asyncio.create_task(counter.call(Probe.pass_gate))
        await turns()
        counter.suspend()
        assert (await counter.state()).state == "suspended"
        counter.kill()
        with pytest.raises(ActorDied):
            await call
        with pytest.raises(ActorDied, match="/it is not running"):
            await counter.state()


# --- replacing --------------------------------------------------------------------------------------------------------


@everywhere
async def test_an_idle_actors_state_is_replaced_at_once() -> None:
    async with running(worker(Counter)) as system:
        counter = system.whereis("it", Counter)
        await counter.replace_state(lambda me: {"value": me.value + 41, "limit": 3})
        assert await counter.call(Counter.get) == 42
        assert actor_of(counter).limit == 3
        assert Counter.limit == 10


@everywhere
async def test_it_waits_for_the_present_handler_and_comes_before_the_next() -> None:
    async with running(worker(Counter)) as system:
        counter = system.whereis("it", Counter)
        gate = asyncio.create_task(counter.call(Probe.pass_gate))
        await turns()
        get = asyncio.create_task(counter.call(Counter.get))
        await turns()
        replace = asyncio.create_task(counter.replace_state(lambda _: {"value": 7}))
        await turns(10)
        assert actor_of(counter).value == 1  # the handler relies on it
        assert counter.statistics().state == "running"
        actor_of(counter).gate.set()
        assert await gate == "passed"
        await replace
        assert await get == 7


@everywhere
async def test_a_full_mailbox_and_a_suspension_do_not_keep_it_waiting() -> None:
    async with running(worker(Counter, mailbox=1, overflow="reject")) as system:
        counter = system.whereis("it", Counter)
        counter.suspend()
        counter.cast(Probe.keep, 1)
        with pytest.raises(MailboxFull):
            counter.cast(Probe.keep, 2)
        await counter.replace_state(lambda _: {"value": 7})
        assert counter.statistics().state == "suspended"
        assert actor_of(counter).value == 7
        counter.resume()
        await turns()
        assert await counter.call(Counter.get) == 7


@everywhere
async def test_a_suspended_actor_that_still_handles_something_stays_suspended_afterwards() -> None:
    async with running(worker(Counter)) as system:
        counter = system.whereis("it", Counter)
        gate = asyncio.create_task(counter.call(Probe.pass_gate))
        await turns()
        counter.suspend()
        replace = asyncio.create_task(counter.replace_state(lambda _: {"value": 7}))
        counter.cast(Probe.keep, 1)
        actor_of(counter).gate.set()
        await gate
        await replace
        await turns(10)
        assert actor_of(counter).got == []
        counter.resume()
        counter.resume()
        assert await counter.call(Probe.seen) == [1]


@everywhere
async def test_a_resume_does_not_let_messages_pass_a_waiting_replacement() -> None:
    async with running(worker(Counter)) as system:
        counter = system.whereis("it", Counter)
        gate = asyncio.create_task(counter.call(Probe.pass_gate))
        await turns()
        get = asyncio.create_task(counter.call(Counter.get))
        replace = asyncio.create_task(counter.replace_state(lambda _: {"value": 7}))
        await turns()
        counter.suspend()
        counter.resume()
        actor_of(counter).gate.set()
        await gate
        await replace
        assert await get == 7


def assign_and_raise(me: Counter) -> dict[str, object]:
    me.value = 99
    me.new = 1  # pyright: ignore[reportAttributeAccessIssue]
    del me.history
    raise Boom("after all")


def leave(me: Counter) -> dict[str, object]:
    raise SystemExit(3)


async def asynchronous(me: Counter) -> dict[str, object]:
    return {"value": 99}


def returning(value: object) -> Callable[[Counter], object]:
    return lambda _: value


FAILING: list[tuple[Callable[[Counter], object], str]] = [
    (assign_and_raise, "the function raised Boom: after all; /it is as it was"),
    (leave, "the function raised SystemExit: 3; /it is as it was"),
    (asynchronous, "takes a plain function that returns the attributes to replace.*returned <coroutine"),
    (returning(None), "this one returned None"),
    (returning({"value": 99, "valeu": 2}), "Counter has no attribute 'valeu'; it has: got, gate, entered, value"),
    (returning({"value": 99, "call_me": 2}), "no attribute 'call_me'"),
    (returning({"value": 99, "receive": 2}), "no attribute 'receive'"),
    (returning({"value": 99, "path": "/else"}), "as it was"),
]


@pytest.mark.parametrize(("function", "complaint"), FAILING)
@everywhere
async def test_a_function_that_fails_leaves_the_state_as_it_was_and_tells_its_caller(
    function: Callable[[Counter], Mapping[str, object]], complaint: str
) -> None:
    async with running(worker(Counter)) as system:
        counter = system.whereis("it", Counter)
        before = dict(vars(actor_of(counter)))
        with pytest.raises(Refused, match=complaint):
            await counter.replace_state(function)
        assert vars(actor_of(counter)) == before
        assert await counter.call(Counter.get) == 1


@everywhere
async def test_a_replacement_whose_caller_gave_up_does_not_happen() -> None:
    async with running(worker(Counter)) as system:
        counter = system.whereis("it", Counter)
        gate = asyncio.create_task(counter.call(Probe.pass_gate))
        await turns()
        with pytest.raises(DeadlineExceeded, match="/it did not answer replace_state in time"), deadline(2):
            await counter.replace_state(lambda _: {"value": 7})
        actor_of(counter).gate.set()
        await gate
        assert await counter.call(Counter.get) == 1


@everywhere
async def test_a_zombies_state_is_not_replaced() -> None:
    async with running(worker(Stubborn)) as system:
        stubborn = system.whereis("it", Stubborn)
        call = asyncio.create_task(stubborn.call(Stubborn.hang))
        await turns()
        waiting = asyncio.create_task(stubborn.replace_state(lambda _: {"got": [1]}))
        release = actor_of(stubborn).release
        stubborn.kill("you")
        for refused in (call, waiting):
            with pytest.raises(ActorDied, match="you"):
                await refused
        with pytest.raises(ActorDied, match="you"):
            await stubborn.replace_state(lambda _: {"got": [1]})
        assert took(system.kill_grace)
        release.set()
        await turns(10)


@pytest.mark.parametrize("how", ["stop", "kill", "crash"])
@everywhere
async def test_a_replacement_that_waits_learns_of_the_death(how: str) -> None:
    async with running(worker(Counter)) as system:
        counter = system.whereis("it", Counter)

        async def wait(me: Probe) -> None:
            await me.gate.wait()
            if how == "crash":
                raise Boom("boom")

        call = asyncio.create_task(counter.call(Probe.go, wait))
        await turns()
        replace = asyncio.create_task(counter.replace_state(lambda _: {"value": 7}))
        await turns()
        actor = actor_of(counter)
        if how == "kill":
            counter.kill()
        elif how == "stop":
            actor.stop()
        actor.gate.set()
        with pytest.raises(ActorDied):
            await replace
        assert took(0)
        await asyncio.wait([call])
        call.exception()


@everywhere
async def test_a_handler_does_not_replace_its_own_state_this_way() -> None:
    async with running(worker(Counter)) as system:

        def replace(me: Probe) -> Awaitable[None]:
            return me.ref.replace_state(lambda _: {"got": []})

        with pytest.raises(BadCall, match="its handler can just set it"):
            await system.whereis("it", Counter).call(Probe.go, replace)
