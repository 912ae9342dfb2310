"""Ends are honest: nothing of an actor outlives its announced end, and what will not end is called a zombie."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import ClassVar

import pytest
from support.probes import Boom, Probe, actor_of, ended, last_exit, running, text_of, worker
from support.worlds import everywhere, took, turns

from palmette.actors import (
    Actor,
    ActorDied,
    BadCall,
    Crashed,
    DeadlineExceeded,
    Down,
    Killed,
    Normal,
    Reason,
    Shutdown,
    endpoint,
)
from palmette.supervisors import Supervisor, child


class Careful(Probe):
    """Needs a while to clean up."""

    log: ClassVar[list[str]] = []

    async def stopping(self, reason: Reason) -> None:
        self.log.append("begins")
        try:
            await asyncio.sleep(0.5)
        finally:
            self.log.append("ends")


@pytest.fixture(autouse=True)
def empty_log() -> None:
    Careful.log.clear()


# --- stop -------------------------------------------------------------------------------------------------------------


@everywhere
async def test_stop_waits_until_the_hook_has_run() -> None:
    async with running(worker(Careful)) as system:
        await system.whereis("it", Careful).stop()
        assert Careful.log == ["begins", "ends"]
        assert last_exit(system, "/it").reason == Shutdown()


@everywhere
async def test_stop_lets_the_present_handler_finish_and_nothing_after_it() -> None:
    async with running(worker(Probe)) as system:
        probe = system.whereis("it", Probe)
        gate = asyncio.create_task(probe.call(Probe.pass_gate))
        await turns()
        queued = asyncio.create_task(probe.call(Probe.seen))
        await turns()
        stop = asyncio.create_task(probe.stop(Shutdown("enough")))
        await turns()
        actor_of(probe).gate.set()
        assert await gate == "passed"
        with pytest.raises(ActorDied, match=r"shutdown \(enough\)"):
            await queued
        await stop


@everywhere
async def test_stop_ends_with_any_reason_that_is_asked_for() -> None:
    for reason in (Normal(), Shutdown("x"), Killed("y"), Crashed("Asked", "for")):
        async with running(worker(Careful)) as system:
            await system.whereis("it", Careful).stop(reason)
            assert last_exit(system, "/it").reason == reason
            assert Careful.log == ["begins", "ends"]
        Careful.log.clear()


@everywhere
async def test_who_asks_for_a_reason_learns_that_it_was_another() -> None:
    async with running(worker(Careful), worker(Careful, name="other")) as system:
        careful, other = system.whereis("it", Careful), system.whereis("other", Careful)
        first = asyncio.create_task(careful.stop(Shutdown("first")))
        await turns()
        with pytest.raises(ActorDied, match=r"shutdown \(first\)"):
            await careful.stop(Shutdown("second"))
        await first
        first = asyncio.create_task(other.stop(Normal()))
        await turns()
        await other.stop()  # whoever asks for no reason in particular is content with any graceful one
        await first


@everywhere
async def test_who_stops_an_actor_that_crashes_instead_learns_of_the_crash() -> None:
    async with running(worker(Probe)) as system:
        probe = system.whereis("it", Probe)

        async def wait_and_fail(me: Probe) -> None:
            await me.gate.wait()
            raise Boom("last words")

        call = asyncio.create_task(probe.call(Probe.go, wait_and_fail))
        await turns()
        stop = asyncio.create_task(probe.stop())
        await turns()
        actor_of(probe).gate.set()
        for waiting in (stop, call):
            with pytest.raises(ActorDied, match="Boom: last words"):
                await waiting


@everywhere
async def test_a_stop_that_takes_too_long_is_the_callers_to_judge() -> None:
    async with running(worker(Probe)) as system:
        probe = system.whereis("it", Probe)
        call = asyncio.create_task(probe.call(Probe.pass_gate))
        await turns()
        with pytest.raises(DeadlineExceeded, match=r"/it did not stop within 7 s; terminate\(\) would kill it"):
            await probe.stop(timeout=7)
        assert took(7)
        assert probe.statistics().state == "stopping"  # it was asked, and goes when it can
        actor_of(probe).gate.set()
        assert await call == "passed"
        await probe.stop()
        assert last_exit(system, "/it").reason == Shutdown()


@everywhere
async def test_an_actor_cannot_wait_for_its_own_end() -> None:
    async with running(*(worker(Probe, name=name) for name in "abc")) as system:
        waits: dict[str, Callable[[Probe], Awaitable[object]]] = {
            "a": lambda me: me.ref.stop(),
            "b": lambda me: me.ref.terminate(),
            "c": lambda me: me.ref.drain(),
        }
        for name, wait in waits.items():
            with pytest.raises(BadCall, match=r"waits for its own end, which waits for it; use self.stop\(\)"):
                await system.whereis(name, Probe).call(Probe.go, wait)


@everywhere
async def test_stopping_the_dead_is_fine() -> None:
    async with running(worker(Probe)) as system:
        probe = system.whereis("it", Probe)
        await probe.stop()
        await probe.stop(Normal())
        assert await probe.terminate()
        assert await probe.drain()
        probe.kill()


@everywhere
async def test_an_actor_may_stop_itself_and_still_answers_the_call_that_made_it() -> None:
    class Leaving(Actor):
        @endpoint
        async def leave(self) -> str:
            self.stop()
            return "bye"

    async with running(worker(Leaving)) as system:
        leaving = system.whereis("it", Leaving)
        end = asyncio.create_task(ended(leaving))
        await turns()
        assert await leaving.call(Leaving.leave) == "bye"
        assert await end == Normal()


@everywhere
async def test_a_crash_runs_the_hook_with_its_reason() -> None:
    async with running(worker(Careful)) as system:
        with pytest.raises(ActorDied, match="Boom: boom"):
            await system.whereis("it", Careful).call(Probe.fail)
        assert Careful.log == ["begins", "ends"]


@everywhere
async def test_a_hook_that_raises_turns_a_graceful_end_into_a_crash() -> None:
    class Clumsy(Probe):
        async def stopping(self, reason: Reason) -> None:
            raise Boom("broke the vase")

    async with running(worker(Clumsy)) as system:
        with pytest.raises(ActorDied, match="broke the vase"):
            await system.whereis("it", Clumsy).stop()
        assert text_of(last_exit(system, "/it").reason) == "broke the vase"


@everywhere
async def test_a_hook_that_raises_after_a_crash_is_mentioned_beside_the_cause() -> None:
    class Clumsy(Probe):
        async def stopping(self, reason: Reason) -> None:
            raise SystemExit("broke the vase")

    async with running(worker(Clumsy)) as system:
        with pytest.raises(ActorDied, match=r"Boom: boom \(then stopping\(\) failed: SystemExit: broke the vase\)"):
            await system.whereis("it", Clumsy).call(Probe.fail)


@everywhere
async def test_a_hook_that_hangs_after_a_crash_is_ended_by_the_childs_shutdown_time() -> None:
    class Hanging(Probe):
        async def stopping(self, reason: Reason) -> None:
            await asyncio.Event().wait()

    async with running(worker(Hanging, shutdown=8)) as system:
        with pytest.raises(ActorDied, match=r"boom \(then stopping\(\) failed: .* took longer than 8 s"):
            await system.whereis("it", Hanging).call(Probe.fail)
        assert took(8)


# --- kill -------------------------------------------------------------------------------------------------------------


@everywhere
async def test_kill_interrupts_the_handler_and_skips_the_hook() -> None:
    async with running(worker(Careful)) as system:
        careful = system.whereis("it", Careful)
        call = asyncio.create_task(careful.call(Probe.pass_gate))
        await turns()
        careful.kill("no time")
        with pytest.raises(ActorDied, match=r"killed \(no time\)"):
            await call
        assert Careful.log == []


@everywhere
async def test_kill_ends_an_idle_actor_and_its_unread_messages() -> None:
    async with running(worker(Probe)) as system:
        probe = system.whereis("it", Probe)
        call = asyncio.create_task(probe.call(Probe.seen))
        probe.cast(Probe.keep, 1)
        probe.kill()
        assert await ended(probe) == Killed()
        with pytest.raises(ActorDied):
            await call


@everywhere
async def test_a_kill_before_the_first_step_of_a_task_is_not_lost() -> None:
    async with running(worker(Probe)) as system:
        probe = system.whereis("it", Probe)
        probe.cast(Probe.keep, 1)  # makes the task, which has not run yet
        probe.kill("early")
        assert await ended(probe) == Killed("early")


@everywhere
async def test_a_crash_before_the_first_step_of_a_task_is_not_lost() -> None:
    async with running(worker(Careful)) as system:
        careful = system.whereis("it", Careful)
        careful.cast(Probe.keep, 1)
        actor_of(careful)._cell.crash(Killed("early"))  # pyright: ignore[reportPrivateUsage]
        assert await ended(careful) == Killed("early")
        assert Careful.log == ["begins", "ends"]


@everywhere
async def test_a_second_cancel_does_not_break_the_clean_up() -> None:
    class Tidy(Careful):
        async def stopping(self, reason: Reason) -> None:
            await super().stopping(reason)

    async with running(worker(Tidy), worker(Probe, name="watcher")) as system:
        tidy, watcher = system.whereis("it", Tidy), system.whereis("watcher", Probe)
        await watcher.call(Probe.do, lambda me: me.monitor(tidy))
        call = asyncio.create_task(tidy.call(Probe.pass_gate))
        await turns()
        actor_of(tidy)._cell.crash(Killed("first"))  # pyright: ignore[reportPrivateUsage]
        await turns()
        task = actor_of(tidy)._cell.task  # pyright: ignore[reportPrivateUsage]
        assert task is not None
        for _ in range(3):
            task.cancel()
            await turns()
        with pytest.raises(ActorDied, match="first"):
            await call
        assert Careful.log == ["begins", "ends"]
        assert took(0.5)
        assert len(await watcher.call(Probe.seen)) == 1


@everywhere
async def test_a_kill_during_the_hook_interrupts_it() -> None:
    async with running(worker(Careful, shutdown=60)) as system:
        careful = system.whereis("it", Careful)
        stop = asyncio.create_task(careful.stop())
        await turns()
        careful.kill("now")
        with pytest.raises(ActorDied, match=r"killed \(now\)"):
            await stop
        assert Careful.log == ["begins", "ends"]
        assert took(0)
        assert last_exit(system, "/it").reason == Killed("now")


@everywhere
async def test_the_first_of_two_kills_gives_the_reason() -> None:
    async with running(worker(Probe)) as system:
        probe = system.whereis("it", Probe)
        probe.kill("first")
        probe.kill("second")
        assert await ended(probe) == Killed("first")


# --- what an actor owns -----------------------------------------------------------------------------------------------


@everywhere
async def test_the_children_of_a_killed_supervisor_end_in_order_before_its_end_is_announced() -> None:
    inner = Supervisor.spec(name="inner", restart="temporary", children=[child(Careful, name="leaf")])

    class Watcher(Probe):
        async def receive(self, message: object) -> None:
            await super().receive((type(message), list(Careful.log), leaf.is_alive()))

    async with running(inner, worker(Watcher, name="watcher")) as system:
        system.kill_grace = 10  # the leaf needs a while
        supervisor, watcher = system.whereis("inner", Supervisor), system.whereis("watcher", Probe)
        leaf = system.whereis("leaf", Careful)
        await watcher.call(Probe.do, lambda me: me.monitor(supervisor))
        supervisor.kill("the supervisor")
        await ended(supervisor)
        assert await watcher.call(Probe.seen) == [(Down, ["begins", "ends"], False)]
        assert [record.path for record in system.exits][:2] == ["/inner/leaf", "/inner"]


@everywhere
async def test_a_child_that_does_not_end_in_time_is_killed_with_its_killed_parent() -> None:
    inner = Supervisor.spec(
        name="inner", restart="temporary", children=[child(Probe, name="leaf", shutdown="infinity")]
    )
    async with running(inner) as system:
        leaf = system.whereis("leaf", Probe)
        call = asyncio.create_task(leaf.call(Probe.pass_gate))
        await turns()
        system.whereis("inner", Supervisor).kill()
        with pytest.raises(ActorDied, match="its parent ended"):
            await call
        assert took(system.kill_grace)
