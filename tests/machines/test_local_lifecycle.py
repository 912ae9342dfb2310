"""The life of a local machine: started once, reset, lost, stopped, and gone without a trace."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from machines_support import list_root, running, until

from palmette.machines import LocalMachine, MachineError, MachineLost

pytestmark = pytest.mark.usefixtures("containment")


async def test_a_machine_has_a_directory_that_names_its_run_and_its_controller(
    machine: LocalMachine, root: Path
) -> None:
    (name,) = list_root(root)
    assert name == machine.id
    owner, pid, *_ = name.split(".")
    assert (owner, int(pid)) == ("test-run", os.getpid())
    assert os.stat(root / name).st_mode & 0o777 == 0o700
    assert os.stat(root).st_mode & 0o777 == 0o700


async def test_stopping_twice_or_at_once_is_fine(machine: LocalMachine, root: Path) -> None:
    await machine.put("a/b", b"x")
    await asyncio.gather(machine.stop(), machine.stop())
    await machine.stop()
    assert list_root(root) == []


async def test_stopping_one_that_never_started_is_fine(root: Path) -> None:
    machine = LocalMachine("run")
    await machine.stop()
    with pytest.raises(MachineError, match="started before"):
        await machine.start()
    assert list_root(root) == []


async def test_using_one_before_its_start_says_so() -> None:
    with pytest.raises(MachineError, match="not started"):
        await LocalMachine("run").exec("true")


async def test_starting_twice_is_refused(machine: LocalMachine) -> None:
    with pytest.raises(MachineError, match="started before"):
        await machine.start()


async def test_after_the_stop_everything_is_lost(machine: LocalMachine) -> None:
    await machine.stop()
    for attempt in (machine.exec("true"), machine.put("x", b""), machine.get("x"), machine.list(), machine.reset()):
        with pytest.raises(MachineLost, match="stopped"):
            await attempt


async def test_a_stop_kills_what_runs_and_its_caller_learns_that_the_machine_is_lost(machine: LocalMachine) -> None:
    word = f"1000.{secrets.randbelow(10**9)}"
    tasks = [asyncio.create_task(machine.exec(f"setsid sleep {word} & sleep {word}")) for _ in range(3)]
    await until(lambda: len(running(word)) == 6, "six sleeps")
    await machine.stop()
    for task in tasks:
        with pytest.raises(MachineLost, match="stopped"):
            await task
    assert running(word) == []


async def test_a_cancelled_stop_still_removes_everything(machine: LocalMachine, root: Path) -> None:
    word = f"1000.{secrets.randbelow(10**9)}"
    task = asyncio.create_task(machine.exec(["sleep", word]))
    await until(lambda: len(running(word)) == 1, "the sleep")
    stop = asyncio.create_task(machine.stop())
    await asyncio.sleep(0)
    stop.cancel()
    await asyncio.wait([stop, task])
    assert running(word) == []
    assert list_root(root) == []


async def test_a_reset_kills_what_runs_and_empties_the_directory(machine: LocalMachine) -> None:
    word = f"1000.{secrets.randbelow(10**9)}"
    await machine.put("a/b", b"x")
    task = asyncio.create_task(machine.exec(["sleep", word]))
    await until(lambda: len(running(word)) == 1, "the sleep")
    await machine.reset()
    assert (await task).signal == signal.SIGKILL
    assert await machine.list() == []
    await machine.put("again", b"y")
    assert (await machine.exec("ls")).stdout == b"again\n"


async def test_directories_without_permissions_are_removed_too(machine: LocalMachine, root: Path) -> None:
    await machine.exec("mkdir -p a/b/c && touch a/b/c/file && chmod 000 a/b/c && chmod 000 a/b && chmod 000 a")
    await machine.stop()
    assert list_root(root) == []


def _vanish(machine: LocalMachine) -> None:
    shutil.rmtree(machine.directory.parent)


def _replace(machine: LocalMachine) -> None:
    machine.directory.rename(machine.directory.parent / "elsewhere")
    machine.directory.mkdir()


LOSSES = {"removed": _vanish, "replaced": _replace}


@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES.keys())
async def test_without_its_directory_a_machine_is_lost(
    machine: LocalMachine, lose: Callable[[LocalMachine], None]
) -> None:
    await machine.put("x", b"")
    lose(machine)
    for attempt in (machine.exec("true"), machine.put("x", b""), machine.get("x"), machine.list(), machine.reset()):
        with pytest.raises(MachineLost):
            await attempt
    await machine.stop()


@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES.keys())
async def test_a_command_that_ends_without_its_directory_has_no_result(
    machine: LocalMachine, lose: Callable[[LocalMachine], None]
) -> None:
    word = f"1000.{secrets.randbelow(10**9)}"
    task = asyncio.create_task(machine.exec(["sleep", word]))
    await until(lambda: len(running(word)) == 1, "the sleep")
    lose(machine)
    os.kill(running(word)[0], signal.SIGKILL)
    with pytest.raises(MachineLost, match="went away"):
        await task


async def test_a_parent_that_others_may_write_to_is_refused(root: Path) -> None:
    os.mkdir(root)
    os.chmod(root, 0o777)
    with pytest.raises(MachineError, match="chmod 700"):
        await LocalMachine("run").start()


async def test_a_parent_that_is_a_link_is_refused(root: Path, tmp_path: Path) -> None:
    os.symlink(tmp_path, root)
    with pytest.raises(MachineError, match="not a directory"):
        await LocalMachine("run").start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
async def test_a_parent_of_somebody_else_is_refused(root: Path) -> None:
    os.mkdir(root)
    os.chown(root, 65534, 65534)
    with pytest.raises(MachineError, match="belongs to user 65534"):
        await LocalMachine("run").start()


@pytest.mark.parametrize("owner", ["", "a/b", "a.b", "x" * 65, "a\n", "ä"])
def test_an_owner_that_fits_no_file_name_is_refused(owner: str) -> None:
    with pytest.raises(ValueError, match="run id"):
        LocalMachine(owner)


async def test_many_machines_live_side_by_side(started: Callable[[], LocalMachine], root: Path) -> None:
    machines = [started() for _ in range(40)]
    await asyncio.gather(*(machine.start() for machine in machines))

    async def use(index: int, machine: LocalMachine) -> bytes:
        await machine.put("number", str(index).encode())
        return (await machine.exec(["cat", "number"])).stdout

    seen = await asyncio.gather(*(use(index, machine) for index, machine in enumerate(machines)))
    assert seen == [str(index).encode() for index in range(40)]
    await asyncio.gather(*(machine.stop() for machine in machines))
    assert list_root(root) == []
