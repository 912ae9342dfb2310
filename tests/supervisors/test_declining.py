"""A child may decline to start: its supervisor goes on without it."""

from __future__ import annotations

import asyncio

import pytest
from supervisors_support import Worker, at, crash, diary, finish, root_of, states, workers
from support.probes import Boom
from support.worlds import everywhere, turns

from palmette.actors import (
    Actor,
    ActorDied,
    Crashed,
    Decline,
    Declined,
    Reason,
    StartFailed,
    System,
    describe,
    is_graceful,
)
from palmette.supervisors import (
    Backoff,
    ChildCounts,
    ChildExists,
    ChildSpec,
    DynamicSupervisor,
    StartDeclined,
    StartRefused,
    Supervisor,
    child,
)
from palmette.supervisors.policy import Restart
from palmette.supervisors.supervisor import Strategy

RESTARTS: tuple[Restart, ...] = ("permanent", "transient", "temporary")


def tree(*children: ChildSpec[Actor], strategy: Strategy = "one_for_one", **options: object) -> ChildSpec[Supervisor]:
    return Supervisor.spec(children=children, strategy=strategy, **options)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("restart", RESTARTS)
@everywhere
async def test_a_decline_at_first_is_no_failure_and_only_a_temporary_child_is_forgotten(restart: Restart) -> None:
    Worker.decline["b"] = 1
    async with System.start(tree(*workers("abc", restart), max_restarts=0)) as system:
        assert diary() == "+a ?b +c"
        b = {} if restart == "temporary" else {"b": "declined"}
        assert await states(system) == {"a": "running", **b, "c": "running"}
        assert await root_of(system).call(Supervisor.count_children) == ChildCounts(
            specs=2 + len(b), active=2, supervisors=0, workers=2 + len(b)
        )
        assert not system.ref_at("/b", Worker).is_alive()
        assert ("/b" in system.slots) == bool(b)
        assert system.why("/b")[-1].reason == Declined("b is not needed")
        assert system.statistics().crashes == 0
    assert diary() == "-c -a"


@everywhere
async def test_what_was_begun_is_undone_and_a_failure_of_that_is_a_failed_start() -> None:
    class Unsure(Actor):
        undone = False

        def __init__(self, broken: bool) -> None:
            self.broken = broken

        async def started(self) -> None:
            raise Decline("not today")

        async def stopping(self, reason: Reason) -> None:
            Unsure.undone = reason == Declined("not today")
            if self.broken:
                raise Boom("cannot undo it")

    async with System.start(tree(child(Unsure, False, name="a"))) as system:
        assert Unsure.undone
        with pytest.raises(StartRefused, match="cannot undo it"):
            await root_of(system).call(Supervisor.start_child, child(Unsure, True, name="b"))
        assert await states(system) == {"a": "declined"}


@everywhere
async def test_init_may_decline_too() -> None:
    class Never(Actor):
        def __init__(self) -> None:
            raise Decline

    async with System.start(tree(child(Never, name="a"))) as system:
        assert await states(system) == {"a": "declined"}
        assert describe(system.why("/a")[-1].reason) == "declined to start"


@everywhere
async def test_a_child_that_declined_is_started_when_asked_to() -> None:
    Worker.decline["a"] = 2
    async with System.start(tree(*workers("a"), max_restarts=0)) as system:
        root = root_of(system)
        with pytest.raises(StartDeclined, match=r"^/a declined to start \(a is not needed\)$"):
            await root.call(Supervisor.restart_child, "a")
        assert await states(system) == {"a": "declined"}
        await root.call(Supervisor.restart_child, "a")
        assert await states(system) == {"a": "running"}
        await root.call(Supervisor.terminate_child, "a")
        Worker.decline["a"] = 1
        with pytest.raises(StartDeclined):
            await root.call(Supervisor.restart_child, "a")
        assert await states(system) == {"a": "declined"}


@pytest.mark.parametrize("restart", RESTARTS)
@everywhere
async def test_start_child_says_that_it_declined_and_keeps_the_spec_of_all_but_a_temporary_child(
    restart: Restart,
) -> None:
    Worker.decline["a"] = 1
    [spec] = workers("a", restart)
    async with System.start(tree()) as system:
        root = root_of(system)
        with pytest.raises(StartDeclined):
            await root.call(Supervisor.start_child, spec)
        if restart == "temporary":
            assert await states(system) == {}
            assert await root.call(Supervisor.start_child, spec) == "/a"
            return
        assert await states(system) == {"a": "declined"}
        with pytest.raises(ChildExists, match=r"a child 'a' already \(declined\)"):
            await root.call(Supervisor.start_child, spec)
        await root.call(Supervisor.terminate_child, "a")
        await root.call(Supervisor.delete_child, "a")
        assert await states(system) == {}


