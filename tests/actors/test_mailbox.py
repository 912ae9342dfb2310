"""Bounded mailboxes do what their policy says, and never lose the kernel's own messages."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.probes import Probe, actor_of, begun, running, worker
from support.worlds import everywhere, here, took, turns

from palmette.actors import ActorDied, DeadlineExceeded, Down, MailboxFull, Ref, System, deadline
from palmette.actors.mailbox import Mailbox
from palmette.actors.messages import Request
from palmette.supervisors import BadSpec, child


async def busy(system: System) -> tuple[Ref[Probe], asyncio.Task[str]]:
    """The probe ``it``, whose handler waits at its gate."""
    probe = system.whereis("it", Probe)
    call = asyncio.create_task(probe.call(Probe.pass_gate))
    await actor_of(probe).entered.wait()
    return probe, call


@everywhere
async def test_block_makes_a_call_wait_for_room_in_order() -> None:
    async with running(worker(Probe, mailbox=1, overflow="block")) as system:
        probe, gate = await busy(system)
        calls = await begun(*(probe.call(Probe.keep, item) for item in range(4)))
        assert probe.statistics().waiting == 1
        actor_of(probe).gate.set()
        assert await asyncio.gather(*calls) == [1, 2, 3, 4]
        assert await gate == "passed"
        assert await probe.call(Probe.seen) == [0, 1, 2, 3]


@everywhere
async def test_block_refuses_a_cast_because_it_cannot_wait() -> None:
    async with running(worker(Probe, mailbox=1, overflow="block")) as system:
        probe, gate = await busy(system)
        probe.cast(Probe.keep, 1)
        with pytest.raises(MailboxFull, match=r"the mailbox of /it is full \(1\); slow down, or raise `mailbox=`"):
            probe.cast(Probe.keep, 2)
        actor_of(probe).gate.set()
        await gate
        assert await probe.call(Probe.seen) == [1]


@everywhere
async def test_a_call_that_waits_for_room_gives_up_at_its_deadline() -> None:
    async with running(worker(Probe, mailbox=1, overflow="block")) as system:
        probe, gate = await busy(system)
        probe.cast(Probe.keep, 1)
        with pytest.raises(DeadlineExceeded), deadline(2):
            await probe.call(Probe.keep, 2)
        actor_of(probe).gate.set()
        await gate
        assert await probe.call(Probe.seen) == [1]


@everywhere
async def test_calls_that_wait_for_room_learn_of_the_death() -> None:
    async with running(worker(Probe, mailbox=1, overflow="block")) as system:
        probe, gate = await busy(system)
        calls = [asyncio.create_task(probe.call(Probe.keep, item)) for item in range(3)]
        await turns()
        probe.kill()
        for call in (gate, *calls):
            with pytest.raises(ActorDied):
                await call
        assert took(0)


@everywhere
async def test_reject_refuses_calls_and_casts_at_once() -> None:
    async with running(worker(Probe, mailbox=1, overflow="reject")) as system:
        probe, gate = await busy(system)
        probe.cast(Probe.keep, 1)
        with pytest.raises(MailboxFull):
            await probe.call(Probe.keep, 2)
        with pytest.raises(MailboxFull):
            probe.cast(Probe.keep, 3)
        assert took(0)
        actor_of(probe).gate.set()
        await gate
        assert await probe.call(Probe.seen) == [1]


@everywhere
async def test_drop_oldest_makes_room_and_tells_the_one_who_lost() -> None:
    async with running(worker(Probe, mailbox=2, overflow="drop_oldest")) as system:
        probe, gate = await busy(system)
        oldest = asyncio.create_task(probe.call(Probe.keep, "oldest"))
        await turns()
        for item in (1, 2, 3):
            probe.cast(Probe.keep, item)
        with pytest.raises(MailboxFull, match="/it dropped <call keep>"):
            await oldest
        assert [letter.message for letter in system.dead_letters] == ["<call keep>", "<cast keep>"]
        actor_of(probe).gate.set()
        await gate
        assert await probe.call(Probe.seen) == [2, 3]


@everywhere
async def test_messages_of_the_kernel_and_plain_sends_always_fit() -> None:
    async with running(worker(Probe, mailbox=1, overflow="reject"), worker(Probe, name="other")) as system:
        other = system.whereis("other", Probe)
        probe = system.whereis("it", Probe)
        monitor = await probe.call(Probe.do, lambda me: me.monitor(other))
        _, gate = await busy(system)
        probe.cast(Probe.keep, 1)
        await other.stop()
        probe.send(2)
        actor_of(probe).gate.set()
        await gate
        seen = await probe.call(Probe.seen)
        assert seen[0] == 1
        assert isinstance(seen[1], Down)
        assert seen[1].monitor == monitor
        assert seen[2] == 2


@everywhere
async def test_a_call_that_waits_for_room_moves_up_when_a_down_is_flushed() -> None:
    async with running(worker(Probe, mailbox=1), worker(Probe, name="other")) as system:
        other, probe = system.whereis("other", Probe), system.whereis("it", Probe)

        async def flush(me: Probe) -> None:
            monitor = me.monitor(other)
            other.kill()
            await turns(20)
            assert len(me._cell.mailbox.queue) == 1  # pyright: ignore[reportPrivateUsage]
            waiting.append(asyncio.create_task(probe.call(Probe.keep, "moved up")))
            await turns()
            me.demonitor(monitor)

        waiting: list[asyncio.Task[int]] = []
        await probe.call(Probe.go, flush)
        assert await waiting[0] == 1
        assert took(0)


@pytest.mark.parametrize("capacity", [0, -3])
def test_a_mailbox_that_holds_nothing_is_refused_by_the_spec(capacity: int) -> None:
    with pytest.raises(BadSpec, match=f"a mailbox holds at least one message, not {capacity}"):
        child(Probe, name="it", mailbox=capacity)
    with pytest.raises(ValueError, match=f"capacity={capacity}"):
        Mailbox(capacity)


@pytest.mark.worlds("real", "simulated")
@given(
    capacity=st.integers(1, 4),
    steps=st.lists(st.sampled_from(["call", "take", "give up", "message", "flush"]), max_size=60),
)
def test_whatever_happens_calls_are_taken_in_order_and_none_waits_beside_free_room(
    capacity: int, steps: list[str]
) -> None:
    @here()
    async def check() -> None:
        loop = asyncio.get_running_loop()
        mailbox = Mailbox(capacity, "block")
        asked: list[Request] = []
        taken: list[Request] = []
        for step in steps:
            if step == "call":
                asked.append(Request(Probe.seen, (), {}, loop.create_future(), None))  # pyright: ignore[reportArgumentType]
                assert mailbox.put(asked[-1], "/it") is None
            elif step == "message":
                mailbox.queue.append("tick")
            elif step == "flush":
                mailbox.remove(lambda message: message == "tick")
            elif step == "give up" and asked:
                asked[len(asked) // 2].reply.cancel()  # pyright: ignore[reportOptionalMemberAccess]
            elif step == "take" and mailbox.queue:
                message = mailbox.take()
                if isinstance(message, Request):
                    taken.append(message)
            live = [r for r in mailbox.waiting or () if r.reply is not None and not r.reply.done()]
            assert not live or len(mailbox) >= capacity
        taken += [message for message in mailbox.drain() if isinstance(message, Request)]
        assert len(mailbox) == 0
        assert taken == [request for request in asked if request in taken]
        lost = [request for request in asked if request not in taken]
        assert all(request.reply is not None and request.reply.cancelled() for request in lost)

    check()
