"""An agent program from outside: listed, looked into, called, spoken to, followed and stopped by other processes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.command_line import CommandLine, end, list_of, until
from support.tmux import Terminal

PROGRAM = Path(__file__).parent / "program_from_outside.py"


@pytest.fixture
def office(command_line: CommandLine) -> Iterator[tuple[CommandLine, subprocess.Popen[bytes]]]:
    """A running program, and a command line beside it."""
    process = begin(command_line)
    try:
        until(lambda: ready(command_line), "the program")
        yield command_line, process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(30)
    assert list_of(command_line.sockets / "palmette") == []


def begin(line: CommandLine) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(PROGRAM)],
        env=line.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def ready(line: CommandLine) -> bool:
    found = line.json("ls")
    return len(found) == 1 and found[0]["agents"] == 3


Office = tuple[CommandLine, "subprocess.Popen[bytes]"]


def test_a_running_program_is_listed_and_its_socket_is_this_user_s_alone(office: Office) -> None:
    line, process = office
    (row,) = line.json("ls")
    assert (row["kind"], row["pid"], row["program"], row["programs"]) == ("program", process.pid, "office", 2)
    assert row["id"].startswith("office-")
    assert f"{row['id']}  program  pid {process.pid}  2 programs  3 agents" in line.run("ls")[0]
    assert line.json("ls", "nothing") == []
    (path,) = list_of(line.sockets / "palmette")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_status_shows_agents_edges_and_what_can_be_called(office: Office) -> None:
    line, _ = office
    found = line.json("status", "off")
    agents: dict[str, Any] = {each["path"]: each for each in found["agents"]}
    assert sorted(agents) == ["/office/below-1/helper", "/office/boss", "/office/clerk"]
    assert agents["/office/boss"]["may_message"] == ["clerk"]
    assert agents["/office/clerk"]["may_message"] == []
    assert found["programs"] == {"/office": "running", "/office/below-1": "running"}
    assert [each["name"] for each in found["endpoints"]] == ["add_task", "greet", "fall_over", "sleep"]
    out, _ = line.run("status")
    assert "add_task spec=STRING [priority=INTEGER]" in out
    assert "Queue a task." in out


def test_an_endpoint_is_called_with_words_that_its_hints_make_values_of(office: Office) -> None:
    line, _ = office
    assert line.json("call", "office", "add_task", "spec=12", "priority=3") == {"spec": "12", "priority": 3}
    assert line.run("call", "o", "greet", "name=Ann Lee")[0] == "hello Ann Lee\n"
    assert line.run("call", "office/below-1", "double", "x=21")[0] == "42\n"
    out, _ = line.run("logs")
    assert "/office  task  12" in out
    assert "/office  answered  add_task in" in out


def test_a_call_that_cannot_be_meant_ends_with_2_and_one_that_fails_with_1(office: Office) -> None:
    line, _ = office
    assert "exposes no 'nothing'; it exposes: add_task" in line.fails("call", "office", "nothing", code=2)
    assert "priority='high'" in line.fails("call", "office", "add_task", "spec=x", "priority=high", code=2)
    assert "missing a required argument: 'spec'" in line.fails("call", "office", "add_task", code=2)
    assert "'spec' is no argument" in line.fails("call", "office", "add_task", "spec", code=2)
    assert "given twice" in line.fails("call", "office", "add_task", "spec=1", "spec=2", code=2)
    assert "no program runs at /office/nobody" in line.fails("call", "office/nobody", "x", code=2)
    assert "KeyError: 'kaboom'" in line.fails("call", "office", "fall_over", code=1)
    assert "did not answer sleep within 0.2 s" in line.fails("call", "office", "sleep", "--timeout", "0.2", code=1)
    assert "'nobody' is not being played" in line.fails("call", "nobody", "x", code=1)
    assert line.json("ls")[0]["agents"] == 3


def test_a_message_reaches_an_agent_wherever_it_is(office: Office) -> None:
    line, _ = office
    line.run("send", "boss", "hello there")
    line.run("send", "below-1/helper", "and you", "--id", "office")
    until(lambda: line.run("logs")[0].count("settled") == 2, "the answers")
    out, _ = line.run("logs")
    assert "/office/boss  message  hello there" in out
    assert "/office  answered  heard: hello there" in out
    assert "/office/below-1/helper  message  and you" in out
    assert "no agent is called 'ghost'; there are: below-1/helper, boss, clerk" in line.fails(
        "send", "ghost", "x", code=2
    )


def test_logs_are_followed_until_the_program_ends(office: Office) -> None:
    line, process = office
    follower = CommandLine(line.folder)
    following = follower.start("logs", "--follow", "--json")
    try:
        other = subprocess.run(
            [*line.words, "call", "office", "add_task", "spec=later"],
            env=line.environment, cwd=line.folder, capture_output=True, timeout=60, check=True,
        )  # fmt: skip
        assert b"later" in other.stdout
        until(lambda: '"text":"later"' in (line.folder / "out").read_text(), "the line")
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        assert following.wait(30) == 0
    finally:
        end(following)
        (path,) = list_of(line.sockets / "palmette")
        assert line.json("ls") == []
        assert not path.exists(), "a killed program's socket is swept"


def test_attach_shows_what_an_agent_does_and_sends_what_is_typed(office: Office) -> None:
    line, _ = office
    attached = subprocess.Popen(
        [*line.words, "attach", "boss"],
        env=line.environment, cwd=line.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert attached.stdin is not None
    assert attached.stdout is not None
    try:
        attached.stdin.write("hello from outside\n")
        attached.stdin.flush()
        seen = ""
        while "settled  heard: hello from outside" not in seen:
            told = attached.stdout.readline()
            assert told, seen
            seen += told
        assert "message  hello from outside" in seen
        attached.stdin.close()
        assert attached.wait(30) == 0
    finally:
        attached.kill()
        attached.wait(30)
        attached.stdout.close()
    assert "no agent is called 'ghost'" in line.fails("attach", "ghost", code=2)


@pytest.mark.skipif(shutil.which("tmux") is None, reason="no tmux")
def test_ssh_opens_a_shell_on_an_agent_s_machine(office: Office) -> None:
    line, _ = office
    assert "needs a terminal" in line.fails("ssh", "below-1/helper", code=2)
    with Terminal(line.folder, line.environment) as terminal:
        terminal.type(" ".join([*line.words, "ssh", "helper", ";", "echo", "'shell' ended with $?"]))
        until(terminal.shows_a_prompt, "the prompt")
        terminal.type("stty size; echo $((6 * 7)) $PWD")
        until(lambda: "30 90" in terminal.screen() and "42 /" in terminal.screen(), "the shell's answer")
        assert str(line.machines) in terminal.screen().replace("\n", "")
        terminal.resize(70, 20)
        terminal.type("clear; stty size; sleep 600")
        until(lambda: "19 70" in terminal.screen() or "20 70" in terminal.screen(), "the new size")
        terminal.press("C-c")
        terminal.type("exit 7")
        until(lambda: "shell ended with 7" in terminal.screen(), "the end")


def test_an_agent_without_a_machine_has_no_shell(office: Office) -> None:
    line, _ = office
    told = subprocess.run(
        ["script", "-qec", " ".join([*line.words, "ssh", "boss"]), "/dev/null"],
        env=line.environment, cwd=line.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert "agent 'boss' has no machine" in told.stdout
    assert told.returncode == 1


def test_a_request_that_makes_no_sense_is_answered_and_hurts_nobody_here(office: Office) -> None:
    """Failure 10: there anybody on this host could call tools; here only this user gets as far as that."""
    line, process = office
    (path,) = list_of(line.sockets / "palmette")
    for nonsense in (b"", b"{}", b'{"verb": "format"}', b'{"verb": "call", "x": 1}', b"\xff", b"[" * 70_000):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(10)
            peer.connect(os.fspath(path))
            peer.sendall(nonsense + b"\n")
            with peer.makefile("rb") as file:
                assert b"the verbs are status" in file.readline()
    assert process.poll() is None
    assert line.json("ls")[0]["agents"] == 3


def test_stop_ends_a_program_in_order(office: Office) -> None:
    line, process = office
    assert "is stopping" in line.run("stop", "office")[0]
    process.wait(30)
    assert line.json("ls") == []
    assert "no run is being played" in line.fails("status", code=1)


def test_tree_and_why_work_on_programs_too(office: Office) -> None:
    line, _ = office
    out, _ = line.run("tree", "office")
    for word in ("office", "boss  AgentActor", "below-1  ProgramActor"):
        assert word in out
    assert "/office/boss is running; it never ended" in line.run("why", "/office/boss")[0]


def test_two_programs_are_told_apart_by_the_beginnings_of_their_ids(office: Office) -> None:
    line, _ = office
    second = begin(line)
    try:
        until(lambda: len(line.json("ls")) == 2, "the second")
        assert "say which" in line.fails("status", "office", code=2)
        ids = [row["id"] for row in line.json("ls")]
        assert {line.json("status", id)["id"] for id in ids} == set(ids)
        os.kill(second.pid, signal.SIGKILL)
        second.wait(30)
        assert len(line.json("ls")) == 1
    finally:
        second.kill()
        second.wait(30)
