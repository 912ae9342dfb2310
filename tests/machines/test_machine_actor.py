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
    MachineLost,
    PathEscapes,
    RemoteMachine,
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
