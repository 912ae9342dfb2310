"""Real nodes that stop answering: a stopped one is lost within the loss time, a busy one is waited for."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from node_actors import Worker
from node_bench import Bench, bench_spec
from node_processes import is_alive, until, until_call

from palmette.actors import ActorDied, Heartbeat, Killed, System, Unreachable
from palmette.supervisors import child

pytestmark = pytest.mark.asyncio(loop_scope="module")

HEARTBEAT = Heartbeat(interval=0.1, loss=0.5)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_bench() -> AsyncIterator[Bench]:
    async with System.start(bench_spec(), heartbeat=HEARTBEAT) as system:
        yield Bench(system)


async def test_a_stopped_node_is_unreachable_and_fenced_and_its_child_starts_anew(bench: Bench) -> None:
    worker = await bench.start(child(Worker, tag="frozen", name="frozen", isolation="process"))
    pid = await worker.call(Worker.pid)
    await bench.here.call(Worker.watch, worker)
    await bench.here.call(Worker.tie, worker, trap=True)
    call = asyncio.ensure_future(worker.call(Worker.sleep, 60.0))
    await asyncio.sleep(0)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(ActorDied) as died:
        await asyncio.wait_for(call, 20)
    assert isinstance(died.value.reason, Unreachable)
    assert "silent for" in died.value.reason.detail
    assert not is_alive(pid), "one that was given up is killed before anybody takes its place"
    log = await until_call(lambda: bench.here.call(Worker.log), lambda log: len(log) >= 2)
    assert log.count("down /more/frozen Unreachable") == 1
    assert log.count("exit /more/frozen Unreachable") == 1
    await until(lambda: worker.is_alive() and bench.system.slots[worker.path].incarnation == 2)
    async with asyncio.timeout(20):
        assert await worker.call(Worker.pid) != pid


async def test_a_node_whose_handler_blocks_is_not_lost(bench: Bench) -> None:
    worker = await bench.spare("blocked")
    began = time.monotonic()
    await worker.call(Worker.block, 3 * HEARTBEAT.loss)
    assert time.monotonic() - began >= 3 * HEARTBEAT.loss
    assert bench.system.why("/more/blocked") == []


async def test_a_short_stop_is_no_loss(bench: Bench) -> None:
    worker = await bench.spare("dozing")
    pid = await worker.call(Worker.pid)
    os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(HEARTBEAT.interval)
    os.kill(pid, signal.SIGCONT)
    assert await worker.call(Worker.pid) == pid
    assert bench.system.why("/more/dozing") == []


async def test_nodes_wait_for_a_head_that_stands_still(bench: Bench) -> None:
    """A Ctrl-Z or a debugger in the head must not cost it its nodes."""
    worker = await bench.spare("patient")
    pid = await worker.call(Worker.pid)
    time.sleep(3 * HEARTBEAT.loss)  # noqa: ASYNC251 - that is the point
    await asyncio.sleep(2 * HEARTBEAT.interval)
    assert await worker.call(Worker.pid) == pid
    worker.kill()
    await until(lambda: not worker.is_alive())
    assert isinstance(bench.system.why("/more/patient")[-1].reason, Killed)
