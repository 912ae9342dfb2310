"""A tree over three hosts, which are killed, cut off and brought back while it runs."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
from lab_actors import Asker, Settler, Talker
from support.hosts import LOSS, Lab, running_lab

from palmette.actors import Actor, ActorDied, Ref, System
from palmette.actors.cluster.authority import create
from palmette.actors.cluster.channel import Address
from palmette.actors.cluster.errors import Unreached
from palmette.actors.cluster.head import Head
from palmette.actors.cluster.needs import Needs, needs
from palmette.actors.cluster.records import ClusterRow, MemberRow
from palmette.actors.cluster.visit import visit
from palmette.supervisors import Backoff, DynamicSupervisor, Supervisor, child
from palmette.supervisors.spec import ChildSpec

T = TypeVar("T")

PATIENCE = 60.0


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with running_lab({"a": (), "b": ("gpu=2", "zone=eu"), "c": ("gpu=2",)}) as lab:
        yield lab


@pytest.fixture(autouse=True)
def _all_up(lab: Lab) -> Iterator[None]:
    yield
    for node in lab.nodes.values():
        if not node.is_up():
            node.start()
            node.wait_up()


def settler(name: str, on: Needs) -> ChildSpec[Settler]:
    return child(Settler, name=name, on=on, backoff=Backoff(min=0.05, max=0.5), rules={"retryable": "backoff"})


@asynccontextmanager
async def program(lab: Lab, *children: ChildSpec[Actor]) -> AsyncGenerator[System]:
    tree = Supervisor.spec(children=children, max_restarts=50, max_seconds=5.0)
    async with System.start(tree, cluster=lab.head) as system:
        yield system


async def cluster(lab: Lab) -> ClusterRow:
    return await visit(Address.parse(lab.head), Head, lambda head: head.call(Head.cluster))


async def member(lab: Lab, name: str) -> MemberRow:
    return next(row for row in (await cluster(lab)).members if row.name == name)


async def until(true: Callable[[], object], seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about in time"
        await asyncio.sleep(0.01)


async def eventually(ask: Callable[[], Awaitable[T]], right: Callable[[T], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not right(seen := await ask()):
        assert time.monotonic() < end, f"it is still {seen}"
        await asyncio.sleep(0.02)


async def waits(lab: Lab) -> tuple[str, ...]:
    return (await cluster(lab)).waiting


def host_of(lab: Lab, pid: int) -> str:
    return next(name for name, node in lab.nodes.items() if pid in [process.pid for process in node.processes()])


async def answer(ref: Ref[Settler], *, other_than: int = 0) -> int:
    """The process that the actor lives in, once that is another one."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if (pid := await ref.call(Settler.pid)) != other_than:
                return pid
        except ActorDied:
            pass
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


async def test_a_tree_spreads_over_the_hosts_and_all_of_it_is_one_tree(lab: Lab) -> None:
    async with program(
        lab,
        settler("one", needs()),
        settler("two", needs()),
        settler("three", needs()),
        child(Asker, "three", name="asker"),
    ) as s:
        pids = [await s.whereis(name, Settler).call(Settler.pid) for name in ("one", "two", "three")]
        assert sorted(host_of(lab, pid) for pid in pids) == ["a", "b", "c"]
        assert await s.whereis("asker", Asker).call(Asker.ask) == pids[2]
        rows = (await cluster(lab)).members
        assert sorted(lease.path for row in rows for lease in row.leases) == ["/one", "/three", "/two"]
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert not any(row.leases for row in (await cluster(lab)).members)


async def test_two_children_never_have_one_gpu_and_none_sees_what_it_has_not_got(lab: Lab) -> None:
    names = ("g1", "g2", "g3", "g4")
    async with program(
        lab, *[settler(name, needs(gpu=1)) for name in names], settler("none", needs(zone="eu"))
    ) as system:
        seen = [
            (host_of(lab, await ref.call(Settler.pid)), await ref.call(Settler.devices))
            for ref in (system.whereis(name, Settler) for name in names)
        ]
        assert sorted(seen, key=str) == [("b", "0"), ("b", "1"), ("c", "0"), ("c", "1")]
        assert await system.whereis("none", Settler).call(Settler.devices) == ""


