"""Kill any process of a host, or the head: nothing of ours is left, and where the head lives, children come back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from node_actors import Worker
from node_processes import Family, family, host_of, is_alive, until, until_now

from palmette.actors import ActorDied, ActorError, Killed, Ref, System
from palmette.actors.housing import PREFIX, Directory, sweep
from palmette.supervisors import Supervisor, child

TWO_NODES = Supervisor.spec(
    max_restarts=100,
    children=[child(Worker, name="one", isolation="process"), child(Worker, name="two", isolation="process")],
)


def directories() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"{PREFIX}*"))


async def answers(system: System, name: str, *, but: int) -> int:
    """The process in which ``name`` lives, once that is another one than ``but``."""
    pid = but
    while pid == but:
        worker: Ref[Worker] = await system.wait_for(name, Worker, timeout=20)
        try:
            pid = await worker.call(Worker.pid)
        except ActorError:
            await asyncio.sleep(0.002)
    return pid


async def family_of(system: System) -> tuple[Family, int, int]:
    one = await system.whereis("one", Worker).call(Worker.pid)
    two = await system.whereis("two", Worker).call(Worker.pid)
    return family(host_of(system), one), one, two


# --- the head lives --------------------------------------------------------------------------------------------------


async def test_kill_9_of_a_node_is_one_restart_of_one_child() -> None:
    async with System.start(TWO_NODES) as system:
        before, one, two = await family_of(system)
        os.kill(one, signal.SIGKILL)
        assert await answers(system, "one", but=one) not in before.all
        assert await system.whereis("two", Worker).call(Worker.pid) == two
        assert system.whereis("one", Worker).incarnation == 2
        assert system.whereis("two", Worker).incarnation == 1
        assert host_of(system) == before.host
    assert directories() == []


@pytest.mark.parametrize("victim", ["host", "admin", "keeper"])
async def test_kill_9_of_what_the_nodes_depend_on_is_a_new_host_with_new_nodes(victim: str) -> None:
    async with System.start(TWO_NODES) as system:
        before, one, two = await family_of(system)
        call = asyncio.ensure_future(system.whereis("one", Worker).call(Worker.sleep, 60.0))
        await asyncio.sleep(0)
        os.kill(getattr(before, victim), signal.SIGKILL)
        with pytest.raises(ActorDied) as caught:
            await call
        assert isinstance(caught.value.reason, Killed)
        assert await answers(system, "one", but=one) not in before.all
        assert await answers(system, "two", but=two) not in before.all
        await until(lambda: not any(map(is_alive, before.all)), "the old host's processes are gone")
        assert host_of(system) != before.host
        after, _, _ = await family_of(system)
        assert len(directories()) == 1
    await until(lambda: not any(map(is_alive, after.all)))
    assert directories() == []


async def test_kill_9_of_thespians_logger_is_nothing_to_anybody() -> None:
    async with System.start(TWO_NODES) as system:
        before, one, two = await family_of(system)
        os.kill(before.logger, signal.SIGKILL)
        await until(lambda: not is_alive(before.logger))
        # One more node can be started, and the others are as they were.
        os.kill(one, signal.SIGKILL)
        assert await answers(system, "one", but=one) != one
        assert await system.whereis("two", Worker).call(Worker.pid) == two
        assert host_of(system) == before.host


async def test_a_host_that_is_stopped_by_a_signal_is_replaced(tmp_path: Path) -> None:
    async with System.start(TWO_NODES) as system:
        before, one, _ = await family_of(system)
        os.kill(before.host, signal.SIGTERM)
        assert await answers(system, "one", but=one) not in before.all
        await until(lambda: not any(map(is_alive, before.all)))


async def test_an_end_while_everything_is_dying_leaves_nothing() -> None:
    async with System.start(TWO_NODES) as system:
        before, _, _ = await family_of(system)
        os.kill(before.keeper, signal.SIGKILL)
    await until(lambda: not any(map(is_alive, before.all)))
    assert directories() == []


# --- the head dies ---------------------------------------------------------------------------------------------------


class Program:
    """A running ``small_program``, and who is who in it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "log"
        self.file.touch()
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("small_program.py")), str(self.file)],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
        )
        until_now(lambda: "ready" in self.file.read_text() or self.process.poll() is not None)
        ready = next(line for line in self.file.read_text().splitlines() if line.startswith("ready"))
        head, host, *nodes = map(int, ready.split()[1:])
        assert head == self.process.pid
        self.family = family(host, nodes[0])
        self.everybody = {head, *self.family.all, *(p.pid for p in psutil.Process(head).children(recursive=True))}

    def is_gone(self) -> bool:
        self.process.poll()
        return not any(map(is_alive, self.everybody)) and directories() == []

    def end(self) -> None:
        for pid in self.everybody:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    running = Program(tmp_path)
    yield running
    running.end()


