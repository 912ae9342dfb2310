"""Whole programs with process nodes, seen from outside."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
import uvloop

from palmette.actors import hosting

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
        if sys.argv[2] == "loop":
            print(await worker.call(Worker.loop_module))
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


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_the_environment_chooses_the_loop_of_nodes(tmp_path: Path, loop: str) -> None:
    script = tmp_path / "talk.py"
    script.write_text(TALK)
    environment = {**os.environ, "PALMETTE_NODE_LOOP": loop}
    done = subprocess.run(
        [sys.executable, str(script), str(Path(__file__).parent), "loop"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.partition(".")[0].strip() == loop


def test_uvloop_is_the_default_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PALMETTE_NODE_LOOP", raising=False)
    loop = hosting.new_loop()
    loop.close()
    assert isinstance(loop, uvloop.Loop)
    monkeypatch.setitem(sys.modules, "uvloop", None)
    loop = hosting.new_loop()
    loop.close()
    assert isinstance(loop, asyncio.SelectorEventLoop)
    monkeypatch.setenv("PALMETTE_NODE_LOOP", "trio")
    with pytest.raises(ValueError, match="PALMETTE_NODE_LOOP is uvloop or asyncio, not 'trio'"):
        hosting.new_loop()
