"""Replies that come later, tasks beside the mailbox, and timers: all of them end with their incarnation."""

from __future__ import annotations

import asyncio

import pytest
from support.probes import Boom, Probe, actor_of, begun, done, ended, running, text_of, worker
from support.worlds import everywhere, took, turns

from palmette.actors import (
    Actor,
    ActorDied,
    Crashed,
    DeadlineExceeded,
    Killed,
    Refused,
    ReplyToken,
    Shutdown,
    System,
    deadline,
    endpoint,
)
from palmette.supervisors import Supervisor, child


class Office(Actor):
    """Answers when told to."""

    def __init__(self) -> None:
        self.tokens: list[ReplyToken[object]] = []

    @endpoint
    async def ask(self) -> str:
        self.tokens.append(self.reply_later())
        return "this is ignored"

    @endpoint
    async def ask_twice(self) -> None:
        self.reply_later()
        self.reply_later()

    @endpoint
    async def answer(self, value: object) -> None:
        self.tokens.pop(0).reply(value)

    @endpoint
    async def wanted(self) -> list[bool]:
        return [token.is_wanted() for token in self.tokens]

    @endpoint
    async def work_out(self, work: asyncio.Future[str]) -> str:
        async def wait() -> str:
            return await work

        return self.answer_later(wait())

    @endpoint
    async def die(self) -> None:
        raise Boom("the office burnt down")

    async def receive(self, message: object) -> None:
        self.reply_later()


# --- replies that come later -----------------------------------------------------------------------------------


@everywhere
async def test_a_reply_may_come_after_other_messages_were_served() -> None:
    async with running(worker(Office)) as system:
        office = system.whereis("it", Office)
        calls = await begun(office.call(Office.ask), office.call(Office.ask))
        assert await office.call(Office.wanted) == [True, True]
        await office.call(Office.answer, "first")
        await office.call(Office.answer, "second")
        assert await asyncio.gather(*calls) == ["first", "second"]


@everywhere
async def test_only_the_first_answer_counts() -> None:
    async with running(worker(Office)) as system:
        office = system.whereis("it", Office)
        call = asyncio.create_task(office.call(Office.ask))
        await turns()
        token = actor_of(office).tokens[0]
        token.reply(1)
        token.fail(Boom("too late"))
        token.reply(2)
        assert await call == 1


@everywhere
async def test_a_token_can_refuse() -> None:
    async with running(worker(Office)) as system:
        office = system.whereis("it", Office)
        call = asyncio.create_task(office.call(Office.ask))
        await turns()
        actor_of(office).tokens[0].fail(Refused("no"))
        with pytest.raises(Refused, match="no"):
            await call


@everywhere
async def test_a_death_before_the_reply_reaches_everybody_who_waits() -> None:
    async with running(worker(Office)) as system:
        office = system.whereis("it", Office)
        calls = [asyncio.create_task(office.call(Office.ask)) for _ in range(3)]
        await turns()
        office.cast(Office.die)
        for call in calls:
            with pytest.raises(ActorDied, match="the office burnt down"):
                await call
        assert took(0)


@everywhere
async def test_a_caller_that_gave_up_is_owed_nothing() -> None:
    async with running(worker(Office)) as system:
        office = system.whereis("it", Office)
        with pytest.raises(DeadlineExceeded), deadline(1):
            await office.call(Office.ask)
        assert await office.call(Office.wanted) == [False]
        assert not actor_of(office)._cell.owed  # pyright: ignore[reportPrivateUsage]
        await office.call(Office.answer, "to nobody")


@everywhere
async def test_a_cast_may_be_answered_later_to_nobody() -> None:
    async with running(worker(Office)) as system:
        office = system.whereis("it", Office)
        office.cast(Office.ask)
        assert await office.call(Office.wanted) == [False]
        await office.call(Office.answer, "to nobody")


