"""The search for tagged processes misses nobody who is about to become another program."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from palmette.machines import tree
from palmette.machines.runner import processes

# pyright: reportPrivateUsage=false


def test_a_process_between_two_programs_is_seen_or_looked_for_again(tmp_path: Path) -> None:
    """While a process execs, its environment reads as empty: for this one, in one look of fifty."""
    script = tmp_path / "again"
    script.write_text(f"exec /bin/sh {script}\n")
    tag = f"exec.{os.getpid()}"
    process = subprocess.Popen(["/bin/sh", str(script)], env={**os.environ, tree.EXEC_TAG: tag})
    try:
        for _ in range(300):
            seen: list[str] = []
            _, unsure = tree._kill_pass(tree.EXEC_TAG, lambda value, seen=seen: bool(seen.append(value)))
            assert tag in seen or unsure
        assert tree.kill_tagged(tree.EXEC_TAG, lambda value: value == tag) == 1
        assert process.wait(10) < 0
    finally:
        process.kill()
        process.wait()


def test_the_runners_search_does_not_miss_it_either(tmp_path: Path) -> None:
    script = tmp_path / "again"
    script.write_text(f"exec /bin/sh {script}\n")
    tag = f"exec.{os.getpid()}"
    process = subprocess.Popen(["/bin/sh", str(script)], env={**os.environ, tree.EXEC_TAG: tag})
    try:
        for _ in range(300):
            block = processes._environment(str(process.pid))
            assert block is None or tag.encode() in block
        assert processes.kill_tagged(tree.EXEC_TAG, tag, frozenset((os.getpid(),))) == 0
        assert process.wait(10) < 0
    finally:
        process.kill()
        process.wait()


def test_one_who_has_no_environment_does_not_keep_the_search_going() -> None:
    process = subprocess.Popen(["env", "-i", "sh", "-c", "while :; do :; done"])
    try:
        for _ in range(2):
            assert tree.kill_tagged(tree.EXEC_TAG, lambda value: value == "nobody's") == 0
            assert processes.kill_tagged(tree.EXEC_TAG, "nobody's", frozenset()) == 0
    finally:
        process.kill()
        process.wait()
