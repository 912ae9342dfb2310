"""The administration calls of OTP's ``supervisor``, row by row: what each does in every state of a child."""

from __future__ import annotations

import asyncio

import pytest
from supervisors_support import Worker, at, crash, diary, finish, root_of, states, workers
from support.probes import Boom, Probe, actor_of
from support.worlds import everywhere, now, took, turns

from palmette.actors import Crashed, Killed, Shutdown, System
from palmette.supervisors import (
    Backoff,
    ChildCounts,
    ChildExists,
    DynamicSupervisor,
    NoSuchChild,
    Supervisor,
    child,
)
from palmette.supervisors.children import ChildState

LONG = Backoff(min=40, max=40, jitter=0)
STATES: tuple[ChildState, ...] = ("running", "restarting", "completed", "stopped", "declined", "undefined")
GONE = "gone"
REFUSED = "refused"

# The state of the child after the call; "gone" is one whose spec is not there any more, "refused" is ChildExists. For
# OTP: already_started, already_present, running, restarting; not_found for each of the calls but the first.
TABLE: dict[str, dict[ChildState, str]] = {
    "start_child": dict.fromkeys(STATES, REFUSED),
    "terminate_child": dict.fromkeys(STATES, "stopped"),
    "restart_child": {
        "running": REFUSED,
        "restarting": REFUSED,
        "completed": "running",
        "stopped": "running",
        "declined": "running",
        "undefined": "running",
    },
    "delete_child": {
        "running": REFUSED,
        "restarting": REFUSED,
        "completed": GONE,
        "stopped": GONE,
        "declined": GONE,
        "undefined": GONE,
    },
}


async def bring(system: System, state: ChildState) -> None:
    """Bring the child ``b`` into ``state``."""
    match state:
        case "running":
            pass
        case "restarting":
            await crash(system, "b")
        case "completed":
            await finish(system, "b")
        case "stopped":
            await root_of(system).call(Supervisor.terminate_child, "b")
        case "declined":
            await root_of(system).call(Supervisor.terminate_child, "b")
            Worker.decline["b"] = 1
            with pytest.raises(Exception, match="declined"):
                await root_of(system).call(Supervisor.restart_child, "b")
        case "undefined":
            await crash(system, "a")  # whose backoff keeps b down, too
    assert (await states(system))["b"] == state


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("call", TABLE)
@everywhere
async def test_what_a_call_does_to_a_child_in_a_state(call: str, state: ChildState) -> None:
    children = [*workers("a", backoff=LONG), *workers("b", "transient", backoff=LONG), *workers("c")]
    tree = Supervisor.spec(children=children, strategy="rest_for_one", max_restarts=100)
    async with System.start(tree) as system:
        await bring(system, state)
        before = await states(system)
        root, expected = root_of(system), TABLE[call][state]
        what = children[1] if call == "start_child" else "b"
        if expected == REFUSED:
            with pytest.raises(ChildExists, match=state):
                await root.call(getattr(Supervisor, call), what)
            assert await states(system) == before
            return
        await root.call(getattr(Supervisor, call), what)
        after = await states(system)
        assert after.get("b", GONE) == expected
        assert {name: is_now for name, is_now in after.items() if name == "a"} == {"a": before["a"]}
        if call == "terminate_child":
            await root.call(Supervisor.terminate_child, "b")  # idempotent
            await asyncio.sleep(50)
            assert await states(system) == {"a": "running", "b": "stopped", "c": "running"}


@everywhere
async def test_one_child_can_be_asked_for_with_its_spec_in_every_kind_of_supervisor() -> None:
    [spec] = workers("a", "transient")
    async with System.start(Supervisor.spec(children=[spec, DynamicSupervisor.spec(name="d")])) as system:
        root, pool = root_of(system), system.whereis("d", DynamicSupervisor)
        assert await root.call(Supervisor.get_childspec, "a") == spec
        assert (await root.call(Supervisor.get_childspec, "d")).shutdown == "infinity"
        assert (await root.call(Supervisor.get_childspec, "a")).shutdown == 5.0
        await root.call(Supervisor.terminate_child, "a")
        assert (await root.call(Supervisor.which_child, "a")).state == "stopped"
        await pool.call(DynamicSupervisor.start_child, spec)
        assert await pool.call(DynamicSupervisor.get_childspec, "a") == spec
        assert (await pool.call(DynamicSupervisor.which_child, "a")).path == "/d/a"
        with pytest.raises(NoSuchChild, match="/ has no child 'x'; it has: a, d"):
            await root.call(Supervisor.get_childspec, "x")
        with pytest.raises(NoSuchChild, match="/d has no child 'x'; it has: a"):
            await pool.call(DynamicSupervisor.which_child, "x")


