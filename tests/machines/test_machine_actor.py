"""A machine as an actor: ordinary failures go to the caller, the loss of the machine ends the actor."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from machines_support import list_root, tagged, until

from palmette.actors import ActorDied, Crashed, Killed, System
from palmette.machines import (
    CommandNotStarted,
    FileTooLarge,
    Limits,
    LocalMachine,
    MachineActor,
    MachineError,
    MachineLost,
    PathEscapes,
    RemoteMachine,
    TerminalSize,
    delete_snapshot,
    download,
    machine_for,
    upload,
)
from palmette.supervisors import Supervisor, child


@asynccontextmanager
async def running() -> AsyncGenerator[tuple[System, RemoteMachine]]:
    tree = Supervisor.spec(children=[child(MachineActor, "local", "test-run", name="machine", shutdown=20.0)])
    async with asyncio.timeout(30), System.start(tree) as system:
        yield system, RemoteMachine(system.whereis("machine", MachineActor))


async def test_it_does_what_a_machine_does(root: Path) -> None:
    async with running() as (_, machine):
        await machine.put("a/b.txt", b"hello", mode=0o600)
        assert await machine.get("a/b.txt") == b"hello"
        assert await machine.list("a") == ["b.txt"]
        seen: list[bytes] = []
        result = await machine.exec(
            ["sh", "-c", 'cat; echo "$X"; pwd'],
            stdin=b"in ",
            env={"X": "out"},
            cwd="a",
            limits=Limits(cpu=5),
            on_output=lambda stream, data: seen.append(data),
        )
        assert result.ok
        assert result.text.startswith("in out\n")
        assert b"".join(seen) == result.stdout
        await machine.reset()
        assert await machine.list() == []
    assert list_root(root) == []


async def test_commands_run_at_the_same_time_and_files_are_served_meanwhile() -> None:
    async with running() as (_, machine):
        first = asyncio.ensure_future(machine.exec("until [ -e go ]; do sleep 0.01; done", timeout=10))
        second = asyncio.ensure_future(machine.exec("until [ -e go ]; do sleep 0.01; done", timeout=10))
        await machine.put("go", b"")
        assert (await first).ok
        assert (await second).ok


async def test_ordinary_failures_reach_the_caller_as_themselves_and_the_machine_lives_on() -> None:
    async with running() as (system, machine):
        await machine.put("big", b"x" * 100)
        for call, expected in (
            (machine.get("nothing"), FileNotFoundError),
            (machine.get("../outside"), PathEscapes),
            (machine.get("big", max_bytes=10), FileTooLarge),
            (machine.list("big"), NotADirectoryError),
            (machine.put("../outside", b""), PathEscapes),
            (machine.prepare({"../outside": b""}), PathEscapes),
            (machine.exec(["no-such-program"]), CommandNotStarted),
            (machine.exec("true", timeout=-1), ValueError),
        ):
            with pytest.raises(expected):
                await call
        assert not (await machine.exec("exit 3")).ok
        assert system.statistics().crashes == 0


async def test_prepare_empties_what_an_earlier_attempt_left() -> None:
    async with running() as (_, machine):
        await machine.prepare({"one": b"1"})
        assert await machine.list() == ["one"]
        await machine.exec("touch mess")
        await machine.prepare({"two": b"2"})
        assert await machine.list() == ["two"]


async def test_a_machine_that_is_lost_ends_the_actor_and_all_who_wait_learn_of_it(root: Path) -> None:
    async with running() as (system, machine):
        first = machine.id
        waiting = asyncio.ensure_future(machine.exec("sleep 60", timeout=60))
        with pytest.raises(ActorDied) as caught:
            await machine.exec('rm -rf "$PWD"', timeout=10)
        assert isinstance(caught.value.reason, Crashed)
        assert caught.value.reason.error.endswith(MachineLost.__name__)
        assert caught.value.reason.retryable
        with pytest.raises(ActorDied):
            await waiting
        actor = await system.wait_for("machine", MachineActor)
        assert actor.incarnation == 2
        assert await machine.list() == [], "a new machine, at the same address"
        assert machine.id == first
        await until(lambda: len(list_root(root)) == 1, "the lost machine's remains to go")
    assert list_root(root) == []


async def test_who_waits_learns_of_the_loss_before_the_machine_has_been_taken_down(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = LocalMachine.stop
    may_stop = asyncio.Event()

    async def stop_late(machine: LocalMachine) -> None:
        await may_stop.wait()
        await stop(machine)

    monkeypatch.setattr(LocalMachine, "stop", stop_late)
    async with running() as (system, machine):
        with pytest.raises(ActorDied) as caught:
            await machine.exec('rm -rf "$PWD"', timeout=10)
        assert isinstance(caught.value.reason, Crashed)
        assert caught.value.reason.cause == "machine_removed"
        assert system.whereis("machine", MachineActor).incarnation == 1
        later = asyncio.ensure_future(machine.list())
        may_stop.set()
        with pytest.raises(ActorDied):
            await later
        assert await machine.list() == []
    assert list_root(root) == []


async def test_a_machine_that_is_killed_leaves_neither_directory_nor_process(root: Path) -> None:
    async with running() as (system, machine):
        waiting = asyncio.ensure_future(machine.exec("sleep 61", timeout=61))
        await until(lambda: tagged(f".{os.getpid()}.") != [], "the command to run")
        before = list_root(root)
        system.whereis("machine", MachineActor).kill("by the test")
        with pytest.raises(ActorDied) as caught:
            await waiting
        assert caught.value.reason == Killed("by the test")
        await until(lambda: not set(before) & set(list_root(root)), "the killed machine's directory to go")
        await system.wait_for("machine", MachineActor)
        assert (await machine.exec("true")).ok
    assert list_root(root) == []
    await until(lambda: tagged(f".{os.getpid()}.") == [], "every process to be gone")


async def test_a_machine_that_is_slow_to_come_up_keeps_nobody_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = asyncio.Event()
    start = LocalMachine.start

    async def slow(machine: LocalMachine) -> None:
        await gate.wait()
        await start(machine)

    monkeypatch.setattr(LocalMachine, "start", slow)
    async with running() as (_, machine):  # the tree is up
        listing = asyncio.ensure_future(machine.list())
        await asyncio.sleep(0)
        assert not listing.done()
        gate.set()
        assert await listing == []


async def test_a_process_is_talked_with_through_the_actor() -> None:
    async with running() as (_, machine):
        process = await machine.open('read line; echo "<$line>"; exit 4')
        await process.write(b"word\n")
        assert await process.read() == ("stdout", b"<word>\n")
        assert await process.read() is None
        assert (await process.wait()).exit_code == 4
        assert (await process.wait()).exit_code == 4, "its number may be forgotten, its end is not"
        with pytest.raises(BrokenPipeError):
            await process.write(b"more")
        terminal = await machine.open("stty size; sleep 60", terminal=TerminalSize(rows=10, columns=20))
        assert await terminal.read() == ("stdout", b"10 20\r\n")
        await terminal.resize(TerminalSize(rows=11, columns=21))
        await terminal.kill()
        assert (await terminal.wait()).signal == 9


async def test_a_command_whose_caller_gives_up_is_killed_at_once() -> None:
    async with running() as (_, machine):
        for pause in (0.0, 0.001, 0.01, 0.1):
            task = asyncio.ensure_future(machine.exec("touch begun; sleep 60", timeout=60))
            await asyncio.sleep(pause)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert tagged(f".{os.getpid()}.") == []
            task = asyncio.ensure_future(machine.open("sleep 60"))
            await asyncio.sleep(pause / 10)
            task.cancel()
            if (await asyncio.gather(task, return_exceptions=True))[0].__class__ is asyncio.CancelledError:
                assert tagged(f".{os.getpid()}.") == []
            await machine.reset()


async def test_snapshots_archives_and_forks_go_through_the_actor(root: Path, tmp_path: Path) -> None:
    async with running() as (system, machine):
        (tmp_path / "tree" / "sub").mkdir(parents=True)
        (tmp_path / "tree" / "sub" / "file").write_bytes(b"x")
        await upload(machine, tmp_path / "tree", "here")
        await download(machine, "here", tmp_path / "back")
        assert (tmp_path / "back" / "sub" / "file").read_bytes() == b"x"
        assert await machine.probe() > 0
        assert (await machine.describe()).backend == "local"
        twin = await machine.fork()
        assert twin.id != machine.id
        await twin.put("here/own", b"")
        assert await twin.list("here") == ["own", "sub"]
        assert await machine.list("here") == ["sub"]
        await twin.stop()
        with pytest.raises(MachineError, match="stopped"):
            await twin.list()
        other = await machine.fork()
        snapshot = await machine.snapshot()
        again = machine_for(snapshot.image, owner="again")
        await again.start()
        assert await again.get("here/sub/file") == b"x"
        await again.stop()
        await delete_snapshot(snapshot.image)
        assert await other.list() == ["here"]
        assert system.statistics().crashes == 0
    assert list_root(root) == ["snapshots"], "the forks went with their actor"
    assert list_root(root / "snapshots") == []


async def test_in_a_process_of_its_own_the_contract_is_the_same() -> None:
    tree = Supervisor.spec(
        children=[child(MachineActor, "local", "test-run", name="machine", shutdown=20.0, isolation="process")]
    )
    async with asyncio.timeout(60), System.start(tree) as system:
        machine = RemoteMachine(await system.wait_for("machine", MachineActor))
        seen: list[tuple[str, bytes]] = []
        result = await machine.exec(
            "cat; echo err >&2; exit 3", stdin=b"in", on_output=lambda stream, data: seen.append((stream, data))
        )
        assert (result.exit_code, result.stdout, result.stderr) == (3, b"in", b"err\n")
        assert sorted(seen) == [("stderr", b"err\n"), ("stdout", b"in")]
        for call, expected in (
            (machine.get("nothing"), FileNotFoundError),
            (machine.get("../outside"), PathEscapes),
            (machine.exec(["no-such-program"]), CommandNotStarted),
            (machine.exec("true", timeout=-1), ValueError),
            (machine.put_archive("x", b"no archive"), ValueError),
        ):
            with pytest.raises(expected):
                await call
        process = await machine.open("read word; echo $word", limits=Limits(cpu=5), terminal=TerminalSize())
        await process.write(b"hello\n")
        assert b"hello" in ((await process.read()) or ("", b""))[1]
        assert (await process.wait()).ok
        task = asyncio.ensure_future(machine.exec("sleep 60"))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert (await (await machine.fork()).describe()).backend == "local"


async def test_an_exception_of_the_callers_watcher_is_the_callers() -> None:
    def watch(stream: str, data: bytes) -> None:
        raise RuntimeError(f"cannot take {data!r}")

    async with running() as (system, machine):
        with pytest.raises(RuntimeError, match="cannot take b'x"):
            await machine.exec("echo x; sleep 60", on_output=watch)
        assert system.statistics().crashes == 0
