"""A system is a block: it starts whole, ends whole, and a program whose root gave up does not idle on."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from support.probes import Boom, Probe, actor_of, ended, running, text_of, worker
from support.worlds import ROUNDING, everywhere, now, took, turns
from test_starting import LOG, Logged

from palmette.actors import Actor, ActorDied, ExitRecord, Killed, MaxRestarts, Normal, Shutdown, System
from palmette.supervisors import ChildSpec, DynamicSupervisor, Supervisor, child


@pytest.fixture(autouse=True)
def empty_log() -> None:
    LOG.clear()


def brittle() -> ChildSpec[Supervisor]:
    return Supervisor.spec(children=[child(Probe, name="it"), child(Logged, name="log")], max_restarts=0)


@everywhere
async def test_a_root_that_gives_up_cancels_the_block_and_says_why() -> None:
    async def main() -> None:
        async with System.start(brittle()) as system:
            system.whereis("it", Probe).cast(Probe.fail)
            await asyncio.Event().wait()

    with pytest.raises(ActorDied, match="the root of the tree died: 'it' was restarted 0 times within 5 s; last: Boom"):
        await main()
    assert LOG[-1] == "log stopping"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    async with asyncio.timeout(1):  # the caller's task is as good as new
        await asyncio.sleep(0)


@everywhere
async def test_a_root_that_gives_up_beside_another_error_lets_that_one_out() -> None:
    async def main() -> None:
        async with System.start(brittle()) as system:
            system.whereis("it", Probe).cast(Probe.fail)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise Boom("mine") from None

    with pytest.raises(Boom, match="mine"):
        await main()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@everywhere
async def test_a_block_that_swallows_the_cancellation_does_not_look_like_a_success() -> None:
    async def main() -> None:
        async with System.start(brittle()) as system:
            system.whereis("it", Probe).cast(Probe.fail)
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    with pytest.raises(ActorDied, match="the root of the tree died"):
        await main()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@everywhere
async def test_a_cancellation_from_outside_stays_one_also_when_the_root_gives_up_at_the_same_time() -> None:
    async def main() -> None:
        async with System.start(brittle()) as system:
            root = system.slots["/"].target
            assert root is not None
            root.ended().add_done_callback(lambda _: task.cancel())  # right behind the system's own
            system.whereis("it", Probe).cast(Probe.fail)
            await asyncio.Event().wait()

    task = asyncio.create_task(main())
    with pytest.raises(asyncio.CancelledError):
        await task


@everywhere
async def test_a_system_that_is_cancelled_while_it_runs_stops_in_order() -> None:
    async def main() -> None:
        async with System.start(brittle()):
            await asyncio.Event().wait()

    task = asyncio.create_task(main())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert LOG[-1] == "log stopping"


@everywhere
async def test_a_system_that_is_cancelled_while_it_stops_finishes_that_first() -> None:
    class Slow(Actor):
        async def stopping(self, reason: object) -> None:
            await asyncio.sleep(3)
            LOG.append("slow stopped")

    async def main() -> None:
        async with System.start(
            Supervisor.spec(children=[child(Logged, name="log"), child(Slow, name="slow", shutdown=60)])
        ):
            pass

    task = asyncio.create_task(main())
    await asyncio.sleep(1)
    for _ in range(3):
        task.cancel()
        await turns()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert LOG[-2:] == ["slow stopped", "log stopping"]
    assert took(3)


@everywhere
async def test_a_tree_that_has_done_its_work_ends_the_wait() -> None:
    tree = Supervisor.spec(
        auto_shutdown="any_significant",
        children=[child(Probe, name="it", restart="transient", significant=True), child(Logged, name="log")],
    )
    async with System.start(tree) as system:
        wait = asyncio.create_task(system.wait_ended())
        await asyncio.sleep(5)
        assert not wait.done()
        system.whereis("it", Probe).cast(Probe.do, lambda me: me.stop())
        assert await wait == Shutdown("completed")
        assert await system.wait_ended() == Shutdown("completed")  # also for who asks late
        assert LOG[-1] == "log stopping"


@everywhere
async def test_waiting_for_the_end_of_a_tree_that_gives_up_ends_the_block() -> None:
    async def main() -> None:
        async with System.start(brittle()) as system:
            system.whereis("it", Probe).cast(Probe.fail)
            await system.wait_ended()

    with pytest.raises(ActorDied, match="the root of the tree died"):
        await main()


@everywhere
async def test_any_actor_can_be_the_root_and_has_its_shutdown_time() -> None:
    class Slow(Probe):
        async def stopping(self, reason: object) -> None:
            await asyncio.sleep(100)

    async with System.start(child(Slow, name="slow", shutdown=7)) as system:
        assert await system.whereis("/", Slow).call(Probe.seen) == []
    assert took(7)


@everywhere
async def test_a_root_that_ends_at_once_is_no_error() -> None:
    class Brief(Actor):
        async def started(self) -> None:
            self.stop()

    async with System.start(child(Brief, name="brief")) as system:
        assert await system.wait_ended() == Normal()


@everywhere
async def test_nothing_is_left_after_the_block() -> None:
    tree = Supervisor.spec(
        children=[
            child(Probe, name="it"),
            Supervisor.spec(name="inner", children=[child(Probe, name="leaf")]),
            DynamicSupervisor.spec(name="pool"),
        ]
    )
    async with System.start(tree) as system:
        pool, it = system.whereis("pool", DynamicSupervisor), system.whereis("it", Probe)
        for number in range(3):
            await pool.call(DynamicSupervisor.start_child, worker(Probe, name=f"c{number}"))
        await it.call(Probe.do, lambda me: me.send_after(1000, "never"))
        await it.call(Probe.do, lambda me: me.start_task(asyncio.Event().wait()))
    assert system.statistics().actors == 0
    assert set(system.slots) == {"/", "/system/registry"}
    assert list(system.registry_table.names) == ["registry"]
    assert not it.is_alive()


@everywhere
async def test_thousands_of_children_that_come_and_go_leave_no_address_behind() -> None:
    async with System.start(DynamicSupervisor.spec(name="pool")) as system:
        pool = system.whereis("/", DynamicSupervisor)
        before = set(system.slots)
        for number in range(1000):
            spec = child(Probe, name=f"c{number}", register=f"name{number}", restart="temporary")
            path = await pool.call(DynamicSupervisor.start_child, spec)
            if number % 3 == 0:
                system.whereis(path, Probe).kill()
            elif number % 3 == 1:
                system.whereis(path, Probe).cast(Probe.do, lambda me: me.stop())
            else:
                await pool.call(DynamicSupervisor.terminate_child, f"c{number}")
        while (await pool.call(DynamicSupervisor.count_children)).specs:
            await turns()
        assert set(system.slots) == before
        assert list(system.registry_table.names) == ["registry"]
        assert len(system._vacant) <= 1000  # pyright: ignore[reportPrivateUsage]
        system.exits.clear()
        assert system.statistics().exits == 1000


# --- what can be seen -------------------------------------------------------------------------------------------------


@everywhere
async def test_the_tree_shows_who_lives_where_and_who_is_down() -> None:
    tree = Supervisor.spec(
        children=[child(Probe, name="it"), Supervisor.spec(name="inner", children=[child(Probe, name="leaf")])]
    )
    async with System.start(tree) as system:
        it = system.whereis("it", Probe)
        await system.whereis("/", Supervisor).call(Supervisor.terminate_child, "it")
        assert not it.is_alive()
        root = system.tree()
        assert (root.path, root.kind, root.state) == ("/", "Supervisor", "running")
        down, inner = root.children
        assert (down.name, down.state, down.last_exit) == ("it", "down", "shutdown")
        assert [(node.path, node.kind, node.state, node.incarnation) for node in inner.children] == [
            ("/inner/leaf", "Probe", "running", 1)
        ]


@everywhere
async def test_exits_are_kept_told_to_watchers_in_order_and_explained() -> None:
    async with running(child(Probe, name="it"), worker(Probe, name="watcher")) as system:
        it, watcher = system.whereis("it", Probe), system.whereis("watcher", Probe)
        system.watch_exits(watcher)
        system.watch_exits(watcher)
        for number in range(3):
            it.kill(f"number {number}")
            await ended(it)
            await system.wait_for("it", Probe)
        assert [record.reason for record in system.why("/it")] == [Killed(f"number {number}") for number in range(3)]
        seen = await watcher.call(Probe.seen)
        assert all(isinstance(record, ExitRecord) for record in seen)
        assert seen == system.why("/it")
        assert str(system.why("/it")[0]) == "/it#1 (Probe): killed (number 0)"
        assert system.why("/i") == []
        statistics = system.statistics()
        assert (statistics.exits, statistics.crashes, statistics.started) == (3, 3, 7)


@everywhere
async def test_a_suspended_actor_takes_no_message_until_it_is_resumed() -> None:
    async with running(worker(Probe)) as system:
        probe = system.whereis("it", Probe)
        gate = asyncio.create_task(probe.call(Probe.pass_gate))
        await turns()
        probe.suspend()
        probe.suspend()
        actor_of(probe).gate.set()
        assert await gate == "passed"  # what it was handling runs on
        call = asyncio.create_task(probe.call(Probe.seen))
        await turns(10)
        assert not call.done()
        probe.send(1)
        statistics = probe.statistics()
        assert (statistics.state, statistics.waiting, statistics.handled) == ("suspended", 2, 1)
        probe.resume()
        probe.resume()
        assert await call == []
        assert await probe.call(Probe.seen) == [1]
        assert probe.statistics().state == "running"


@pytest.mark.parametrize("how", ["stop", "kill", "crash"])
@everywhere
async def test_a_suspended_actor_can_still_be_ended(how: str) -> None:
    async with running(worker(Probe)) as system:
        probe = system.whereis("it", Probe)
        probe.suspend()
        call = asyncio.create_task(probe.call(Probe.seen))
        await turns()
        if how == "stop":
            await probe.stop()
        elif how == "kill":
            probe.kill()
        else:
            actor_of(probe)._cell.crash(Killed("crash"))  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(ActorDied):
            await call
        assert took(0)


@everywhere
async def test_statistics_are_answered_for_a_busy_actor_and_refused_for_a_dead_one() -> None:
    async with running(worker(Probe)) as system:
        probe = system.whereis("it", Probe)
        call = asyncio.create_task(probe.call(Probe.pass_gate))
        await asyncio.sleep(5)
        probe.send(1)
        statistics = probe.statistics()
        assert (statistics.handled, statistics.waiting, statistics.incarnation) == (1, 1, 1)
        assert 5 - ROUNDING <= statistics.uptime <= now()
        probe.kill()
        with pytest.raises(ActorDied):
            await call
        with pytest.raises(ActorDied, match="/it is not running"):
            probe.statistics()


@everywhere
async def test_a_spent_budget_names_the_last_straw() -> None:
    async with running(
        Supervisor.spec(
            name="inner", restart="temporary", max_restarts=1, max_seconds=100, children=[child(Probe, name="it")]
        )
    ) as system:
        it, inner = system.whereis("it", Probe), system.whereis("inner", Supervisor)
        end = asyncio.create_task(ended(inner))
        for number in range(2):
            await system.wait_for("it", Probe)
            it.cast(Probe.fail, f"number {number}")
            await turns(10)
        reason = await end
        assert isinstance(reason, MaxRestarts)
        assert (reason.child, reason.restarts, reason.seconds) == ("it", 1, 100.0)
        assert text_of(reason.cause) == "number 1"


@everywhere
async def test_ordinary_ends_do_not_drive_out_the_crashes() -> None:
    tree = Supervisor.spec(children=[DynamicSupervisor.spec(name="pool")])
    async with System.start(tree) as system:
        pool = system.whereis("pool", DynamicSupervisor)
        for name in ("bad", *(f"good-{number}" for number in range(1100)), "worse"):
            await pool.call(DynamicSupervisor.start_child, child(Probe, name=name, restart="temporary"))
            probe = system.ref_at(f"/pool/{name}", Probe)
            if name in ("bad", "worse"):
                probe.kill(name)
                await ended(probe)
            else:
                await probe.stop()
        paths = [record.path for record in system.exits]
        assert len(paths) == len(system.exits) == 1002
        assert (paths[0], paths[1], paths[-1]) == ("/pool/bad", "/pool/good-100", "/pool/worse")
        assert [record.path for record in reversed(system.exits)] == paths[::-1]
        assert len(system.why("/pool/bad")) == 1