@everywhere
async def test_only_what_runs_is_active_and_every_spec_is_counted() -> None:
    inner = Supervisor.spec(name="s", restart="transient")
    children = [*workers("a", backoff=LONG), *workers("b", "transient"), *workers("cd"), inner]
    Worker.decline["d"] = 1
    async with System.start(Supervisor.spec(children=children)) as system:
        await crash(system, "a")
        await finish(system, "b")
        await root_of(system).call(Supervisor.terminate_child, "s")
        assert await root_of(system).call(Supervisor.count_children) == ChildCounts(
            specs=5, active=1, supervisors=1, workers=4
        )
        pool = DynamicSupervisor.spec(name="p")
        await root_of(system).call(Supervisor.start_child, pool)
        await system.whereis("p", DynamicSupervisor).call(
            DynamicSupervisor.start_child, child(Worker, name="a", backoff=LONG)
        )
        system.ref_at("/p/a", Worker).kill()
        await turns(200)
        assert await system.whereis("p", DynamicSupervisor).call(DynamicSupervisor.count_children) == ChildCounts(
            specs=1, active=0, supervisors=0, workers=1
        )


# --- stopping ------------------------------------------------------------------------------------------------------


class SlowStop(Probe):
    """Takes two seconds to end."""

    async def stopping(self, reason: object) -> None:
        await asyncio.sleep(2)


@everywhere
async def test_static_children_stop_one_after_the_other_and_each_has_its_own_time() -> None:
    children = [child(SlowStop, name=name) for name in "abcd"]
    async with System.start(Supervisor.spec(children=children)):
        begun = now()
    assert took(8, since=begun)


@everywhere
async def test_a_child_that_dies_while_its_supervisor_stops_is_not_started_again() -> None:
    children = [*workers("a"), *workers("b"), child(SlowStop, name="slow")]
    async with System.start(Supervisor.spec(children=children, max_restarts=0)) as system:
        stopping = asyncio.create_task(root_of(system).stop())
        await asyncio.sleep(1)
        at(system, "a").kill()
        await stopping
        assert system.slots["/"].last_exit == Shutdown()
    assert diary() == "+a +b -b"


@everywhere
async def test_a_child_that_fails_to_stop_in_order_is_recorded_and_hurts_nobody() -> None:
    class Broken(Probe):
        async def stopping(self, reason: object) -> None:
            raise Boom("cannot stop")

    async with System.start(Supervisor.spec(children=[child(Broken, name="it"), *workers("a")])) as system:
        await root_of(system).call(Supervisor.terminate_child, "it")
        assert isinstance(system.why("/it")[-1].reason, Crashed)
        assert await states(system) == {"it": "stopped", "a": "running"}
        assert root_of(system).incarnation == 1


@everywhere
async def test_a_supervisor_outlives_strangers_that_are_linked_to_it() -> None:
    async with System.start(Supervisor.spec(children=[child(Probe, name="it", restart="temporary")])) as system:
        stranger = system.whereis("it", Probe)
        root = root_of(system)
        await stranger.call(Probe.do, lambda actor: actor.link(root))
        stranger.kill()
        await turns(200)
        assert system.why("/it")[-1].reason == Killed()
        assert await states(system) == {}
        assert root.incarnation == 1
        root.send("a stray message")
        assert await states(system) == {}


@everywhere
async def test_requests_wait_while_a_child_starts_and_are_answered_afterwards() -> None:
    Worker.slow["b"] = 10
    async with System.start(Supervisor.spec(children=workers("a"))) as system:
        starting = asyncio.create_task(root_of(system).call(Supervisor.start_child, workers("b")[0]))
        await turns()
        assert await states(system) == {"a": "running", "b": "running"}
        assert took(10)
        assert await starting == "/b"
        assert actor_of(at(system, "b")).path == "/b"
