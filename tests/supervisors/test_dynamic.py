"""Children that come and go: each for itself, forgotten when done, stopped all at once."""

from __future__ import annotations

import asyncio

import pytest
from supervisors_support import Worker, at, crash, diary, finish, workers
from support.probes import Boom, Probe, actor_of
from support.worlds import everywhere, now, took, turns

from palmette.actors import ActorDied, Killed, Normal, Reason, Ref, Shutdown, System
from palmette.supervisors import (
    BadSpec,
    ChildCounts,
    ChildExists,
    ChildSpec,
    DynamicSupervisor,
    StartRefused,
    Supervisor,
    TooManyChildren,
    child,
)
from palmette.supervisors.spec import Shutdown as ShutdownTime


class SlowStopper(Probe):
    """Takes its time to end."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    async def stopping(self, reason: Reason) -> None:
        await asyncio.sleep(self.seconds)


def slow_stopper(name: str, *, seconds: float, shutdown: ShutdownTime) -> ChildSpec[SlowStopper]:
    return child(SlowStopper, seconds, name=name, shutdown=shutdown)


def pool_of(system: System) -> Ref[DynamicSupervisor]:
    return system.whereis("/", DynamicSupervisor)


async def add(system: System, names: str, *args: object, **options: object) -> None:
    for spec in workers(names, *args, **options):  # pyright: ignore[reportArgumentType]
        assert await pool_of(system).call(DynamicSupervisor.start_child, spec) == f"/{spec.name}"


async def names(system: System) -> set[str]:
    return {info.name for info in await pool_of(system).call(DynamicSupervisor.which_children)}


@everywhere
async def test_children_are_supervised_one_for_one() -> None:
    async with System.start(DynamicSupervisor.spec(name="pool")) as system:
        await add(system, "abc")
        diary()
        await crash(system, "b")
        assert diary() == "+b"
        assert await names(system) == {"a", "b", "c"}


@everywhere
async def test_children_that_are_done_are_forgotten_and_their_names_are_free() -> None:
    async with System.start(DynamicSupervisor.spec(name="pool", max_restarts=0)) as system:
        for _ in range(3):
            await add(system, "a", "transient")
            await add(system, "b", "temporary")
            await finish(system, "a")
            await crash(system, "b")
            assert await names(system) == set()
            assert set(system.slots) == {"/", "/system/registry"}


@everywhere
async def test_max_children_is_admission_control() -> None:
    async with System.start(DynamicSupervisor.spec(name="pool", max_children=2)) as system:
        await add(system, "ab", "temporary")
        with pytest.raises(TooManyChildren, match="/ has its 2 children; wait, or raise max_children"):
            await add(system, "c")
        await finish(system, "a")
        await add(system, "c")
        assert await names(system) == {"b", "c"}


@everywhere
async def test_a_name_is_unique_among_the_present() -> None:
    async with System.start(DynamicSupervisor.spec(name="pool")) as system:
        await add(system, "a")
        with pytest.raises(ChildExists, match="/ has a child 'a' already"):
            await add(system, "a")


@everywhere
async def test_a_child_that_does_not_start_takes_no_place() -> None:
    async with System.start(DynamicSupervisor.spec(name="pool", max_children=1, max_restarts=0)) as system:
        Worker.fail["a"] = 1
        with pytest.raises(StartRefused, match="no start of a"):
            await add(system, "a")
        await add(system, "a")


@everywhere
async def test_a_child_whose_restart_fails_is_tried_again_within_the_budget() -> None:
    async with System.start(DynamicSupervisor.spec(name="pool", max_restarts=3)) as system:
        await add(system, "a")
        diary()
        Worker.fail["a"] = 2
        await crash(system, "a")
        assert diary() == "!a !a +a"


@everywhere
async def test_a_spent_budget_ends_the_pool_and_everybody_in_it() -> None:
    async def main() -> None:
        async with System.start(DynamicSupervisor.spec(name="pool", max_restarts=1, max_seconds=100)) as system:
            await add(system, "ab")
            await crash(system, "a")
            at(system, "b").cast(Worker.end, Boom("the last straw"))
            await asyncio.Event().wait()

    with pytest.raises(ActorDied, match="'b' was restarted 1 times within 100 s; last: Boom: the last straw"):
        await main()
    assert diary().endswith("-a")


@everywhere
async def test_a_failed_restart_that_a_rule_lets_go_is_forgotten() -> None:
    async with System.start(DynamicSupervisor.spec(name="pool")) as system:
        await add(system, "a", rules={"no": "stop"})
        await add(system, "b", rules={"Boom": "stop"})
        Worker.fail["b"] = 1
        at(system, "b").kill()
        await turns(200)
        assert await names(system) == {"a"}


@everywhere
async def test_terminating_forgets_and_an_absent_child_is_fine() -> None:
    async with System.start(DynamicSupervisor.spec(name="pool")) as system:
        await add(system, "a")
        for _ in range(2):
            await pool_of(system).call(DynamicSupervisor.terminate_child, "a")
        assert await names(system) == set()
        await add(system, "a")


@everywhere
async def test_children_stop_at_the_same_time_each_by_its_own_protocol() -> None:
    async with System.start(DynamicSupervisor.spec(name="pool")) as system:
        pool = pool_of(system)
        for number in range(5):
            await pool.call(DynamicSupervisor.start_child, slow_stopper(f"s{number}", seconds=3, shutdown=10))
        await pool.call(DynamicSupervisor.start_child, slow_stopper("brutal", seconds=100, shutdown="brutal"))
        await pool.call(DynamicSupervisor.start_child, slow_stopper("late", seconds=100, shutdown=2))
        await pool.call(DynamicSupervisor.start_child, slow_stopper("later", seconds=100, shutdown=5))
        await pool.call(DynamicSupervisor.start_child, slow_stopper("patient", seconds=4, shutdown="infinity"))
        begun = now()
    assert took(5, since=begun)
    order = [record.path for record in system.exits if record.kind == "SlowStopper"]
    assert (order[0], order[-1]) == ("/brutal", "/later")
    ends = {path: system.why(f"/{path}")[-1].reason for path in ("s0", "late", "later", "patient")}
    assert ends == {
        "s0": Shutdown(),
        "late": Killed("did not stop within 2 s"),
        "later": Killed("did not stop within 5 s"),
        "patient": Shutdown(),
    }


@everywhere
async def test_the_pool_answers_while_a_child_is_busy() -> None:
    async with System.start(DynamicSupervisor.spec(name="pool")) as system:
        pool = pool_of(system)
        await pool.call(DynamicSupervisor.start_child, child(Probe, name="it"))
        call = asyncio.create_task(system.whereis("/it", Probe).call(Probe.pass_gate))
        await turns()
        assert await pool.call(DynamicSupervisor.count_children) == ChildCounts(
            specs=1, active=1, supervisors=0, workers=1
        )
        actor_of(system.whereis("/it", Probe)).gate.set()
        assert await call == "passed"


@everywhere
async def test_whole_trees_can_come_and_go() -> None:
    async with System.start(DynamicSupervisor.spec(name="pool")) as system:
        for _ in range(2):
            episode = Supervisor.spec(
                name="episode",
                restart="temporary",
                strategy="rest_for_one",
                auto_shutdown="any_significant",
                children=[*workers("m"), *workers("w", "transient", significant=True)],
            )
            await pool_of(system).call(DynamicSupervisor.start_child, episode)
            system.ref_at("/episode/w", Worker).cast(Worker.end, Boom("once"))
            await turns(200)
            assert await names(system) == {"episode"}
            diary()
            system.whereis("/episode/w", Worker).cast(Worker.end, Boom("twice"))
            await turns(200)
            system.whereis("/episode/w", Worker).kill()
            await turns(200)
            await finish_path(system, "/episode/w")
            assert await names(system) == set()
            assert diary() == "+w +w -m"
            assert set(system.slots) == {"/", "/system/registry"}


async def finish_path(system: System, path: str) -> None:
    system.whereis(path, Worker).cast(Worker.end, Normal())
    await turns(200)


@everywhere
async def test_significance_means_nothing_here() -> None:
    async with System.start(DynamicSupervisor.spec(name="pool")) as system:
        with pytest.raises(StartRefused, match="'a' is significant, which means nothing under a dynamic supervisor"):
            await add(system, "a", "transient", significant=True)


@pytest.mark.parametrize(
    "options", [{"max_children": 0}, {"max_restarts": -1}, {"max_seconds": 0.0}, {"max_seconds": float("nan")}], ids=str
)
def test_options_that_make_no_sense_are_refused_before_anything_starts(options: dict[str, object]) -> None:
    with pytest.raises(BadSpec, match="max_"):
        DynamicSupervisor.spec(name="pool", **options)  # pyright: ignore[reportArgumentType]
