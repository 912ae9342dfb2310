"""Messages between processes: calls, casts and sends, in all directions, with the types that endpoints declare."""

from __future__ import annotations

import datetime
import os

import msgspec
import pytest
from node_actors import Early, Plain, Point, Unwilling, Worker
from node_bench import Bench
from node_processes import until_call

from palmette.actors import BadCall, DeadlineExceeded, NodeError, deadline
from palmette.supervisors import DynamicSupervisor, child

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_actors_live_in_three_processes(bench: Bench) -> None:
    pids = [await ref.call(Worker.pid) for ref in (bench.here, bench.there, bench.yonder)]
    assert pids[0] == os.getpid()
    assert len(set(pids)) == 3


async def test_structs_arrive_as_the_classes_that_the_endpoint_declares(bench: Bench) -> None:
    assert await bench.there.call(Worker.mirror, Point(1, 2), times=2) == [Point(1, 2), Point(1, 2)]


async def test_plain_data_crosses_unharmed(bench: Bench) -> None:
    plain = Plain(
        at=datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=datetime.UTC),
        points=(Point(1), Point(2)),
        names=frozenset({"a", "ä"}),
        by_id={7: Point(-1), 8: None},
        blob=bytes(range(256)),
    )
    assert await bench.there.call(Worker.plain, plain) == plain
    assert await bench.there.call(Worker.anything, {"a": [1, 2.5, None, "x", b"y"]}) == {"a": [1, 2.5, None, "x", b"y"]}


async def test_arguments_of_init_cross_too(bench: Bench) -> None:
    spec = child(Worker, tag="t", point=Point(3, 4), name="with-point", isolation="process", restart="temporary")
    worker = await bench.start(spec)
    assert await worker.call(Worker.started_with) == ("t", Point(3, 4))


async def test_arguments_of_the_wrong_type_are_refused_and_harm_nobody(bench: Bench) -> None:
    with pytest.raises(BadCall, match=r"Worker\.mirror: Expected `int`, got `str` - at `\$\.times`"):
        await bench.there.call(Worker.mirror, Point(1), times="many")  # pyright: ignore[reportArgumentType]
    with pytest.raises(BadCall, match=r"Worker\.mirror.*unexpected keyword argument 'colour'"):
        await bench.there.call(Worker.mirror, Point(1), colour=1)  # pyright: ignore[reportCallIssue]
    with pytest.raises(BadCall, match="missing a required argument: 'point'"):
        await bench.there.call(Worker.mirror)  # pyright: ignore[reportCallIssue]


async def test_a_cast_that_does_not_fit_becomes_a_dead_letter_and_the_connection_stands(bench: Bench) -> None:
    bench.there.cast(Worker.mirror, Point(1), times="many")  # pyright: ignore[reportArgumentType]
    assert await bench.there.call(Worker.mirror, Point(1)) == [Point(1)]


async def test_what_cannot_travel_is_named_before_it_leaves(bench: Bench) -> None:
    with pytest.raises(NodeError, match="a Bench cannot cross to another process"):
        await bench.there.call(Worker.anything, [bench])
    with pytest.raises(NodeError, match="a function cannot cross"):
        bench.there.cast(Worker.anything, until_call)
    with pytest.raises(NodeError, match="only a Struct can be sent to another process, not a str"):
        bench.there.send("hello")
    with pytest.raises(NodeError, match=r"Worker\.spread takes \*numbers: only named parameters"):
        await bench.there.call(Worker.spread, 1, 2)


async def test_a_message_class_that_others_cannot_import_is_named(bench: Bench) -> None:
    class Local(msgspec.Struct):
        pass

    with pytest.raises(NodeError, match="Local cannot be imported by another process; define it at the top"):
        bench.there.send(Local())


async def test_types_that_only_type_checkers_see_are_named(bench: Bench) -> None:
    with pytest.raises(NodeError, match=r"Worker\.price: name 'Decimal' is not defined; .* importable at run time"):
        await bench.there.call(Worker.price, 1)  # pyright: ignore[reportArgumentType]


async def test_a_result_that_cannot_travel_fails_the_call_and_not_the_actor(bench: Bench) -> None:
    with pytest.raises(NodeError, match=r"/there: the result of Worker\.unsendable: a Worker cannot cross"):
        await bench.there.call(Worker.unsendable)
    assert bench.there.incarnation == 1