async def test_a_killed_process_is_noticed_at_once_and_its_successor_keeps_name_and_callers(lab: Lab) -> None:
    asker = child(Asker, "it", name="asker", on=needs(node="a"))
    async with program(lab, settler("it", needs(node="b")), asker) as system:
        ref, asking = system.whereis("it", Settler), system.whereis("asker", Asker)
        pid = await ref.call(Settler.pid)
        os.kill(pid, signal.SIGKILL)
        assert host_of(lab, await answer(ref, other_than=pid)) == "b"
        assert await asking.call(Asker.ask) == await system.whereis("it", Settler).call(Settler.pid)


async def test_a_killed_hosts_children_move_to_another_and_their_callers_go_on(lab: Lab) -> None:
    asker = child(Asker, "it", name="asker", on=needs(node="a"))
    async with program(lab, settler("it", needs(gpu=1)), asker) as system:
        ref = system.whereis("it", Settler)
        pid = await ref.call(Settler.pid)
        host = host_of(lab, pid)
        lab.nodes[host].kill()
        moved = await answer(ref, other_than=pid)
        assert host_of(lab, moved) == {"b": "c", "c": "b"}[host]
        assert await system.whereis("asker", Asker).call(Asker.ask) == moved
        assert (await member(lab, host)).state == "lost"
        lab.nodes[host].start()
        lab.nodes[host].wait_up()
        assert (await member(lab, host)).state == "up"


async def test_what_runs_does_not_notice_that_the_head_is_killed(lab: Lab) -> None:
    async with program(lab, settler("it", needs(gpu=1, node="b"))) as system:
        ref = system.whereis("it", Settler)
        pid = await ref.call(Settler.pid)
        head = (await cluster(lab)).pid
        os.kill(head, signal.SIGKILL)
        assert await ref.call(Settler.add) == 1
        # Its successor knows who is there, and what is taken.
        await eventually(lambda: leases_of_new_head(lab, head), lambda leases: leases == ["/it"])
        os.kill(pid, signal.SIGKILL)
        await answer(ref, other_than=pid)
        assert await ref.call(Settler.add) == 1


async def leases_of_new_head(lab: Lab, old: int) -> list[str] | None:
    try:
        row = await cluster(lab)
    except Unreached:
        return None
    everybody = [member.state for member in row.members] == ["up"] * 3
    return [lease.path for m in row.members for lease in m.leases] if row.pid != old and everybody else None


async def test_a_host_that_is_cut_off_ends_its_children_itself_and_comes_back_as_new(lab: Lab) -> None:
    async with program(lab, settler("it", needs(gpu=1))) as system:
        ref = system.whereis("it", Settler)
        pid = await ref.call(Settler.pid)
        host = host_of(lab, pid)
        cut = lab.index(host)
        lab.network.cut(cut)
        try:
            moved = await answer(ref, other_than=pid)
            # Two of them never lived at the same time.
            assert not psutil.pid_exists(pid)
            assert host_of(lab, moved) != host
            assert (await member(lab, host)).state == "lost"
        finally:
            lab.network.mend(cut)
        await eventually(lambda: member(lab, host), lambda row: row.state == "up")
        assert await ref.call(Settler.pid) == moved


async def test_a_child_that_blocks_for_longer_than_the_lease_is_not_lost(lab: Lab) -> None:
    async with program(lab, settler("it", needs(node="c"))) as system:
        ref = system.whereis("it", Settler)
        pid = await ref.call(Settler.pid)
        await ref.call(Settler.block, 2 * LOSS)
        assert await ref.call(Settler.pid) == pid


async def test_a_drained_member_gets_nothing_new_and_what_it_has_can_be_moved(lab: Lab) -> None:
    async with program(lab, settler("it", needs(gpu=1))) as system:
        ref = system.whereis("it", Settler)
        pid = await ref.call(Settler.pid)
        host = host_of(lab, pid)
        head = Address.parse(lab.head)
        assert await visit(head, Head, lambda head: head.call(Head.drain, host, True)) == 1
        moved = await answer(ref, other_than=pid)
        assert host_of(lab, moved) != host
        assert (await member(lab, host)).state == "draining"
        await visit(head, Head, lambda head: head.call(Head.drain, host, False, True))
        assert (await member(lab, host)).state == "up"


