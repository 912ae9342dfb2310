"""The leak checks of tests/conftest.py, checked: each kind of leak fails a test, and a clean test passes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

CONFTEST = Path(__file__).parents[1] / "conftest.py"

LEAKY = """
import asyncio, socket, subprocess, tempfile
import pytest

kept = []

def test_clean(): ...

async def test_clean_async():
    await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))

async def test_a_task_that_is_just_ending_is_no_leak():
    kept.append(asyncio.ensure_future(asyncio.sleep(0)))

async def test_leaks_a_task():
    kept.append(asyncio.ensure_future(asyncio.Event().wait()))

def test_leaks_a_process():
    kept.append(subprocess.Popen(["sleep", "30"]))

def test_leaks_a_socket():
    kept.append(socket.socket())

def test_leaks_a_directory():
    tempfile.mkdtemp(prefix="palmette-")

def test_leaks_a_directory_of_a_child_process():
    subprocess.run(["mktemp", "-d"], check=True)

def test_last():
    for process in kept:
        if isinstance(process, subprocess.Popen):
            process.kill()
            process.wait()
"""


def test_each_kind_of_leak_fails_its_test_and_no_other(tmp_path: Path) -> None:
    conftest = CONFTEST.read_text()
    assert "GRACE = 3.0" in conftest
    (tmp_path / "conftest.py").write_text(conftest.replace("GRACE = 3.0", "GRACE = 0.05"))
    (tmp_path / "test_leaky.py").write_text(LEAKY)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rE", f"--basetemp={tmp_path / 't'}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(CONFTEST.parent)},  # its plugins live beside it
        capture_output=True,
        text=True,
        timeout=100,
    )
    errors = set(re.findall(r"^ERROR test_leaky\.py::(\w+)", done.stdout, re.MULTILINE))
    assert errors == {
        "test_leaks_a_task",
        "test_leaks_a_process",
        "test_leaks_a_socket",
        "test_leaks_a_directory",
        "test_leaks_a_directory_of_a_child_process",
    }, done.stdout
    assert "9 passed, 5 errors" in done.stdout
