"""A drained actor takes nothing new, finishes what it has, and ends; at the deadline it is stopped as usual."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.probes import Probe, actor_of, begun, last_exit, running, worker
from support.worlds import everywhere, here, took, turns

from palmette.actors import ActorDied, Draining, Killed, Reason, Ref, ReplyToken, Shutdown, System, TaskDone, endpoint
from palmette.supervisors import DynamicSupervisor, StartRefused, Supervisor, child

DRAINED = Shutdown("drained")


class Worker(Probe):
    """Takes a second for each piece of work, and keeps a log of its end."""

    log: list[str]

    def __init__(self, log: list[str] | None = None, seconds: float = 1.0) -> None:
        super().__init__()
        self.log = [] if log is None else log
        self.seconds = seconds
        self.tokens: list[ReplyToken[object]] = []

    @endpoint
    async def work(self, item: object) -> object:
        await asyncio.sleep(self.seconds)
        self.got.append(item)
        self.log.append(f"{self.path} {item}")
        return item

    @endpoint
    async def work_beside(self, item: object) -> object:
        return self.answer_later(self._work(item))

    @endpoint
    async def promise(self) -> None:
        self.tokens.append(self.reply_later())

    async def _work(self, item: object) -> object:
        await asyncio.sleep(self.seconds)
        return item

    async def stopping(self, reason: Reason) -> None:
        self.log.append(f"{self.path} stopping")


def it(system: System) -> Ref[Worker]:
    return system.whereis("it", Worker)


@everywhere
async def test_what_is_queued_is_finished_and_what_comes_later_is_refused() -> None:
    log: list[str] = []
    async with running(worker(Worker, log)) as system:
        ref = it(system)
        calls = await begun(*(ref.call(Worker.work, number) for number in range(3)))
        ref.cast(Worker.work, "cast")
        ref.send("sent")
        drain = asyncio.create_task(ref.drain())
        await turns()
        assert ref.statistics().state == "draining"
        with pytest.raises(Draining, match="/it finishes what it has and takes nothing new; ask another"):
            await ref.call(Worker.work, "too late")
        ref.cast(Worker.work, "too late")
        ref.send("too late")
        assert [letter.message for letter in system.dead_letters] == ["<cast work>", "'too late'"]
        actor = actor_of(ref)
        assert await asyncio.gather(*calls) == [0, 1, 2]
        assert await drain
        assert actor.got == [0, 1, 2, "cast", "sent"]
        assert took(4)
        assert log[-1] == "/it stopping"
        assert last_exit(system, "/it").reason == DRAINED
        assert len(system.dead_letters) == 2


@pytest.mark.parametrize("busy", [False, True], ids=["at rest", "after much work"])
@everywhere
async def test_an_idle_actor_ends_at_once(busy: bool) -> None:
    async with running(worker(Worker)) as system:
        ref = it(system)
        for _ in range(20 if busy else 0):
            await ref.call(Probe.seen)
        assert await ref.drain()
        assert not ref.is_alive()
        assert took(0)


@everywhere
async def test_a_call_that_waits_for_room_was_taken_and_is_finished() -> None:
    async with running(worker(Worker, mailbox=1)) as system:
        ref = it(system)
        calls = await begun(*(ref.call(Worker.work, number) for number in range(4)))
        assert await ref.drain()
        assert await asyncio.gather(*calls) == [0, 1, 2, 3]


@everywhere
async def test_replies_that_are_owed_are_given_before_the_end() -> None:
    async with running(worker(Worker)) as system:
        ref = it(system)
        [beside] = await begun(ref.call(Worker.work_beside, "x"))
        promises = await begun(*(ref.call(Worker.promise) for _ in range(2)))
        drain = asyncio.create_task(ref.drain())
        await asyncio.sleep(10)
        assert beside.result() == "x"
        assert ref.statistics().state == "draining"
        with pytest.raises(Draining):
            await ref.call(Probe.seen)
        first, second = actor_of(ref).tokens
        second.reply(2)
        await turns()
        assert not drain.done()
        first.reply(1)
        assert await drain
        assert await asyncio.gather(*promises) == [1, 2]


@everywhere
async def test_a_tagged_tasks_result_is_handled_before_the_end_and_an_endless_task_does_not_keep_it() -> None:
    async with running(worker(Worker)) as system:
        ref = it(system)
        actor = actor_of(ref)
        await ref.call(Probe.do, lambda me: me.start_task(asyncio.sleep(3, "result"), tag="t"))
        await ref.call(Probe.do, lambda me: me.start_task(asyncio.Event().wait()))
        assert await ref.drain()
        assert actor.got == [TaskDone("t", "result")]
        assert took(3)


@everywhere
async def test_messages_from_itself_and_the_kernels_get_in() -> None:
    async with running(worker(Worker), worker(Probe, name="other")) as system:
        ref, other = it(system), system.whereis("other", Probe)
        actor = actor_of(ref)

        async def act(me: Probe) -> None:
            monitor = me.monitor(other)
            await asyncio.sleep(1)
            me.ref.send("from itself")
            me.ref.cast(Probe.keep, "also")
            other.kill("x")
            await asyncio.sleep(1)
            me.got.append(monitor)

        call = asyncio.create_task(ref.call(Probe.go, act))
        await turns()
        assert await ref.drain()
        await call
        monitor, sent, kept, down = actor.got
        assert (sent, kept) == ("from itself", "also")
        assert getattr(down, "monitor", None) == monitor
        assert system.statistics().dead_letters == 0


@everywhere
async def test_at_the_deadline_the_present_handler_ends_and_the_rest_is_refused() -> None:
    async with running(worker(Worker, None, 2.0)) as system:
        ref = it(system)
        calls = await begun(*(ref.call(Worker.work, number) for number in range(3)))
        assert not await ref.drain(timeout=3)
        assert took(4)
        assert [call.exception() is None for call in calls] == [True, True, False]
        with pytest.raises(ActorDied, match="not drained in time"):
            await calls[2]


@everywhere
async def test_a_handler_that_does_not_end_after_the_deadline_is_killed() -> None:
    async with running(worker(Worker)) as system:
        ref = it(system)
        call = asyncio.create_task(ref.call(Probe.pass_gate))
        await turns()
        assert not await ref.drain(timeout=3, shutdown=2)
        assert took(5)
        assert last_exit(system, "/it").reason == Killed("did not stop within 2 s")
        with pytest.raises(ActorDied):
            await call


@everywhere
async def test_a_crash_during_the_drain_is_told() -> None:
    async with running(worker(Worker)) as system:
        ref = it(system)
        ref.cast(Worker.work, 1)
        ref.cast(Probe.fail)
        with pytest.raises(ActorDied, match="Boom: boom"):
            await ref.drain()


@everywhere
async def test_a_suspended_actor_is_drained_when_it_is_resumed() -> None:
    async with running(worker(Worker)) as system:
        ref = it(system)
        ref.suspend()
        call = asyncio.create_task(ref.call(Worker.work, 1))
        await turns()
        drain = asyncio.create_task(ref.drain())
        await asyncio.sleep(5)
        assert ref.statistics().state == "suspended"
        with pytest.raises(Draining):
            await ref.call(Probe.seen)
        ref.resume()
        assert await call == 1
        assert await drain


@everywhere
async def test_what_is_stashed_at_the_end_is_told() -> None:
    class Stashing(Worker):
        async def receive(self, message: object) -> None:
            self.stash()

        @endpoint
        async def ask(self) -> None:
            self.stash()

    async with running(worker(Stashing)) as system:
        ref = system.whereis("it", Stashing)
        ref.send("x")
        call = asyncio.create_task(ref.call(Stashing.ask))
        await turns()
        assert await ref.drain()
        with pytest.raises(ActorDied, match="drained"):
            await call
        assert [letter.message for letter in system.dead_letters] == ["'x'"]


@everywhere
async def test_a_permanent_child_starts_again_after_its_drain_and_takes_messages() -> None:
    async with running(child(Worker, name="it")) as system:
        ref = it(system)
        assert await ref.drain()
        await system.wait_for("it", Worker)
        assert ref.incarnation == 2
        assert await ref.call(Worker.work, 1) == 1


@everywhere
async def test_a_drain_during_the_start_begins_after_it() -> None:
    class Slow(Worker):
        async def started(self) -> None:
            self.ref.send("to itself")
            await asyncio.sleep(5)

    async with running() as system:
        root = system.whereis("/", Supervisor)
        start = asyncio.create_task(root.call(Supervisor.start_child, worker(Slow)))
        await asyncio.sleep(1)
        slow = system.ref_at("/it", Slow)
        actor = actor_of(slow)
        assert await slow.drain()
        assert actor.got == ["to itself"]
        assert took(5)
        await start


# --- supervisors ------------------------------------------------------------------------------------------------------


@everywhere
async def test_a_drained_supervisor_drains_its_children_in_stop_order_and_starts_no_more() -> None:
    log: list[str] = []
    tree = Supervisor.spec(name="sup", restart="temporary", children=[child(Worker, log, name=name) for name in "ab"])
    async with running(tree) as system:
        sup = system.whereis("sup", Supervisor)
        for name in "ab":
            for number in range(3):
                system.whereis(name, Worker).cast(Worker.work, number)
        drain = asyncio.create_task(sup.drain())
        await asyncio.sleep(0.5)
        with pytest.raises((Draining, StartRefused, ActorDied)):
            await sup.call(Supervisor.start_child, worker(Worker, name="c"))
        assert await drain
        own = [entry for entry in log if entry.startswith("/sup/b") or "stopping" in entry]
        assert own == ["/sup/b 0", "/sup/b 1", "/sup/b 2", "/sup/b stopping", "/sup/a stopping"]
        assert [entry for entry in log if entry.startswith("/sup/a")][:3] == ["/sup/a 0", "/sup/a 1", "/sup/a 2"]
        assert {system.why(path)[-1].reason for path in ("/sup", "/sup/a", "/sup/b")} == {DRAINED}


@everywhere
async def test_the_deadline_of_a_drained_supervisor_holds_for_all_below() -> None:
    tree = DynamicSupervisor.spec(name="pool", restart="temporary")
    async with running(tree) as system:
        pool = system.whereis("pool", DynamicSupervisor)
        calls: list[asyncio.Task[object]] = []
        for name in "ab":
            path = await pool.call(DynamicSupervisor.start_child, worker(Worker, None, 2.0, name=name))
            ref = system.ref_at(path, Worker)
            calls += await begun(*(ref.call(Worker.work, number) for number in range(4)))
        assert not await pool.drain(timeout=5)
        assert took(6)  # all at the same time, and each present handler to its end
        assert [call.exception() is None for call in calls] == [True, True, True, False] * 2


# --- whatever happens -------------------------------------------------------------------------------------------------

STEP = 0.25
"""Seconds of a piece of work."""


@pytest.mark.worlds("real", "simulated")
@settings(max_examples=50)
@given(
    steps=st.lists(st.sampled_from(["call", "cast", "beside", "task", "wait", "suspend", "resume"]), max_size=30),
    at=st.integers(0, 30),
)
def test_all_that_was_taken_before_a_drain_is_done_and_nothing_after_it(steps: list[str], at: int) -> None:
    @here()
    async def check() -> None:
        async with running(worker(Worker, None, STEP)) as system:
            ref = it(system)
            actor = actor_of(ref)
            before: list[asyncio.Task[object]] = []
            after: list[asyncio.Task[object]] = []
            casts = 0
            drain: asyncio.Task[bool] | None = None
            acts: dict[str, Callable[[], None]] = {"suspend": ref.suspend, "resume": ref.resume}
            for number, step in enumerate(steps):
                if number == at:
                    drain = asyncio.create_task(ref.drain(timeout=1000))
                    await turns()
                calls = before if drain is None else after
                if not ref.is_alive():
                    break
                if step in ("call", "beside"):
                    what = Worker.work if step == "call" else Worker.work_beside
                    calls.append(asyncio.create_task(ref.call(what, number)))
                    await turns()
                elif step == "cast":
                    ref.cast(Worker.work, number)
                    casts += drain is None
                elif step == "task":
                    actor.start_task(asyncio.sleep(3 * STEP, number), tag="t")
                elif step == "wait":
                    await asyncio.sleep(STEP)
                else:
                    acts[step]()
            if ref.is_alive():
                ref.resume()
            drain = drain or asyncio.create_task(ref.drain(timeout=1000))
            assert await drain
            assert not [call for call in before if call.exception() is not None]
            assert all(isinstance(call.exception(), Draining | ActorDied) for call in after)
            assert len([item for item in actor.got if isinstance(item, int)]) >= casts

    check()