@everywhere
async def test_a_reply_token_belongs_inside_an_endpoint_and_is_given_once() -> None:
    async with running(worker(Office), worker(Office, name="other")) as system:
        with pytest.raises(ActorDied, match=r"reply_later\(\) belongs inside an endpoint, once per request"):
            await system.whereis("it", Office).call(Office.ask_twice)
        other = system.whereis("other", Office)
        other.send("not a call")
        assert "belongs inside an endpoint" in text_of(await ended(other))


@everywhere
async def test_work_that_answers_later_leaves_the_mailbox_open() -> None:
    async with running(worker(Office)) as system:
        office = system.whereis("it", Office)
        good, refusing, failing = (system.loop.create_future() for _ in range(3))
        calls = [asyncio.create_task(office.call(Office.work_out, work)) for work in (good, refusing, failing)]
        assert await office.call(Office.wanted) == []
        refusing.set_exception(Refused("not this"))
        with pytest.raises(Refused, match="not this"):
            await calls[1]
        good.set_result("well")
        assert await calls[0] == "well"
        failing.set_exception(Boom("work failed"))
        with pytest.raises(ActorDied, match="work failed"):
            await calls[2]


# --- tasks --------------------------------------------------------------------------------------------------------


async def give(value: object) -> object:
    await asyncio.sleep(0)
    return value


async def burst(text: str) -> None:
    await asyncio.sleep(0)
    raise Boom(text)


async def for_ever(flag: list[str] | None = None) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        if flag is not None:
            flag.append("ended")


@everywhere
async def test_a_tagged_tasks_result_arrives_as_a_message() -> None:
    async with running(worker(Probe)) as system:
        probe = system.whereis("it", Probe)
        await probe.call(Probe.do, lambda me: me.start_task(give(1), tag="one"))
        await probe.call(Probe.do, lambda me: me.start_task(give(2)))
        await turns()
        assert done(await probe.call(Probe.seen)) == [("one", 1)]


@everywhere
async def test_a_task_that_raises_takes_its_actor_down_and_interrupts_its_handler() -> None:
    reasons: list[object] = []

    class Leaving(Probe):
        async def stopping(self, reason: object) -> None:
            reasons.append(reason)

    async with running(worker(Leaving)) as system:
        probe = system.whereis("it", Leaving)
        call, queued = await begun(
            probe.call(Probe.pass_gate), probe.call(Probe.do, lambda me: me.start_task(burst("never begun")))
        )
        actor_of(probe).start_task(burst("from a task"))
        for waiting in (call, queued):
            with pytest.raises(ActorDied, match="Boom: from a task"):
                await waiting
        assert len(reasons) == 1


@everywhere
async def test_a_task_that_raises_takes_an_idle_actor_down() -> None:
    async with running(worker(Probe)) as system:
        probe = system.whereis("it", Probe)
        await probe.call(Probe.do, lambda me: me.start_task(burst("alone")))
        assert text_of(await ended(probe)) == "alone"


@everywhere
async def test_a_sys_exit_in_a_task_ends_one_actor_and_not_the_program() -> None:
    async def leave() -> None:
        raise SystemExit(1)

    async with running(worker(Probe)) as system:
        probe = system.whereis("it", Probe)
        await probe.call(Probe.do, lambda me: me.start_task(leave()))
        assert text_of(await ended(probe)) == "1"


@pytest.mark.parametrize("how", ["stop", "kill", "crash"])
@everywhere
async def test_a_task_never_outlives_its_actor(how: str) -> None:
    flag: list[str] = []
    async with running(worker(Probe), worker(Probe, name="watcher")) as system:
        probe, watcher = system.whereis("it", Probe), system.whereis("watcher", Probe)
        await watcher.call(Probe.do, lambda me: me.monitor(probe))
        await probe.call(Probe.do, lambda me: me.start_task(for_ever(flag), tag="endless"))
        await turns()
        if how == "stop":
            await probe.stop()
        elif how == "kill":
            probe.kill()
        else:
            probe.cast(Probe.fail)
        while not await watcher.call(Probe.seen):
            await turns()
        assert flag == ["ended"]  # before anybody was told of the end