async def test_what_no_member_offers_fails_at_once_and_says_what_each_lacks(lab: Lab) -> None:
    with pytest.raises(Exception, match=r"gpu=3: .*has gpu=0.*has gpu=2"):
        async with program(lab, child(Settler, name="it", on=needs(gpu=3))):
            pass


async def test_what_a_killed_program_has_on_the_hosts_ends_and_its_places_are_free(lab: Lab) -> None:
    script = Path(__file__).with_name("lab_program.py")
    killed = await asyncio.create_subprocess_exec(
        sys.executable, str(script), lab.head, stdout=subprocess.PIPE, env=lab.environment
    )
    assert killed.stdout is not None
    async with asyncio.timeout(PATIENCE):
        pids = [int(word) for word in (await killed.stdout.readline()).split()]
    killed.kill()
    await killed.wait()
    await until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    # Its two had all there is.
    async with program(lab, settler("it", needs(gpu=2))) as system:
        assert await system.whereis("it", Settler).call(Settler.add) == 1


async def test_a_second_member_of_the_same_name_is_turned_away_with_a_remedy(lab: Lab) -> None:
    twin = lab.twin("b")
    twin.start()
    await until(lambda: not twin.is_up())
    assert "there is a member named 'b' already" in twin.output.read_text()
    assert "--name" in twin.output.read_text()
    assert (await member(lab, "b")).state == "up"


async def test_a_member_that_is_removed_leaves_and_its_children_move(lab: Lab) -> None:
    async with program(lab, settler("it", needs(gpu=1))) as system:
        ref = system.whereis("it", Settler)
        pid = await ref.call(Settler.pid)
        host = host_of(lab, pid)
        await visit(Address.parse(lab.head), Head, lambda head: head.call(Head.remove, host))
        assert host_of(lab, await answer(ref, other_than=pid)) != host
        await until(lambda: not lab.nodes[host].is_up())
        assert f"{host} was removed from the cluster" in lab.nodes[host].output.read_text()


async def test_a_host_without_this_clusters_certificate_is_no_member(lab: Lab, tmp_path: Path) -> None:
    stranger = lab.twin("b", name="stranger", credentials=create(tmp_path / "others", "stranger").directory)
    stranger.start()
    await until(lambda: not stranger.is_up())
    assert "not of this cluster" in stranger.output.read_text()
    assert all(row.name != "stranger" for row in (await cluster(lab)).members)


async def test_what_a_process_prints_is_heard_where_the_program_is_to_the_last_word(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "palmette.node")
    talker = child(Talker, name="talker", on=needs(node="c"), restart="temporary")
    async with program(lab, talker) as system:
        system.whereis("talker", Talker).cast(Talker.die, "hello from afar")
        await until(lambda: "last words: hello from afar" in caplog.text)
    said = {(r.name, r.getMessage(), r.processName) for r in caplog.records if r.name.startswith("palmette.node")}
    assert ("palmette.node.stdout", "hello from afar", "/talker") in said
    assert ("palmette.node.stderr", "last words: hello from afar", "/talker") in said


async def test_a_stopped_member_is_lost_and_its_children_move(lab: Lab) -> None:
    async with program(lab, settler("it", needs(gpu=1))) as system:
        ref = system.whereis("it", Settler)
        pid = await ref.call(Settler.pid)
        host = host_of(lab, pid)
        node = lab.nodes[host].process
        assert node is not None
        node.suspend()
        try:
            assert host_of(lab, await answer(ref, other_than=pid)) != host
            await until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie")
        finally:
            node.resume()
        await eventually(lambda: member(lab, host), lambda row: row.state == "up")


async def test_a_start_that_is_called_off_while_it_waits_for_a_place_leaves_no_claim(lab: Lab) -> None:
    async with program(lab, settler("all", needs(gpu=2, node="b")), DynamicSupervisor.spec(name="more")) as system:
        more = system.whereis("more", DynamicSupervisor)
        late = child(Settler, name="late", on=needs(gpu=1, node="b", wait=PATIENCE), restart="temporary")
        asking = asyncio.create_task(more.call(DynamicSupervisor.start_child, late))
        await eventually(lambda: waits(lab), bool)
        asking.cancel()
        await more.terminate(timeout=0.5)
        await eventually(lambda: waits(lab), lambda waiting: not waiting)
        with pytest.raises(asyncio.CancelledError):
            await asking
