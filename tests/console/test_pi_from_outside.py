"""A second terminal beside a running pi agent: into its conversation, and onto its machine."""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command_line import CommandLine, list_of, until
from support.pi_agent import pi_command as pi_command
from support.tmux import Terminal

PROGRAM = Path(__file__).parent / "pi_program_from_outside.py"


@pytest.fixture
def workshop(command_line: CommandLine, pi_command: list[str]) -> Iterator[CommandLine]:
    """A running program with a pi, and a command line beside it."""
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), f"pi:{shlex.join(pi_command)}"],
        env=command_line.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: [row["agents"] for row in command_line.json("ls")] == [1], "the program")
        yield command_line
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert list_of(command_line.sockets / "palmette") == []
    assert list_of(command_line.machines) == []


@pytest.mark.skipif(shutil.which("tmux") is None, reason="no tmux")
def test_a_person_talks_to_a_running_pi_and_looks_at_its_machine(workshop: CommandLine) -> None:
    palmette = shlex.join(workshop.words)
    with Terminal(workshop.folder, workshop.environment, columns=150) as terminal:
        terminal.type(f"{palmette} attach coder; echo left with $?")
        terminal.type("hello there")
        until(lambda: "settled  heard: hello there" in terminal.screen(), "pi's answer")
        terminal.type("write a note")
        until(lambda: "settled  it is written" in terminal.screen(), "pi's tool")
        terminal.press("C-d")
        until(lambda: "left with 0" in terminal.screen(), "the end of the conversation")
        terminal.type(f"clear; {palmette} ssh coder; echo the shell ended with $?")
        until(terminal.shows_a_prompt, "the machine's prompt")
        terminal.type("cat note.txt; ls -A; exit 7")
        until(lambda: "the shell ended with 7" in terminal.screen(), "the end of the shell")
        assert "written by pi" in terminal.screen()
        assert ".palmette" in terminal.screen()
    assert workshop.json("ls")[0]["agents"] == 1
