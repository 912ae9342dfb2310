"""What the head sees of a node: its tree, the exits in it, its log records; and supervisors that live in one."""

from __future__ import annotations

import asyncio
import logging

import pytest
from node_actors import Point, Team, Worker
from node_bench import Bench
from node_processes import until, until_call

from palmette.actors import Actor, ActorDied, Crashed, ExitRecord, Shutdown, TreeNode, endpoint
from palmette.supervisors import Backoff, ChildSpec, DynamicSupervisor, StartRefused, Supervisor, child

pytestmark = pytest.mark.asyncio(loop_scope="module")


def at(tree: TreeNode, path: str) -> TreeNode:
    """The node of ``tree`` at ``path``."""
    for part in path.strip("/").split("/"):
        [tree] = [child for child in tree.children if child.name == part]
    return tree


async def team(bench: Bench, *names: str, name: str = "team") -> str:
    """Start a team in a process of its own; its path."""
    spec = child(Team, names=list(names), name=name, isolation="process", restart="temporary")
    return (await bench.start(spec)).path


# --- trees -----------------------------------------------------------------------------------------------------------


async def test_the_full_tree_has_what_lives_in_the_nodes(bench: Bench) -> None:
    await team(bench, "a", "b")
    short = at(bench.system.tree(), "/more/team")
    assert short.children == ()
    full = at(await bench.system.full_tree(), "/more/team")
    assert [(node.path, node.kind, node.state) for node in full.children] == [
        ("/more/team/a", "Worker", "running"),
        ("/more/team/b", "Worker", "running"),
    ]
    assert full.pid == short.pid
    assert full.kind == "Team"
    assert at(await bench.system.full_tree(), "/there").kind == "Worker"


async def test_a_node_that_does_not_answer_is_shown_as_the_head_sees_it(bench: Bench) -> None:
    blocked = await bench.spare("blocked")
    call = asyncio.ensure_future(blocked.call(Worker.block, 60.0))
    await asyncio.sleep(0)
    tree = at(await bench.system.full_tree(timeout=0.05), "/more/blocked")
    assert tree.state == "running"
    blocked.kill()
    with pytest.raises(ActorDied):
        await call


async def test_actors_below_a_nodes_own_can_be_talked_to(bench: Bench) -> None:
    path = await team(bench, "a", "b")
    inner = bench.system.whereis(f"{path}/a", Worker)
    assert await inner.call(Worker.started_with) == ("a", None)
    assert await inner.call(Worker.pid) == bench.system.tree().children[-1].children[0].pid
    inner.cast(Worker.note, "cast")
    await bench.there.call(Worker.poke, inner, "from there")
    assert await inner.call(Worker.log) == ["cast", "cast from there", "send from there"]
    # … and they talk to each other, and to the others.
    assert (await inner.call(Worker.ask, bench.system.ref_at(f"{path}/b", Worker), "x"))[1].path == f"{path}/b"
    assert (await inner.call(Worker.ask, bench.yonder, "x"))[1] == bench.yonder


async def test_a_reference_into_a_node_outlives_its_actor(bench: Bench) -> None:
    path = await team(bench, "a")
    inner = bench.system.whereis(f"{path}/a", Worker)
    with pytest.raises(ActorDied, match="/more/team/a died: LookupError: x"):
        await inner.call(Worker.crash, "x")
    pid = await until_call(lambda: inner.call(Worker.pid), bool)
    # The whole node, now: the same reference finds the next one.
    await bench.more.call(DynamicSupervisor.terminate_child, "team")
    with pytest.raises(ActorDied, match="/more/team/a is not running"):
        await inner.call(Worker.pid)
    await team(bench, "a")
    assert await inner.call(Worker.pid) != pid


async def test_an_actor_below_a_nodes_own_is_monitored_and_linked(bench: Bench) -> None:
    path = await team(bench, "a", "b")
    a, b = (bench.system.ref_at(f"{path}/{name}", Worker) for name in "ab")
    await bench.here.call(Worker.watch, a)
    await bench.there.call(Worker.watch, b)
    with pytest.raises(ActorDied):
        await a.call(Worker.crash, "x")
    await until_call(lambda: bench.here.call(Worker.log), lambda log: f"down {path}/a Crashed" in log)
    await bench.more.call(DynamicSupervisor.terminate_child, "team")
    await until_call(lambda: bench.there.call(Worker.log), lambda log: f"down {path}/b Shutdown" in log)


# --- exits -----------------------------------------------------------------------------------------------------------