async def test_a_result_of_another_type_than_declared_is_named(bench: Bench) -> None:
    with pytest.raises(NodeError, match=r"/there: Worker\.lies replied with something else.*Expected `int`"):
        await bench.there.call(Worker.lies)


async def test_a_refusal_keeps_its_class_and_text(bench: Bench) -> None:
    with pytest.raises(Unwilling, match="not today"):
        await bench.there.call(Worker.refuse)


async def test_an_unknown_endpoint_is_refused(bench: Bench) -> None:
    with pytest.raises(BadCall, match=r"/there has no endpoint 'start_child'; it has: .*anything"):
        await bench.system.ref_at("/there", DynamicSupervisor).call(DynamicSupervisor.start_child, None)  # pyright: ignore


async def test_an_actor_in_a_node_calls_the_head(bench: Bench) -> None:
    pid, back = await bench.there.call(Worker.ask, bench.here, "from there")
    assert pid == os.getpid()
    assert back == bench.here
    assert "from there" in await bench.here.call(Worker.log)


async def test_an_actor_in_a_node_calls_another_node_through_the_head(bench: Bench) -> None:
    pid, back = await bench.there.call(Worker.ask, bench.yonder, "hop")
    assert pid == await bench.yonder.call(Worker.pid)
    assert back == bench.yonder
    assert "hop" in await back.call(Worker.log)


async def test_an_actor_that_calls_itself_by_way_of_the_head_gets_an_answer(bench: Bench) -> None:
    me = await bench.there.call(Worker.me)
    assert me == bench.there
    assert await me.call(Worker.pid) == await bench.there.call(Worker.pid)


@pytest.mark.parametrize("target", ["here", "yonder"])
async def test_casts_and_sends_leave_a_node_in_order(bench: Bench, target: str) -> None:
    other = bench.system.whereis(target, Worker)
    for number in range(20):
        await bench.there.call(Worker.poke, other, f"{target}{number}")
    expected = [f"{kind} {target}{number}" for number in range(20) for kind in ("cast", "send")]

    async def seen(worker: str) -> list[str]:
        log = await bench.system.whereis(worker, Worker).call(Worker.log)
        return [line for line in log if target in line and line.startswith(("cast", "send"))]

    assert await seen(target) == expected
    # … and each send was answered.
    answers = [f"send {target}{number}, from {target}" for number in range(20)]
    assert await seen("there") == answers


async def test_messages_for_an_actor_that_is_still_starting_wait_for_it(bench: Bench) -> None:
    early = await bench.start(child(Early, bench.here, name="early", isolation="process", restart="temporary"))
    assert await until_call(lambda: early.call(Worker.log), bool) == ["hello, from here"]


async def test_a_name_is_found_from_a_node(bench: Bench) -> None:
    assert await bench.there.call(Worker.find, "yonder") == bench.yonder
    assert await bench.there.call(Worker.find, "nobody") is None


async def test_a_call_to_nobody_fails_at_once_from_a_node_too(bench: Bench) -> None:
    nobody = bench.system.ref_at("/not/yet", Worker)
    assert await bench.there.call(Worker.attempt, nobody) == "ActorDied: /not/yet is not running"


async def test_a_deadline_is_kept_across_two_links(bench: Bench) -> None:
    answer = await bench.there.call(Worker.attempt, bench.yonder, seconds=0.05, takes=0.2)
    assert answer == "DeadlineExceeded: /yonder did not answer sleep in time"


async def test_deadlines_travel_as_time_that_is_left(bench: Bench) -> None:
    with deadline(50.0):
        left = await bench.there.call(Worker.patience)
        assert 0 < left <= 50.0
        through_two = await bench.there.call(Worker.ask_in_time, bench.yonder, 20.0)
        assert 0 < through_two <= 20.0


async def test_a_call_that_takes_too_long_ends_and_its_late_reply_is_dropped(bench: Bench) -> None:
    with deadline(0.05), pytest.raises(DeadlineExceeded, match="/there did not answer sleep in time"):
        await bench.there.call(Worker.sleep, 0.2)
    # The same actor, the next call: the late answer did not get in its way.
    assert await bench.there.call(Worker.pid) != os.getpid()
    assert "slept" in await bench.there.call(Worker.log)
