"""The reaper takes what killed controllers left, and nothing else."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from machines_support import groups_of, list_root, running, tagged, until

from palmette.machines import LocalMachine, MachineError, reap
from palmette.machines.identity import MachineId, start_time

CONTROLLER = """
import asyncio, sys
from palmette.machines import LocalMachine, tree

async def main(owner, word, containment):
    if containment == "tags":
        tree.writable_group = lambda: None
    machine = LocalMachine(owner)
    await machine.start()
    await machine.put("file", b"x")
    await machine.exec(f"setsid sleep {word} & sleep {word}", timeout=600)

asyncio.run(main(*sys.argv[1:]))
"""


class Controllers:
    """Programs that hold a machine with two sleeping processes each."""

    def __init__(self) -> None:
        self.all: list[subprocess.Popen[bytes]] = []

    async def start(self, owner: str, containment: str) -> tuple[subprocess.Popen[bytes], str]:
        word = f"1000.{secrets.randbelow(10**9)}"
        program = self._popen(owner, word, containment)
        await until(lambda: len(running(word)) == 3, "the controller and its two sleeps")
        return program, word

    def _popen(self, *arguments: str) -> subprocess.Popen[bytes]:
        self.all.append(subprocess.Popen([sys.executable, "-c", CONTROLLER, *arguments]))
        return self.all[-1]


@pytest.fixture
def controllers() -> Iterator[Controllers]:
    one = Controllers()
    yield one
    for program in one.all:
        program.kill()
        program.wait(20)
    reap()
    for program in one.all:
        assert tagged(f".{program.pid}.") == []
        assert groups_of(program.pid) == []


def kill(program: subprocess.Popen[bytes]) -> None:
    program.send_signal(signal.SIGKILL)
    program.wait(20)


async def test_what_a_killed_controller_left_is_taken_and_the_living_are_spared(
    machine: LocalMachine, controllers: Controllers, root: Path, containment: str
) -> None:
    dead, dead_word = await controllers.start("dead-run", containment)
    _, living_word = await controllers.start("living-run", containment)
    own_word = f"1000.{secrets.randbelow(10**9)}"
    own = asyncio.create_task(machine.exec(["sleep", own_word]))
    await until(lambda: len(running(own_word)) == 1, "our own sleep")

    assert reap().directories == ()
    kill(dead)
    assert len(running(dead_word)) == 2, "nobody else kills them"
    report = reap()

    assert [name.split(".")[0] for name in report.directories] == ["dead-run"]
    assert report.processes >= 2  # what the dead of other tests left, who run at the same time, is taken too
    assert (report.alive, report.failed) == (2, ())
    assert report.groups >= (1 if containment == "group" else 0)
    assert running(dead_word) == []
    assert len(running(living_word)) == 3
    assert len(running(own_word)) == 1
    assert sorted(name.split(".")[0] for name in list_root(root)) == ["living-run", "test-run"]
    assert groups_of(dead.pid) == []
    own.cancel()
    await asyncio.wait([own])


async def test_only_the_named_run_is_taken(controllers: Controllers, root: Path, containment: str) -> None:
    one, one_word = await controllers.start("run-1", containment)
    other, other_word = await controllers.start("run-2", containment)
    kill(one)
    kill(other)
    assert [name.split(".")[0] for name in reap(owner="run-1").directories] == ["run-1"]
    assert running(one_word) == []
    assert len(running(other_word)) == 2
    assert [name.split(".")[0] for name in list_root(root)] == ["run-2"]
    assert [name.split(".")[0] for name in reap(owner="run-2").directories] == ["run-2"]
    assert list_root(root) == []


async def test_a_named_run_whose_controller_lives_is_spared(controllers: Controllers, containment: str) -> None:
    _, word = await controllers.start("run-1", containment)
    report = reap(owner="run-1")
    assert (report.directories, report.alive) == ((), 1)
    assert len(running(word)) == 3


def test_without_anything_to_do_the_report_is_empty(root: Path) -> None:
    report = reap()
    assert (report.directories, report.alive, report.elsewhere, report.failed) == ((), 0, (), ())
    assert not root.exists()


def test_strangers_in_the_directory_are_left_alone(root: Path) -> None:
    root.mkdir(mode=0o700)
    (root / "notes.txt").write_text("mine")
    (root / "run.1.2").mkdir()
    assert reap().directories == ()
    assert list_root(root) == ["notes.txt", "run.1.2"]


def test_a_parent_of_others_is_not_reaped(root: Path) -> None:
    root.mkdir()
    root.chmod(0o777)
    with pytest.raises(MachineError, match="chmod 700"):
        reap()


def _named(**changes: object) -> str:
    import msgspec

    return str(msgspec.structs.replace(MachineId.new("run"), **changes))


def test_a_reused_pid_does_not_protect_the_dead(root: Path) -> None:
    own = start_time(os.getpid())
    assert own is not None
    name = _named(start=own - 1)
    (root / name).mkdir(parents=True, mode=0o700)
    root.chmod(0o700)
    assert reap().directories == (name,)


def test_an_earlier_boot_of_this_host_is_dead(root: Path) -> None:
    place = MachineId.new("run").place
    name = _named(place=place[:4] + _other(place[4:8]) + place[8:])
    (root / name).mkdir(parents=True)
    assert reap().directories == (name,)


@pytest.mark.parametrize("part", [slice(0, 4), slice(8, 12)], ids=["another host", "another pid namespace"])
def test_what_cannot_be_judged_from_here_is_left_alone(root: Path, part: slice) -> None:
    place = list(MachineId.new("run").place)
    place[part] = _other("".join(place[part]))
    name = _named(place="".join(place), pid=2**22 + 1)
    (root / name).mkdir(parents=True)
    report = reap()
    assert (report.directories, report.elsewhere) == ((), (name,))
    assert list_root(root) == [name]


def _other(digits: str) -> str:
    return f"{int(digits, 16) ^ 1:04x}"


def test_what_cannot_be_removed_is_reported_and_the_rest_is_done(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from palmette.machines import reaper

    bad, good = sorted(_named(start=1, nonce=nonce) for nonce in ("00000000", "11111111"))
    for name in (bad, good):
        (root / name).mkdir(parents=True)
    remove = reaper.remove_tree

    def stubborn(path: str) -> None:
        if path.endswith(bad):
            raise PermissionError(1, "Operation not permitted", path)
        remove(path)

    monkeypatch.setattr(reaper, "remove_tree", stubborn)
    report = reap()
    assert report.directories == (good,)
    assert len(report.failed) == 1
    assert bad in report.failed[0]