class Collector(Actor):
    """Keeps the exits that it is told of."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    async def receive(self, message: object) -> None:
        assert isinstance(message, ExitRecord)
        self.paths.append(message.path)

    @endpoint
    async def told(self) -> list[str]:
        return self.paths


async def test_exits_inside_a_node_are_news_in_the_head(bench: Bench) -> None:
    await bench.start(child(Collector, name="collector"))
    collector = bench.system.whereis("/more/collector", Collector)
    bench.system.watch_exits(collector)
    path = await team(bench, "a", name="newsworthy")
    before = bench.system.statistics()
    with pytest.raises(ActorDied):
        await bench.system.ref_at(f"{path}/a", Worker).call(Worker.crash, "inside")
    await until(lambda: bool(bench.system.why(f"{path}/a")))
    [record] = bench.system.why(f"{path}/a")
    assert (record.kind, record.incarnation) == ("Worker", 1)
    assert isinstance(record.reason, Crashed)
    assert record.reason.text == "inside"
    assert bench.system.statistics().crashes == before.crashes + 1
    await bench.more.call(DynamicSupervisor.terminate_child, "newsworthy")
    # The node's own actor ends once, though two processes know of it; and after what lived below it.
    assert [(record.path, record.reason) for record in bench.system.why(path)][1:] == [
        (f"{path}/a", Shutdown("")),
        (path, Shutdown("")),
    ]
    paths = [f"{path}/a", f"{path}/a", path]
    assert await until_call(lambda: collector.call(Collector.told), lambda told: len(told) >= 3) == paths


# --- logging ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("from_thread", [False, True])
async def test_warnings_logged_in_a_node_reach_the_logger_of_that_name(
    bench: Bench, caplog: pytest.LogCaptureFixture, from_thread: bool
) -> None:
    with caplog.at_level(logging.DEBUG, logger="tests.of.nodes"):
        await bench.there.call(Worker.warn, "100% full", from_thread)
        await until(lambda: bool(caplog.records))
    [record] = caplog.records
    assert record.name == "tests.of.nodes"
    assert record.levelno == logging.WARNING
    lines = record.getMessage().splitlines()
    assert lines[0] == "100% full, loudly"
    assert lines[-1] == "OSError: disk on fire"
    assert record.process == bench.system.tree().children[1].pid


async def test_a_logger_that_is_off_in_the_head_stays_quiet(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, logger="tests.of.nodes"):
        await bench.there.call(Worker.warn, "hush")
        await bench.there.call(Worker.pid)
    assert caplog.records == []


# --- child specs on the wire -----------------------------------------------------------------------------------------


def in_a_process(*children: ChildSpec[Actor]) -> ChildSpec[Supervisor]:
    return Supervisor.spec(
        name="sup", strategy="rest_for_one", children=children, isolation="process", restart="temporary"
    )


async def test_a_supervisor_and_its_specs_live_in_a_process(bench: Bench) -> None:
    spec = in_a_process(
        child(Worker, "first", point=Point(1, 2), name="w1", backoff=Backoff(min=0.01, max=0.02), shutdown="brutal"),
        Supervisor.spec(name="inner", children=[child(Worker, tag="deep", name="w2", rules={"OSError": "stop"})]),
        DynamicSupervisor.spec(name="dynamic", max_children=1),
    )
    sup = bench.system.ref_at((await bench.start(spec)).path, Supervisor)
    first = bench.system.whereis("/more/sup/w1", Worker)
    assert await first.call(Worker.started_with) == ("first", Point(1, 2))
    assert await bench.system.whereis("/more/sup/inner/w2", Worker).call(Worker.started_with) == ("deep", None)
    pids = {await ref.call(Worker.pid) for ref in (first, bench.system.whereis("/more/sup/inner/w2", Worker))}
    assert pids == {at(bench.system.tree(), "/more/sup").pid}
    # Administration works across the border, specs included.
    assert [info.name for info in await sup.call(Supervisor.which_children)] == ["w1", "inner", "dynamic"]
    added = await sup.call(Supervisor.start_child, child(Worker, tag="late", name="w3"))
    assert await bench.system.whereis(added, Worker).call(Worker.started_with) == ("late", None)
    dynamic = bench.system.whereis("/more/sup/dynamic", DynamicSupervisor)
    await dynamic.call(DynamicSupervisor.start_child, child(Worker, name="only"))
    with pytest.raises(StartRefused.__mro__[1], match="1 children; wait, or raise max_children"):
        await dynamic.call(DynamicSupervisor.start_child, child(Worker, name="too-many"))


async def test_a_supervisor_in_a_process_restarts_its_children_there(bench: Bench) -> None:
    await bench.start(in_a_process(child(Worker, tag="t", name="w")))
    worker = bench.system.whereis("/more/sup/w", Worker)
    pid = await worker.call(Worker.pid)
    with pytest.raises(ActorDied):
        await worker.call(Worker.crash, "x")
    assert await until_call(lambda: worker.call(Worker.pid), bool) == pid


async def test_a_spec_whose_argument_cannot_travel_is_named(bench: Bench) -> None:
    with pytest.raises(StartRefused, match="a Bench cannot cross to another process"):
        await bench.start(in_a_process(child(Worker, tag=bench, name="w")))


async def test_processes_below_a_process(bench: Bench) -> None:
    await bench.start(in_a_process(child(Worker, tag="nested", name="w", isolation="process")))
    worker = bench.system.whereis("/more/sup/w", Worker)
    assert await worker.call(Worker.started_with) == ("nested", None)
    tree = at(await bench.system.full_tree(), "/more/sup")
    assert tree.children[0].pid == await worker.call(Worker.pid) != tree.pid
    # Up through two links, and down through another.
    assert (await worker.call(Worker.ask, bench.yonder, "from the depths"))[1] == bench.yonder
    assert "from the depths" in await bench.yonder.call(Worker.log)
