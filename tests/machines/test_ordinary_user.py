"""All of it works for a user without any privilege."""

from __future__ import annotations

import glob
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

NOBODY = 65534

PROGRAM = """
import asyncio, json, os
from palmette.machines import LocalMachine, reap, tree

def words(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().split(b"\\0")
    except OSError:
        return []

async def main():
    machine = LocalMachine("user-run")
    await machine.start()
    await machine.put("a/file", b"x")
    timed_out = await machine.exec("echo so far; (setsid sleep 4321.5 &) ; sleep 4321.5", timeout=0.3)
    normal = await machine.exec("setsid sleep 4321.5 >/dev/null 2>&1 & cat a/file")
    await machine.exec("mkdir -p locked/in && touch locked/in/x && chmod 000 locked/in locked")
    left = [name for name in os.listdir("/proc") if name.isdigit() and words(name) == [b"sleep", b"4321.5", b""]]
    await machine.stop()
    print(json.dumps({
        "timed_out": timed_out.timed_out, "kept": timed_out.text, "normal": normal.text, "left": left,
        "directories": os.listdir(os.environ["PALMETTE_MACHINES"]), "failed": reap().failed,
    }))

asyncio.run(main())
"""


def _interpreter(environment: dict[str, str]) -> str | None:
    """One that this user may execute and that can load our dependencies: ours may lie in somebody's home."""
    for python in (sys.executable, *glob.glob("/usr/bin/python3*"), shutil.which("python3") or sys.executable):
        try:
            done = subprocess.run(
                [python, "-c", "import palmette.machines"], user=NOBODY, group=NOBODY, extra_groups=[], cwd="/",
                env=environment, capture_output=True, timeout=60, check=False,
            )  # fmt: skip
        except OSError:
            continue
        if done.returncode == 0:
            return python
    return None


def _told_as_nobody(program: str) -> object:
    """The JSON that ``program`` prints when nobody runs it."""
    import tempfile

    source = Path(__file__).resolve().parents[2]
    packages = Path(msgspec.__file__).parents[1]
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        home = Path(folder, "machines")
        home.mkdir(mode=0o700)
        os.chown(home, NOBODY, NOBODY)
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{source}:{packages}:{source}/tests/machines",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PALMETTE_MACHINES": str(home),
        }
        python = _interpreter(environment)
        if python is None:
            pytest.skip("user nobody can reach no interpreter that loads msgspec")
        done = subprocess.run(
            [python, "-c", program], user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", env=environment,
            capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(os.geteuid() != 0, reason="all other tests ran as an ordinary user already")
def test_an_ordinary_user_has_the_same_guarantees(scratch_parent: Path) -> None:
    assert _told_as_nobody(PROGRAM) == {
        "timed_out": True,
        "kept": "so far\n",
        "normal": "x",
        "left": [],
        "directories": [],
        "failed": [],
    }


HOSTED = """
import asyncio, json, os, signal, sys
from pathlib import Path
from palmette.machines.hosted import HostedMachine
from palmette.machines.identity import MachineId
from plain_backend import PlainBackend

async def main():
    root = Path(os.environ["PALMETTE_MACHINES"])
    backend = PlainBackend(str(MachineId.new("user-run")), root, python=sys.executable)
    machine = HostedMachine(backend, backend.id, "plain")
    await machine.start()
    told = []
    for closed in ("chmod 000 .", "chmod 500 .", "mkdir -p a/b && touch a/b/c && chmod 000 a/b a . .."):
        await machine.put("file", b"x")
        await machine.exec(closed)
        await machine.reset()
        told.append(await machine.list())
    await machine.exec("chmod 000 .. .")
    os.kill(backend.runner, signal.SIGKILL)
    await machine.exec("true")  # is lost with the runner, or runs on the next
    told.append((await machine.exec("echo on")).text)
    await machine.exec("chmod 000 .. .")
    await machine.stop()
    print(json.dumps([told, os.listdir(root)]))

asyncio.run(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="root may enter a directory that is closed")
def test_what_a_command_closes_to_its_own_user_is_opened_again(scratch_parent: Path) -> None:
    assert _told_as_nobody(HOSTED) == [[[], [], [], "on\n"], []]