def test_kill_9_of_the_head_leaves_no_process_and_no_directory(program: Program) -> None:
    os.kill(program.process.pid, signal.SIGKILL)
    until_now(program.is_gone, "all its processes and the directory are gone")


def test_kill_9_of_the_heads_group_leaves_nothing_either(program: Program) -> None:
    os.killpg(program.process.pid, signal.SIGKILL)
    until_now(program.is_gone)


def test_kill_9_of_head_and_host_at_once_leaves_a_directory_that_the_next_start_sweeps(program: Program) -> None:
    os.kill(program.family.host, signal.SIGSTOP)  # so that it cannot clean up in between
    os.kill(program.process.pid, signal.SIGKILL)
    os.kill(program.family.host, signal.SIGKILL)
    program.process.wait()
    until_now(lambda: not any(map(is_alive, program.everybody - {program.process.pid})), "they end by themselves")
    assert len(directories()) == 1
    Directory().remove()
    assert directories() == []


def test_kill_9_of_everything_but_one_node_ends_that_node(program: Program) -> None:
    node = program.family.nodes[0]
    for pid in (program.process.pid, *program.family.all):
        if pid != node:
            with contextlib.suppress(ProcessLookupError):  # the death of another was enough
                os.kill(pid, signal.SIGKILL)
    program.process.wait()
    until_now(lambda: not is_alive(node))
    sweep()


def test_an_interrupt_stops_the_nodes_in_order(program: Program) -> None:
    os.killpg(program.process.pid, signal.SIGINT)
    assert program.process.wait(20) != 0
    lines = program.file.read_text().splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["/second", "Shutdown"], ["/first", "Shutdown"], ["ended"]]
    until_now(program.is_gone)


async def test_a_cancelled_system_stops_its_nodes_in_order(tmp_path: Path) -> None:
    from node_actors import Marking

    file = tmp_path / "log"
    up = asyncio.Event()

    async def run() -> None:
        names = ("a", "b")
        specs = [child(Marking, str(file), name=name, isolation="process") for name in names]
        async with System.start(Supervisor.spec(children=specs)):
            up.set()
            await asyncio.sleep(600)

    task = asyncio.ensure_future(run())
    await up.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [line.split()[0] for line in file.read_text().splitlines()] == ["/b", "/a"]
    assert directories() == []


async def test_a_start_that_is_cancelled_leaves_nothing() -> None:
    async def run() -> None:
        async with System.start(TWO_NODES):
            raise AssertionError("it was cancelled before")

    for turns in (1, 5, 20):
        task = asyncio.ensure_future(run())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert directories() == []


# --- directories -----------------------------------------------------------------------------------------------------


def test_a_sweep_leaves_alone_what_is_in_use() -> None:
    mine = Directory()
    try:
        sweep()
        assert mine.path.exists()
        other = Directory()
        assert mine.path.exists()
        other.remove()
    finally:
        mine.remove()


def test_a_sweep_leaves_alone_a_directory_that_may_be_getting_its_lock() -> None:
    young = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        sweep()
        assert young.exists()
        os.utime(young, (0, 0))
        sweep()
        assert not young.exists()
    finally:
        if young.exists():
            young.rmdir()


def test_a_sweep_does_not_follow_a_link_or_wait_for_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("keep me")
    for kind in ("link", "pipe"):
        trap = Path(tempfile.mkdtemp(prefix=PREFIX))
        if kind == "link":
            (trap / "lock").symlink_to(tmp_path / "precious")
        else:
            os.mkfifo(trap / "lock")
        sweep()
        assert (tmp_path / "precious").read_text() == "keep me"
        if trap.exists():
            (trap / "lock").unlink()
            trap.rmdir()