@everywhere
async def test_a_task_that_got_over_a_failed_group_ends_with_its_actor_as_any_other() -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise Boom("in a group")

    async def go_on() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
        except* Boom:  # until Python 3.13 the task counts as being cancelled from here on
            pass
        await for_ever(flag)

    flag: list[str] = []
    async with running(worker(Probe)) as system:
        probe = system.whereis("it", Probe)
        await probe.call(Probe.do, lambda me: me.start_task(go_on()))
        await turns()
        await probe.stop()
        assert flag == ["ended"]


@everywhere
async def test_a_task_that_is_killed_before_its_first_step_leaves_no_warning() -> None:
    async with running(worker(Probe)) as system:
        probe = system.whereis("it", Probe)

        def start_and_stop(me: Probe) -> None:
            me.start_task(for_ever())
            me.stop(Shutdown("done"))

        probe.cast(Probe.do, start_and_stop)
        assert await ended(probe) == Shutdown("done")


@everywhere
async def test_a_task_that_somebody_cancels_is_missed() -> None:
    async with running(worker(Probe)) as system:
        probe = system.whereis("it", Probe)
        tasks: list[asyncio.Task[object]] = []

        async def confess() -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.append(task)
            await for_ever()

        await probe.call(Probe.do, lambda me: me.start_task(confess(), tag="needed"))
        await turns()
        tasks[0].cancel()
        assert await ended(probe) == Killed("its task 'needed' was cancelled")


@everywhere
async def test_a_task_that_fails_while_its_actor_starts_fails_the_start() -> None:
    class Hasty(Probe):
        async def started(self) -> None:
            self.start_task(burst("in the start"))
            await asyncio.Event().wait()

    tree = Supervisor.spec(children=[child(Hasty, name="it")])
    with pytest.raises(Exception, match="/it could not start: Boom: in the start"):
        async with System.start(tree):
            pass


# --- timers ---------------------------------------------------------------------------------------------------------


@everywhere
async def test_a_timer_delivers_its_message_when_the_time_has_come() -> None:
    class Punctual(Probe):
        async def receive(self, message: object) -> None:
            assert took(5)
            await super().receive(message)

    async with running(worker(Punctual)) as system:
        probe = system.whereis("it", Punctual)
        await probe.call(Probe.do, lambda me: me.send_after(5, "tick"))
        await asyncio.sleep(15)
        assert await probe.call(Probe.seen) == ["tick"]


@everywhere
async def test_a_timer_can_be_called_off_also_when_it_has_fired() -> None:
    async with running(worker(Probe)) as system:
        probe = system.whereis("it", Probe)
        early = await probe.call(Probe.do, lambda me: me.send_after(1, "early"))
        late = await probe.call(Probe.do, lambda me: me.send_after(15, "late"))
        await asyncio.sleep(2)
        early()
        late()
        await asyncio.sleep(15)
        assert await probe.call(Probe.seen) == ["early"]


@everywhere
async def test_a_timer_dies_with_its_incarnation() -> None:
    async with System.start(Supervisor.spec(children=[child(Probe, name="it")])) as system:
        probe = system.whereis("it", Probe)
        await probe.call(Probe.do, lambda me: me.send_after(15, "from the dead"))
        with pytest.raises(ActorDied):
            await probe.call(Probe.fail)
        await system.wait_for("it", Probe)
        await asyncio.sleep(15)
        assert await probe.call(Probe.seen) == []
        assert system.statistics().dead_letters == 0


@everywhere
async def test_a_task_that_fails_to_clean_up_makes_an_orderly_end_a_crash() -> None:
    async def untidy() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            raise Boom("the directory is not empty")

    async def begin(me: Probe) -> None:
        me.start_task(untidy())

    async with System.start(Supervisor.spec(children=[child(Probe, name="one", restart="temporary")])) as system:
        one = system.whereis("one", Probe)
        await one.call(Probe.go, begin)
        await turns()
        await one.terminate()
        (record,) = [record for record in system.exits if record.path == "/one"]
        assert isinstance(record.reason, Crashed)
        assert record.reason.text == "the directory is not empty"
