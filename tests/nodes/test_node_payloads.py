"""Large messages, and more messages than the other side takes in."""

from __future__ import annotations

import asyncio

import pytest
from node_actors import Worker
from node_bench import Bench
from node_processes import until

from palmette.actors import ActorDied, MailboxFull, NodeError, codec, deadline
from palmette.actors.link import HIGH_WATER
from palmette.actors.nodes import Hosted
from palmette.supervisors import child

pytestmark = pytest.mark.asyncio(loop_scope="module")

LARGE = bytes(range(256)) * (64 << 12)  # 64 MiB


def hosted(bench: Bench, path: str) -> Hosted:
    target = bench.system.slots[path].target
    assert isinstance(target, Hosted)
    return target


async def test_64_mib_cross_both_ways_at_once_and_small_messages_get_through(bench: Bench) -> None:
    large = [asyncio.ensure_future(worker.call(Worker.blob, LARGE)) for worker in (bench.there, bench.yonder)]
    small = 0
    while not all(task.done() for task in large):
        await bench.here.call(Worker.pid)
        assert await bench.there.call(Worker.pid)
        small += 1
    assert [task.result() == LARGE for task in large] == [True, True]
    assert small >= 1


async def test_large_messages_that_cross_each_other_do_not_wait_for_each_other(bench: Bench) -> None:
    # Both ends write more than the kernel buffers before either has read: Thespian's own transport stops here.
    echoes = [bench.there.call(Worker.blob, LARGE[: 8 << 20]) for _ in range(4)]
    with deadline(60.0):
        for echo in await asyncio.gather(*echoes):
            assert echo == LARGE[: 8 << 20]


async def test_a_message_beyond_the_limit_is_refused_where_it_is_made(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "MAX_MESSAGE", 1000)
    with pytest.raises(NodeError, match="bytes on the wire, and 1000 may cross at once; pass a file's name"):
        await bench.there.call(Worker.blob, bytes(1000))
    assert await bench.there.call(Worker.blob, bytes(900)) == bytes(900)


async def test_casts_are_refused_while_a_node_does_not_take_them_in(bench: Bench) -> None:
    worker = await bench.spare("deaf")
    blocked = asyncio.ensure_future(worker.call(Worker.block, 60.0))
    await asyncio.sleep(0)
    for _ in range(HIGH_WATER // 100_000 + 1):
        worker.cast(Worker.note, "x" * 100_000)  # all in one turn of the loop
    with pytest.raises(MailboxFull, match="the link to /more/deaf is congested; slow down"):
        worker.cast(Worker.note, "one more")
    # Calls are bounded by their callers; they wait. Others are not concerned.
    waiting = asyncio.ensure_future(worker.call(Worker.pid))
    assert await bench.there.call(Worker.pid)
    bench.there.cast(Worker.note, "fine")
    worker.kill()
    for call in (blocked, waiting):
        with pytest.raises(ActorDied):
            await call


async def test_casts_that_the_head_relays_to_a_deaf_node_become_dead_letters(bench: Bench) -> None:
    worker = await bench.spare("deaf")
    blocked = asyncio.ensure_future(worker.call(Worker.block, 60.0))
    before = bench.system.statistics().dead_letters
    await bench.there.call(Worker.flood, worker, 30)
    await until(lambda: bench.system.statistics().dead_letters > before)
    assert any(letter.path == "/more/deaf" for letter in bench.system.dead_letters)
    assert hosted(bench, "/more/deaf").link.is_congested()
    worker.kill()
    with pytest.raises(ActorDied):
        await blocked


async def test_a_bounded_mailbox_is_bounded_in_a_node_too(bench: Bench) -> None:
    spec = child(Worker, name="small", isolation="process", restart="temporary", mailbox=2, overflow="reject")
    worker = await bench.start(spec)
    busy = asyncio.ensure_future(worker.call(Worker.sleep, 0.2))
    calls = [asyncio.ensure_future(worker.call(Worker.pid)) for _ in range(5)]
    await asyncio.sleep(0)  # they are on their way before the casts
    for _ in range(5):
        worker.cast(Worker.note, "x")
    results: list[object] = [*await asyncio.gather(busy, *calls, return_exceptions=True)]
    # Two found room at most; the others were refused, and so were the casts: nobody is told, and nothing dies of it.
    assert sum(isinstance(result, MailboxFull) for result in results) in (3, 4)
    assert await worker.call(Worker.log) == ["slept"]
