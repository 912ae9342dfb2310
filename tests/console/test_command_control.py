"""A running command answers on its control socket: tree, why, status, stop; and it is played once at a time."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.command_line import CommandLine, end, list_of, programs, until


@pytest.fixture
def playing(command_line: CommandLine) -> Iterator[tuple[CommandLine, str, subprocess.Popen[str], CommandLine]]:
    """A run under way, its id, its process, and a second command line of the same folder."""
    programs(command_line.folder / "data", 6, seconds=60)
    process = command_line.start("run", "humaneval", "--data", "data", "--agent", "reference", "--concurrency", "2")
    try:
        until(lambda: bool(sockets(command_line)), "the control socket")
        other = CommandLine(command_line.folder)
        run = command_line.run_id()
        assert run is not None
        until(lambda: "MachineActor" in str(ask(command_line, {"verb": "tree"})), "the machines")
        yield command_line, run, process, other
    finally:
        end(process)
        CommandLine(command_line.folder).run("run", "trail", "--agent", "reference", "--limit", "1")
        assert command_line.leftovers() == []


def sockets(line: CommandLine) -> list[Path]:
    return [path for path in list_of(line.sockets / "palmette") if path.suffix == ".sock"]


def ask(line: CommandLine, request: object) -> Any:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(10)
        peer.connect(os.fspath(sockets(line)[0]))
        peer.sendall((request if isinstance(request, bytes) else json.dumps(request).encode()) + b"\n")
        return json.loads(peer.makefile("rb").readline())


def below(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node["children"]:
        yield from below(child)


Playing = tuple[CommandLine, str, "subprocess.Popen[str]", CommandLine]


def test_tree_and_why_show_a_run_that_is_being_played(playing: Playing) -> None:
    line, run, _, other = playing
    out, _ = other.run("tree", run[:3])
    assert run in out.splitlines()[0]
    for word in ("journal", "pool", "episodes", "machine  MachineActor", "evaluator  EvaluatorActor"):
        assert word in out
    actors = list(below(other.json("tree")))
    assert {"journal", "pool", "episodes", "runner"} <= {actor["name"] for actor in actors}
    assert "/pool is running; it never ended" in other.run("why", "pool")[0]
    agent = next(actor["path"] for actor in actors if actor["name"] == "agent")
    assert "normal" in other.run("why", agent)[0], "the agent has answered; the evaluator is at work"
    assert "no_such" in other.fails("why", "no_such", code=1)
    status = ask(line, {"verb": "status"})["status"]
    assert (status["run_id"], status["total"]) == (run, 6)


def test_a_request_that_makes_no_sense_is_answered_and_hurts_nobody(playing: Playing) -> None:
    line, run, process, _ = playing
    for nonsense in (b"", b"{}", b'{"verb": "format"}', b"\xff", b"[" * 70_000):
        assert "the verbs are tree, status, why and stop" in ask(line, nonsense)["error"]
    assert ask(line, {"verb": "tree"})["run"] == run
    assert process.poll() is None
    assert stat.S_IMODE(sockets(line)[0].stat().st_mode) == 0o600
    assert stat.S_IMODE(sockets(line)[0].parent.stat().st_mode) == 0o700


def test_a_run_is_not_resumed_while_somebody_plays_it(playing: Playing) -> None:
    _, run, process, other = playing
    sentence = other.fails("resume", run, code=1)
    assert f"process {process.pid}" in sentence
    assert f"palmette tree {run}" in sentence
    assert other.json("runs")[0]["state"] == "running"


def test_stop_is_an_interrupt_from_elsewhere(playing: Playing) -> None:
    _, run, process, other = playing
    assert f"palmette resume {run}" in other.run("stop")[0]
    assert process.wait(20) == 143
    assert "no run is being played" in other.fails("tree", code=1)
    assert other.json("runs")[0]["state"] == "interrupted"


def test_a_stale_socket_is_swept(command_line: CommandLine) -> None:
    folder = command_line.sockets / "palmette"
    folder.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(folder / "0123abcd.99999.sock"))
    assert "'0123' is not being played" in command_line.fails("tree", "0123", code=1)
    assert list_of(folder) == []


def test_why_reads_the_journal_of_a_run_that_is_over(command_line: CommandLine) -> None:
    programs(command_line.folder / "data", 1)
    command_line.environment["PATH"] = "/nowhere"
    command_line.run("run", "humaneval", "--data", "data", "--agent", "reference")
    out, _ = command_line.run("why", "/", "--run", str(command_line.run_id()))
    assert out.count("evaluator") >= 4
    assert "python3" in out
