"""Whatever happens at whatever moment: nobody lives twice, nobody is forgotten, nothing hangs, nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.probes import Boom
from support.worlds import here

from palmette.actors import (
    Actor,
    Normal,
    PalmetteError,
    Reason,
    System,
    deadline,
    endpoint,
)
from palmette.actors.cell import Cell
from palmette.supervisors import Backoff, ChildSpec, DynamicSupervisor, Supervisor, child
from palmette.supervisors.policy import Restart
from palmette.supervisors.supervisor import Strategy

NAMES = "abc"


class Patient(Actor):
    """Takes its time to start and to stop, and counts how many of it are alive."""

    alive: ClassVar[Counter[str]] = Counter()
    fail: ClassVar[Counter[str]] = Counter()
    twice: ClassVar[list[str]] = []
    """Addresses at which two incarnations were seen."""
    last: ClassVar[dict[str, Cell]] = {}

    def __init__(self, start: float, stop: float) -> None:
        self.start, self.stop_time = start, stop
        self.alive[self.path] += 1
        before, self.last[self.path] = self.last.get(self.path), self._cell
        if before is not None and before.state != "dead":
            self.twice.append(self.path)
        self._cell.ended().add_done_callback(self._gone)

    def _gone(self, _: asyncio.Future[Reason]) -> None:
        self.alive[self.path] -= 1

    async def started(self) -> None:
        await asyncio.sleep(self.start)
        if self.fail[self.path]:
            self.fail[self.path] -= 1
            raise Boom("no start")

    async def stopping(self, reason: Reason) -> None:
        await asyncio.sleep(self.stop_time)

    @endpoint
    async def crash(self) -> None:
        raise Boom("crash")

    @endpoint
    async def leave(self) -> None:
        self.stop(Normal())

    @endpoint
    async def work(self) -> None:
        await asyncio.sleep(3)


names = st.sampled_from(NAMES)
moments = st.sampled_from([0.0, 0.0, 0.5, 1.0, 1.0, 2.0, 5.0])
events = st.lists(
    st.tuples(
        moments,
        st.sampled_from(
            ["crash", "leave", "work", "kill", "fail", "terminate", "restart", "delete", "add", "kill supervisor"]
        ),
        names,
    ),
    max_size=25,
)
patience = st.sampled_from([0.0, 0.0, 1.0, 3.0])


def specs(restarts: list[Restart], waits: list[float], backoff: Backoff | None) -> list[ChildSpec[Patient]]:
    return [
        child(Patient, start, stop, name=name, restart=restart, shutdown=2, backoff=backoff, start_timeout=2)
        for name, restart, start, stop in zip(NAMES, restarts, waits, reversed(waits), strict=True)
    ]


@pytest.mark.worlds("simulated", drawn=True, why="lives for minutes")
@settings(max_examples=150)
@given(
    seed=st.integers(0, 1_000_000),
    strategy=st.sampled_from(["one_for_one", "one_for_all", "rest_for_one", "dynamic"]),
    restarts=st.lists(st.sampled_from(["permanent", "transient", "temporary"]), min_size=3, max_size=3),
    waits=st.lists(st.sampled_from([0.0, 0.0, 0.5, 1.0]), min_size=3, max_size=3),
    backoff=st.none() | st.just(Backoff(min=1, max=4)),
    schedule=events,
    end=st.none() | st.floats(0, 10),
)
def test_a_tree_keeps_its_promises_under_any_schedule(
    seed: int,
    strategy: Strategy | str,
    restarts: list[Restart],
    waits: list[float],
    backoff: Backoff | None,
    schedule: list[tuple[float, str, str]],
    end: float | None,
) -> None:
    Patient.alive.clear()
    Patient.fail.clear()
    Patient.twice.clear()
    Patient.last.clear()
    children = specs(restarts, waits, backoff)
    if strategy == "dynamic":
        inner: ChildSpec[Actor] = DynamicSupervisor.spec(name="inner", max_restarts=50)
    else:
        inner = Supervisor.spec(name="inner", strategy=strategy, max_restarts=50, children=children)  # pyright: ignore[reportArgumentType]
    tree = Supervisor.spec(children=[inner], max_restarts=50)

    async def live() -> System:
        async with System.start(tree) as system:
            work = [asyncio.create_task(perform(system, *event, children)) for event in dated(schedule)]
            try:
                await asyncio.gather(*work)
                await asyncio.sleep(200)
                await check_rest(system, undefined_is_fine=backoff is None)
            finally:
                for task in work:
                    task.cancel()
                await asyncio.wait([asyncio.create_task(asyncio.sleep(0)), *work])
        return system

    @here(seed=seed)
    async def check() -> None:
        life = asyncio.create_task(live())
        if end is not None:
            await asyncio.sleep(end)
            life.cancel()  # from outside, at any moment
        with contextlib.suppress(asyncio.CancelledError):
            system = await life
            assert system.statistics().actors == 0
            assert set(system.slots) == {"/", "/system/registry"}
        assert not +Patient.alive
        assert not Patient.twice

    check()


def dated(schedule: list[tuple[float, str, str]]) -> list[tuple[float, str, str]]:
    """Gaps as times."""
    now = 0.0
    found: list[tuple[float, str, str]] = []
    for gap, what, name in schedule:
        now += gap
        found.append((now, what, name))
    return found


async def perform(system: System, when: float, what: str, name: str, children: list[ChildSpec[Patient]]) -> None:
    await asyncio.sleep(when)
    ref = system.ref_at(f"/inner/{name}", Patient)
    with contextlib.suppress(PalmetteError), deadline(60):
        match what:
            case "crash" | "leave" | "work":
                ref.cast(getattr(Patient, what))
            case "kill":
                ref.kill("chaos")
            case "fail":
                Patient.fail[ref.path] += 1
            case "kill supervisor":
                system.ref_at("/inner", Actor).kill("chaos")
            case _:
                await administrate(system, what, name, children)


async def administrate(system: System, what: str, name: str, children: list[ChildSpec[Patient]]) -> None:
    spec = next(spec for spec in children if spec.name == name)
    static = system.ref_at("/inner", Supervisor)
    dynamic = system.ref_at("/inner", DynamicSupervisor)
    is_static = system.tree().children[0].kind == "Supervisor"
    match what:
        case "terminate" if is_static:
            await static.call(Supervisor.terminate_child, name)
        case "terminate":
            await dynamic.call(DynamicSupervisor.terminate_child, name)
        case "restart" if is_static:
            await static.call(Supervisor.restart_child, name)
        case "delete" if is_static:
            await static.call(Supervisor.delete_child, name)
        case "add" if is_static:
            await static.call(Supervisor.start_child, spec)
        case _:
            await dynamic.call(DynamicSupervisor.start_child, spec)


async def check_rest(system: System, *, undefined_is_fine: bool) -> None:
    """After a long calm: whoever is to run runs, and nobody is still waiting for anything.

    Without a backoff, a group whose failing member is terminated between two attempts stays down, as in OTP.
    """
    inner = await system.wait_for("/inner", Actor)
    is_static = system.tree().children[0].kind == "Supervisor"
    which = Supervisor.which_children if is_static else DynamicSupervisor.which_children
    for info in await inner.call(which):  # pyright: ignore[reportArgumentType]
        assert info.state in ("running", "stopped", "completed") or (undefined_is_fine and info.state == "undefined"), (
            info
        )
        assert system.ref_at(info.path, Patient).is_alive() == (info.state == "running"), info
    assert system.statistics().zombies == 0
