"""Whole programs with process nodes, seen from outside."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TALK = """
import asyncio, os, signal, sys
sys.path.insert(0, sys.argv[1])
from node_actors import Worker
from palmette.actors import System
from palmette.supervisors import Supervisor, child
async def main():
    async with System.start(Supervisor.spec(children=[child(Worker, name="w", isolation="process")])) as system:
        worker = system.whereis("w", Worker)
        await worker.call(Worker.say, "hello")
        if sys.argv[2] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["asyncio", "uvloop", "kill"])
def test_what_nodes_print_is_on_the_heads_stderr_and_nothing_holds_its_pipes_afterwards(
    tmp_path: Path, how: str
) -> None:
    script = tmp_path / "talk.py"
    script.write_text(TALK)
    # A process that was left behind would hold the pipe, and this would not return.
    done = subprocess.run(
        [sys.executable, str(script), str(Path(__file__).parent), how], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == ""
    assert sorted(done.stderr.splitlines()) == ["hello to stderr", "hello to stdout"]
