"""What the kernel does with an actor on its system lane, it does in another process too, as far as that can be."""

from __future__ import annotations

import asyncio

import pytest
from node_actors import Worker
from node_bench import Bench
from node_processes import is_alive, until_call

from palmette.actors import ActorDied, Draining, NodeError, Normal, Shutdown

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_state_of_an_actor_in_a_node_is_seen_while_it_is_busy(bench: Bench) -> None:
    worker = await bench.spare("seen")
    busy = asyncio.ensure_future(worker.call(Worker.sleep, 60.0))
    state = await worker.state()
    assert (state.path, state.kind, state.incarnation, state.state) == ("/more/seen", "Worker", 1, "running")
    assert state.value == {"tag": "'seen'", "point": "None", "seen": "[]"}
    worker.kill()
    with pytest.raises(ActorDied):
        await busy
    with pytest.raises(ActorDied):
        await worker.state()


async def test_a_function_does_not_cross_and_the_error_names_the_remedy(bench: Bench) -> None:
    with pytest.raises(NodeError, match="/there lives in another process; a function does not cross; give the actor"):
        await bench.there.replace_state(lambda _: {"tag": "x"})


async def test_a_drained_process_finishes_what_it_has_and_refuses_what_comes(bench: Bench) -> None:
    worker = await bench.spare("drained")
    pid = await worker.call(Worker.pid)
    first = asyncio.ensure_future(worker.call(Worker.sleep, 0.2))
    second = asyncio.ensure_future(worker.call(Worker.pid))
    await asyncio.sleep(0)
    drain = asyncio.ensure_future(worker.drain())
    await until_call(worker.state, lambda state: state.state == "draining")
    with pytest.raises(Draining, match="/more/drained finishes what it has"):
        await worker.call(Worker.pid)
    assert await drain
    assert (await first, await second) == ("late", pid)
    assert not is_alive(pid)
    assert bench.system.why("/more/drained")[-1].reason == Shutdown("drained")


async def test_a_process_that_is_not_drained_in_time_is_killed(bench: Bench) -> None:
    worker = await bench.spare("hanging")
    busy = asyncio.ensure_future(worker.call(Worker.sleep, 60.0))
    await asyncio.sleep(0)
    await worker.state()  # the answer leaves after the handler has begun
    assert not await worker.drain(timeout=0.1, shutdown=0.1)
    with pytest.raises(ActorDied):
        await busy


async def test_who_stops_a_process_with_a_reason_learns_that_it_was_another(bench: Bench) -> None:
    worker = await bench.spare("stopped")
    busy = asyncio.ensure_future(worker.call(Worker.sleep, 0.2))
    await asyncio.sleep(0)
    await worker.state()  # the answer leaves after the handler has begun
    first = asyncio.ensure_future(worker.stop(Shutdown("first")))
    await asyncio.sleep(0)
    with pytest.raises(ActorDied, match=r"shutdown \(first\)"):
        await worker.stop(Normal())
    await first
    assert await busy == "late"
