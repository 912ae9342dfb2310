"""Links and monitors: whoever wants to know of an end is told, once, and after everything that was said before it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine

import pytest
from support.probes import Probe, Trapping, actor_of, ended, running, worker
from support.worlds import everywhere, turns

from palmette.actors import (
    Actor,
    ActorDied,
    Crashed,
    Down,
    Exit,
    Killed,
    NoProcess,
    Normal,
    Reason,
    Ref,
    Shutdown,
    System,
    endpoint,
)
from palmette.supervisors import Supervisor, child


def pair(system: System) -> tuple[Ref[Probe], Ref[Probe]]:
    return system.whereis("a", Probe), system.whereis("b", Probe)


class Chatty(Actor):
    """Sends two messages and dies."""

    @endpoint
    async def tell_and_die(self, to: Ref[Probe]) -> None:
        to.send("first")
        to.cast(Probe.keep, "second")
        raise RuntimeError("that was all")


# --- monitors ---------------------------------------------------------------------------------------------------------


def leave(me: Probe) -> None:
    me.stop()


def shut_down(me: Probe) -> None:
    me.stop(Shutdown("enough"))


def kill(me: Probe) -> None:
    me.ref.kill("enough")


ENDS: list[tuple[Callable[[Probe], None], Reason]] = [
    (leave, Normal()),
    (shut_down, Shutdown("enough")),
    (kill, Killed("enough")),
]


@pytest.mark.parametrize(("end", "reason"), ENDS, ids=lambda value: getattr(value, "__name__", ""))
@everywhere
async def test_a_monitor_is_told_of_every_kind_of_end(end: Callable[[Probe], None], reason: Reason) -> None:
    async with running(worker(Probe, name="a"), worker(Probe, name="b")) as system:
        a, b = pair(system)
        monitor = await a.call(Probe.do, lambda me: me.monitor(b))
        b.cast(Probe.do, end)
        await ended(b)
        assert await a.call(Probe.seen) == [Down(b, reason, monitor)]


@everywhere
async def test_monitors_stack_and_each_is_told_exactly_once() -> None:
    async with running(worker(Probe, name="a"), worker(Probe, name="b")) as system:
        a, b = pair(system)
        ids = [await a.call(Probe.do, lambda me: me.monitor(b)) for _ in range(3)]
        assert len(set(ids)) == 3
        await b.stop()
        assert await a.call(Probe.seen) == [Down(b, Shutdown(), number) for number in ids]
        await turns()
        assert len(await a.call(Probe.seen)) == 3


@everywhere
async def test_monitoring_a_dead_address_is_answered_at_once() -> None:
    async with running(worker(Probe, name="a"), worker(Probe, name="b")) as system:
        a, b = pair(system)
        await b.stop()
        monitor = await a.call(Probe.do, lambda me: me.monitor(b))
        assert await a.call(Probe.seen) == [Down(b, NoProcess("/b"), monitor)]


@everywhere
async def test_a_monitor_is_of_one_incarnation() -> None:
    tree = Supervisor.spec(children=[child(Probe, name="a"), child(Probe, name="b")])
    async with System.start(tree) as system:
        a, b = pair(system)
        await a.call(Probe.do, lambda me: me.monitor(b))
        for _ in range(2):
            with pytest.raises(ActorDied):
                await b.call(Probe.fail)
            await system.wait_for("b", Probe)
        assert len(await a.call(Probe.seen)) == 1


@everywhere
async def test_undoing_a_monitor_guarantees_silence_also_when_its_down_waits_already() -> None:
    async with running(worker(Probe, name="a"), worker(Probe, name="b")) as system:
        a, b = pair(system)

        async def watch_then_undo(me: Probe) -> None:
            gone, kept = me.monitor(b), me.monitor(b)
            b.kill()
            await turns(10)
            assert not b.is_alive()
            me.demonitor(gone)
            me.demonitor(gone)
            assert kept != gone

        await a.call(Probe.go, watch_then_undo)
        assert len(await a.call(Probe.seen)) == 1


@everywhere
async def test_an_undone_monitor_leaves_nothing_behind() -> None:
    async with running(worker(Probe, name="a"), worker(Probe, name="b")) as system:
        a, b = pair(system)
        monitor = await a.call(Probe.do, lambda me: me.monitor(b))
        await a.call(Probe.do, lambda me: me.demonitor(monitor))
        assert not actor_of(b)._cell.bonds.watchers  # pyright: ignore[reportPrivateUsage]
        await b.stop()
        assert await a.call(Probe.seen) == []


@everywhere
async def test_a_watcher_that_dies_leaves_nothing_behind() -> None:
    async with running(worker(Probe, name="a"), worker(Probe, name="b")) as system:
        a, b = pair(system)
        await a.call(Probe.do, lambda me: me.monitor(b))
        await a.stop()
        assert not actor_of(b)._cell.bonds.watchers  # pyright: ignore[reportPrivateUsage]
        await b.stop()
        assert system.statistics().dead_letters == 0


@everywhere
async def test_messages_sent_before_a_death_arrive_before_the_news_of_it() -> None:
    async with running(worker(Probe, name="a"), worker(Chatty, name="b")) as system:
        a, b = system.whereis("a", Probe), system.whereis("b", Chatty)
        await a.call(Probe.do, lambda me: me.monitor(b))
        with pytest.raises(ActorDied):
            await b.call(Chatty.tell_and_die, a)
        seen = await a.call(Probe.seen)
        assert seen[:2] == ["first", "second"]
        assert isinstance(seen[2], Down)
        assert isinstance(seen[2].reason, Crashed)
        assert len(seen) == 3


# --- links ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("linking", ["a", "b"], ids=["the linker lives", "the linked lives"])
@everywhere
async def test_an_abnormal_end_crosses_a_link_in_both_directions_and_skips_the_hook(linking: str) -> None:
    hooks: list[str] = []

    class Leaving(Probe):
        async def stopping(self, reason: Reason) -> None:
            hooks.append(self.path)

    async with running(worker(Leaving, name="a"), worker(Probe, name="b")) as system:
        a, b = pair(system)
        one, other = (a, b) if linking == "a" else (b, a)
        await one.call(Probe.do, lambda me: me.link(other))
        end = asyncio.create_task(ended(a))
        await turns()
        with pytest.raises(ActorDied):
            await b.call(Probe.fail, "linked")
        reason = await end
        assert isinstance(reason, Crashed)
        assert reason.text == "linked"
        assert hooks == []


@everywhere
async def test_shutdown_crosses_a_link_as_in_otp() -> None:
    async with running(worker(Probe, name="a"), worker(Probe, name="b")) as system:
        a, b = pair(system)
        await a.call(Probe.do, lambda me: me.link(b))
        end = asyncio.create_task(ended(a))
        await turns()
        await b.stop(Shutdown("together"))
        assert await end == Shutdown("together")


@everywhere
async def test_a_normal_end_does_not_cross_a_link() -> None:
    async with running(worker(Probe, name="a"), worker(Probe, name="b")) as system:
        a, b = pair(system)
        await a.call(Probe.do, lambda me: me.link(b))
        await b.stop(Normal())
        await turns()
        assert await a.call(Probe.seen) == []


@pytest.mark.parametrize("reason", [Normal(), Shutdown("x"), Killed("y")], ids=["normal", "shutdown", "killed"])
@everywhere
async def test_who_traps_exits_gets_a_message_for_every_reason_and_lives(reason: Reason) -> None:
    async with running(worker(Trapping, name="a"), worker(Probe, name="b")) as system:
        a, b = pair(system)
        await a.call(Probe.do, lambda me: me.link(b))
        if isinstance(reason, Killed):
            b.kill(reason.detail)
            await ended(b)
        else:
            await b.stop(reason)
        assert await a.call(Probe.seen) == [Exit(b, reason)]


@everywhere
async def test_trapping_can_be_decided_by_the_actor_itself() -> None:
    class Deciding(Probe):
        async def started(self) -> None:
            self.trap_exit = True

    async with running(worker(Deciding, name="a"), worker(Probe, name="b")) as system:
        a, b = pair(system)
        await a.call(Probe.do, lambda me: me.link(b))
        b.kill()
        await ended(b)
        assert await a.call(Probe.seen) == [Exit(b, Killed())]


@everywhere
async def test_linking_to_the_dead_is_an_end_at_once() -> None:
    async with running(worker(Trapping, name="a"), worker(Probe, name="b"), worker(Probe, name="c")) as system:
        a, b = pair(system)
        c = system.whereis("c", Probe)
        await b.stop()
        await a.call(Probe.do, lambda me: me.link(b))
        assert await a.call(Probe.seen) == [Exit(b, NoProcess("/b"))]
        with pytest.raises(ActorDied):
            await c.call(Probe.go, link_and_wait(b))
        assert system.why("/c")[-1].reason == NoProcess("/b")


def link_and_wait(to: Ref[Probe]) -> Callable[[Probe], Coroutine[object, object, None]]:
    async def action(me: Probe) -> None:
        me.link(to)
        await asyncio.Event().wait()

    return action


@everywhere
async def test_a_link_is_one_however_often_it_is_made_and_gone_when_undone() -> None:
    async with running(worker(Trapping, name="a"), worker(Trapping, name="b")) as system:
        a, b = pair(system)
        for _ in range(3):
            await a.call(Probe.do, lambda me: me.link(b))
            await b.call(Probe.do, lambda me: me.link(a))
        await b.call(Probe.do, lambda me: me.unlink(a))
        b.kill()
        await ended(b)
        assert await a.call(Probe.seen) == []


@everywhere
async def test_an_end_crosses_a_chain_of_links() -> None:
    names = [f"n{number}" for number in range(20)]
    async with running(*(worker(Probe, name=name) for name in names)) as system:
        refs = [system.whereis(name, Probe) for name in names]
        for left, right in itertools.pairwise(refs):
            await left.call(Probe.do, lambda me, right=right: me.link(right))
        last = asyncio.create_task(ended(refs[-1]))
        await turns()
        refs[0].kill("the first")
        assert await last == Killed("the first")
        assert not any(ref.is_alive() for ref in refs)


@everywhere
async def test_nobody_can_take_a_supervisor_down_by_linking_to_it() -> None:
    async with System.start(Supervisor.spec(children=[worker(Probe, name="a"), worker(Probe, name="b")])) as system:
        a, b = pair(system)
        root = system.whereis("/", Supervisor)
        await a.call(Probe.do, lambda me: me.link(root))
        a.kill()
        await ended(a)
        root.send("a stray message")
        await turns()
        assert await b.call(Probe.seen) == []
        assert [letter.message for letter in system.dead_letters] == ["'a stray message'"]
