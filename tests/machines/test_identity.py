"""Names of machines say who made them."""

from __future__ import annotations

import os
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from palmette.machines.identity import MachineId, start_time


@given(st.from_regex(r"\A[A-Za-z0-9_-]{1,64}\Z"))
def test_a_name_can_be_read_back(owner: str) -> None:
    machine = MachineId.new(owner)
    assert MachineId.parse(str(machine)) == machine
    assert machine.pid == os.getpid()
    assert machine.controller() == "alive"


@given(st.text())
def test_any_other_text_is_no_name(text: str) -> None:
    assert MachineId.parse(text) is None


def test_two_names_differ() -> None:
    assert MachineId.new("run") != MachineId.new("run")


def test_a_process_that_ended_and_was_not_waited_for_has_no_start_time() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as program:
        os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
        assert start_time(program.pid) is None
    assert start_time(program.pid) is None


def test_a_name_with_blanks_and_parentheses_does_not_confuse_it(tmp_path: object) -> None:
    script = "import ctypes; ctypes.CDLL(None).prctl(15, b'a) Z (b', 0, 0, 0); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        program.stdout.readline()
        started = start_time(program.pid)
        program.communicate(b"\n", timeout=20)
    own = start_time(os.getpid())
    assert started is not None
    assert own is not None
    assert started >= own
