"""What an actor puts aside comes back in its old order, once, ahead of the rest; and ends with the actor."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.probes import Probe, actor_of, begun, ended, running, text_of, worker
from support.worlds import everywhere, here, took, turns

from palmette.actors import ActorDied, DeadlineExceeded, Ref, StashFull, System, deadline, endpoint
from palmette.supervisors import child


class Door(Probe):
    """Handles items only while it is open; ``open`` and ``shut`` may be sent or called."""

    stash_capacity = 3

    def __init__(self) -> None:
        super().__init__()
        self.is_open = False

    async def receive(self, message: object) -> None:
        if message == "open":
            self.is_open = True
            self.unstash_all()
        elif message == "shut":
            self.is_open = False
        else:
            self.handle(message)

    def handle(self, item: object) -> None:
        if not self.is_open:
            self.stash()
        self.got.append(item)

    @endpoint
    async def enter(self, item: object) -> str:
        try:
            self.handle(item)
        except StashFull:
            raise
        except Exception as error:
            raise AssertionError("stash() was taken for an error") from error
        return f"{item} is in"

    @endpoint
    async def promise_and_stash(self) -> None:
        self.reply_later()
        self.stash()


class Hall(Door):
    stash_capacity = 1000


def door_of(system: System) -> Ref[Door]:
    return system.whereis("it", Door)


@everywhere
async def test_stashed_messages_come_back_in_order_and_ahead_of_the_mailbox() -> None:
    async with running(worker(Door)) as system:
        door = door_of(system)
        for item in ("a", "b", "open", "c", "d"):
            door.send(item)
        call = asyncio.create_task(door.call(Door.enter, "e"))
        assert await call == "e is in"
        assert await door.call(Probe.seen) == ["a", "b", "c", "d", "e"]


@everywhere
async def test_a_stashed_call_is_answered_when_it_has_come_back() -> None:
    async with running(worker(Door)) as system:
        door = door_of(system)
        call = asyncio.create_task(door.call(Door.enter, "a"))
        door.cast(Door.enter, "b")
        await asyncio.sleep(10)
        assert not call.done()
        statistics = door.statistics()
        assert (statistics.stashed, statistics.waiting, statistics.handled) == (2, 0, 2)
        door.send("open")
        assert await call == "a is in"
        assert await door.call(Probe.seen) == ["b", "a"]  # the cast was there first
        assert door.statistics().stashed == 0


@everywhere
async def test_a_message_that_cannot_be_handled_yet_again_goes_back_behind_those_before_it() -> None:
    async with running(worker(Door)) as system:
        door = door_of(system)
        for item in ("a", "b"):
            door.send(item)
        await door.call(Probe.do, lambda me: me.unstash_all())
        door.send("c")
        door.send("open")
        assert await door.call(Probe.seen) == ["a", "b", "c"]


@everywhere
async def test_a_stashed_call_keeps_its_deadline_and_a_late_one_is_dropped() -> None:
    async with running(worker(Door)) as system:
        door = door_of(system)
        with pytest.raises(DeadlineExceeded), deadline(2):
            await door.call(Door.enter, "late")
        assert took(2)
        door.send("open")
        assert await door.call(Probe.seen) == []
        assert system.statistics().dead_letters == 0


@everywhere
async def test_a_full_stash_refuses_a_call_and_makes_a_cast_a_dead_letter() -> None:
    async with running(worker(Door)) as system:
        door = door_of(system)
        for item in range(3):
            door.send(item)
        with pytest.raises(StashFull, match=r"the stash of /it is full \(3\); unstash in time, or raise"):
            await door.call(Door.enter, "one too many")
        door.cast(Door.enter, "one too many")
        await turns()
        assert [letter.message for letter in system.dead_letters] == ["<cast enter>"]
        door.send("open")
        assert await door.call(Probe.seen) == [0, 1, 2]


@everywhere
async def test_a_full_stash_crashes_the_actor_that_would_lose_a_plain_message() -> None:
    async with running(worker(Door)) as system:
        door = door_of(system)
        end = asyncio.create_task(ended(door))
        for item in range(4):
            door.send(item)
        assert "the stash of /it is full (3)" in text_of(await end)
        assert [letter.message for letter in system.dead_letters] == ["0", "1", "2"]


@everywhere
async def test_calls_whose_callers_gave_up_make_room_in_a_full_stash() -> None:
    async with running(worker(Door)) as system:
        door = door_of(system)
        calls = await begun(*(door.call(Door.enter, item) for item in range(3)))
        calls[1].cancel()
        await turns()
        door.send("in its place")
        door.send("open")
        assert await calls[0] == "0 is in"
        assert await door.call(Probe.seen) == [0, 2, "in its place"]
        await asyncio.wait(calls)


@pytest.mark.parametrize("how", ["stop", "kill", "crash"])
@everywhere
async def test_what_is_stashed_fares_as_the_mailbox_does_when_the_actor_ends(how: str) -> None:
    async with running(worker(Door)) as system:
        door = door_of(system)
        call = asyncio.create_task(door.call(Door.enter, "a"))
        door.send("b")
        door.cast(Door.enter, "c")
        await turns()
        if how == "stop":
            await door.stop()
        elif how == "kill":
            door.kill()
        else:
            door.cast(Probe.fail)
        with pytest.raises(ActorDied):
            await call
        assert took(0)
        assert [letter.message for letter in system.dead_letters] == ["'b'", "<cast enter>"]


@everywhere
async def test_a_new_incarnation_has_an_empty_stash() -> None:
    async with running(child(Door, name="it")) as system:
        door = door_of(system)
        door.send("a")
        with pytest.raises(ActorDied):
            await door.call(Probe.fail)
        await system.wait_for("it", Door)
        assert door.statistics().stashed == 0
        door.send("open")
        assert await door.call(Probe.seen) == []


@everywhere
async def test_unstashing_from_a_task_wakes_an_idle_actor() -> None:
    async with running(worker(Door)) as system:
        door = door_of(system)

        async def open_later(me: Door) -> None:
            await asyncio.sleep(5)
            me.is_open = True
            me.unstash_all()

        actor = actor_of(door)
        door.send("a")
        await turns()
        actor.start_task(open_later(actor))
        await asyncio.sleep(6)
        assert actor.got == ["a"]


@everywhere
async def test_a_suspended_actor_leaves_what_it_took_back_until_it_is_resumed() -> None:
    async with running(worker(Door)) as system:
        door = door_of(system)
        door.send("a")
        await turns()
        door.suspend()
        actor = actor_of(door)
        actor.is_open = True
        actor.unstash_all()
        await turns()
        assert actor.got == []
        door.resume()
        await turns()
        assert actor.got == ["a"]


@everywhere
async def test_a_down_that_was_stashed_is_flushed_when_its_monitor_is_undone() -> None:
    async with running(worker(Door), worker(Probe, name="other")) as system:
        door, other = door_of(system), system.whereis("other", Probe)
        monitor = await door.call(Probe.do, lambda me: me.monitor(other))
        await other.stop()
        await turns()
        assert door.statistics().stashed == 1
        await door.call(Probe.do, lambda me: me.demonitor(monitor))
        assert door.statistics().stashed == 0


@everywhere
async def test_what_comes_back_into_a_bounded_mailbox_makes_new_requests_wait() -> None:
    async with running(worker(Hall, mailbox=2)) as system:
        hall = system.whereis("it", Hall)
        for item in range(5):
            hall.send(item)
        await turns()
        hall.suspend()
        actor = actor_of(hall)
        actor.is_open = True
        actor.unstash_all()
        assert hall.statistics().waiting == 5
        call = asyncio.create_task(hall.call(Door.enter, "new"))
        await turns()
        assert hall.statistics().waiting == 5
        hall.resume()
        assert await call == "new is in"
        assert actor.got == [0, 1, 2, 3, 4, "new"]


@everywhere
async def test_stash_belongs_inside_a_handler_and_before_any_promise_to_reply() -> None:
    class Eager(Door):
        async def continued(self) -> None:
            self.stash()

    async with running(worker(Eager), worker(Door, name="a"), worker(Door, name="b")) as system:
        await turns()
        assert "stash() belongs inside an endpoint or receive()" in text_of(system.why("/it")[0].reason)
        a, b = system.whereis("a", Door), system.whereis("b", Door)
        with pytest.raises(ActorDied, match=r"stash\(\) after reply_later\(\)"):
            await a.call(Door.promise_and_stash)

        async def beside(me: Door) -> None:
            me.stash()

        actor = actor_of(b)
        actor.start_task(beside(actor))
        assert "in the actor's own task" in text_of(await ended(b))


STEPS = st.sampled_from(["send", "call", "cast", "open", "shut", "run", "give up"])


@pytest.mark.worlds("real", "simulated")
@given(steps=st.lists(STEPS, max_size=60))
def test_whatever_happens_nothing_is_lost_doubled_or_out_of_order(steps: list[str]) -> None:
    @here()
    async def check() -> None:
        calls: dict[int, asyncio.Task[str]] = {}
        given_up: set[int] = set()
        mailbox: deque[object] = deque()
        async with running(worker(Hall)) as system:
            hall = system.whereis("it", Hall)
            expected, aside, is_open = list[object](), list[object](), False

            def work_off() -> None:
                """What the actor does, in eleven lines."""
                nonlocal is_open
                while mailbox:
                    item = mailbox.popleft()
                    if item in given_up:
                        continue
                    if item == "open":
                        is_open = True
                        mailbox.extendleft(reversed([item for item in aside if item not in given_up]))
                        aside.clear()
                    elif item == "shut":
                        is_open = False
                    else:
                        (expected if is_open else aside).append(item)

            for number, step in enumerate([*steps, "run", "open", "run"]):
                if step == "run":
                    await turns(10)
                    work_off()
                elif step == "give up":
                    await turns(10)
                    work_off()
                    waiting = [item for item, call in calls.items() if not call.done()]
                    if waiting:
                        chosen = waiting[len(waiting) // 2]
                        calls[chosen].cancel()
                        given_up.add(chosen)
                        await turns(3)
                elif step == "call":
                    calls[number] = asyncio.create_task(hall.call(Door.enter, number))
                    await asyncio.sleep(0)  # so that it is asked before what follows
                    mailbox.append(number)
                    await turns(10)
                    work_off()
                elif step == "cast":
                    hall.cast(Door.enter, number)
                    mailbox.append(number)
                else:
                    hall.send(number if step == "send" else step)
                    mailbox.append(number if step == "send" else step)
            assert actor_of(hall).got == expected
            assert hall.statistics().stashed == 0
            for number, call in calls.items():
                if number in given_up:
                    assert call.cancelled()
                else:
                    assert await call == f"{number} is in"
            assert system.statistics().dead_letters == 0

    check()