@everywhere
async def test_a_restart_that_is_declined_has_succeeded_and_costs_what_a_restart_costs() -> None:
    async def main() -> None:
        async with System.start(tree(*workers("ab"), max_restarts=1)) as system:
            Worker.decline["a"] = 1
            await crash(system, "a")
            assert await states(system) == {"a": "declined", "b": "running"}
            await crash(system, "b")

    with pytest.raises(ActorDied, match="'b' was restarted 1 times"):
        await main()
    assert diary() == "+a +b ?a"


@everywhere
async def test_a_decline_after_a_failed_start_ends_the_attempts() -> None:
    async with System.start(tree(*workers("a"), max_restarts=3)) as system:
        Worker.fail["a"] = 2
        Worker.decline["a"] = 1
        await crash(system, "a")
        assert diary() == "+a !a !a ?a"
        assert await states(system) == {"a": "declined"}


@everywhere
async def test_a_decline_after_a_backoff_ends_the_wait() -> None:
    async with System.start(tree(*workers("a", backoff=Backoff(min=10, jitter=0)))) as system:
        Worker.decline["a"] = 1
        await crash(system, "a")
        await asyncio.sleep(25)
        assert diary() == "+a ?a"
        assert await states(system) == {"a": "declined"}


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [("one_for_one", "+b"), ("one_for_all", "-d -c -a +a +b ?c +d"), ("rest_for_one", "-d -c +b ?c +d")],
)
@everywhere
async def test_a_group_restart_goes_on_without_the_one_that_declines(strategy: Strategy, expected: str) -> None:
    async with System.start(tree(*workers("abcd"), strategy=strategy)) as system:
        diary()
        Worker.decline["c"] = 1
        await crash(system, "b")
        assert diary() == expected
        c = "running" if strategy == "one_for_one" else "declined"
        assert await states(system) == {"a": "running", "b": "running", "c": c, "d": "running"}


@everywhere
async def test_a_child_that_declined_is_asked_again_when_its_group_restarts() -> None:
    Worker.decline["c"] = 1
    async with System.start(tree(*workers("abc"), strategy="rest_for_one")) as system:
        await crash(system, "b")
        assert await states(system) == {"a": "running", "b": "running", "c": "running"}


@everywhere
async def test_a_significant_child_that_declines_ends_nothing_and_is_not_waited_for() -> None:
    children = workers("ab", "transient", significant=True)
    Worker.decline["a"] = 1
    async with System.start(tree(*children, auto_shutdown="all_significant")) as system:
        await turns(200)
        assert await states(system) == {"a": "declined", "b": "running"}
        await finish(system, "b")
        assert not root_of(system).is_alive()


@everywhere
async def test_a_dynamic_child_that_declines_is_not_kept_at_first_or_later() -> None:
    async with System.start(DynamicSupervisor.spec(name="pool", max_children=1, max_restarts=1)) as system:
        pool = system.whereis("/", DynamicSupervisor)
        for restart in RESTARTS:
            Worker.decline["a"] = 1
            with pytest.raises(StartDeclined, match="/a declined to start"):
                await pool.call(DynamicSupervisor.start_child, workers("a", restart)[0])
            assert await pool.call(DynamicSupervisor.which_children) == []
        assert await pool.call(DynamicSupervisor.start_child, workers("a")[0]) == "/a"
        Worker.decline["a"] = 1
        await crash(system, "a")
        assert await pool.call(DynamicSupervisor.which_children) == []
        assert set(system.slots) == {"/", "/system/registry"}


@everywhere
async def test_a_decline_ends_no_link_of_the_one_that_declines() -> None:
    class Linked(Actor):
        async def started(self) -> None:
            self.link(self.system.whereis("a", Worker))
            raise Decline("after all")

    async with System.start(tree(*workers("a"), child(Linked, name="b"))) as system:
        await turns(200)
        assert at(system, "a").incarnation == 1
        assert at(system, "a").is_alive()


@everywhere
async def test_a_root_that_declines_is_a_system_that_cannot_start() -> None:
    class Never(Actor):
        async def started(self) -> None:
            raise Decline("there is nothing to do")

    with pytest.raises(StartFailed, match=r"^/ could not start: declined to start \(there is nothing to do\)$"):
        async with System.start(child(Never, name="it")):
            pass


@everywhere
async def test_to_decline_after_the_start_is_a_crash() -> None:
    async with System.start(tree(*workers("a"))) as system:
        at(system, "a").cast(Worker.end, Decline("too late"))
        await turns(200)
        reason = system.why("/a")[-1].reason
        assert isinstance(reason, Crashed)
        assert not is_graceful(reason)
        assert at(system, "a").incarnation == 2
