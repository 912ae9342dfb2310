"""The examples of agent programs run offline, as a user would run them, and say what their docstrings promise."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.pi_agent import pi_command as pi_command

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "programs"

SAYS = {
    "single_worker.py": ["the text has 10 words"],
    "composition.py": ["Trees stand tall and patient."],
    "gather.py": ["coffee: 3", "tea: 2"],
    "retry_on_failure.py": [
        "attempt 1 submitted: 41",
        "attempt 1 failed: 41 is too small",
        "attempt 2 submitted: 42",
        "the answer is 42",
    ],
    "worker_pool.py": ["apple: APPLE", "quince: QUINCE", "{'waiting': 0, 'finished': 5}"],
    "monitor.py": [
        "overloaded: {'rate': 8, 'errors': 3}",
        "noted: the rate is 2 per second",
        "relaxed: {'rate': 2}",
        "the monitor's tools: service_set_rate",
    ],
    "own_backend.py": ["my niceness is 15"],
}


def test_every_example_of_a_program_is_run_here() -> None:
    """A new example needs a line above."""
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*SAYS, "local_model.py"}


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A directory whose name is short enough for a socket's."""
    with tempfile.TemporaryDirectory(prefix="plm-", dir="/tmp") as path:
        yield Path(path)


@pytest.mark.parametrize("name", sorted(SAYS))
def test_an_example_of_a_program_says_what_it_promises_and_leaves_nothing(
    name: str, tmp_path: Path, sockets: Path
) -> None:
    run(name, tmp_path, sockets)


@pytest.mark.parametrize("name", sorted(SAYS))
def test_an_example_of_a_program_does_the_same_with_the_pi_coding_agent(
    name: str, tmp_path: Path, sockets: Path, pi_command: list[str]
) -> None:
    """pi drives the same model, as a process on a machine of each agent's own."""
    run(name, tmp_path, sockets, "--harness", f"pi:{shlex.join(pi_command)}")


def run(name: str, tmp_path: Path, sockets: Path, *options: str) -> None:
    """As a user would; afterwards there is nothing in any place where something could be."""
    places = {"PALMETTE_MACHINES": tmp_path / "machines", "XDG_RUNTIME_DIR": sockets, "TMPDIR": tmp_path / "t"}
    for place in places.values():
        place.mkdir(mode=0o700, exist_ok=True)
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *options],
        env={**os.environ, **{variable: str(place) for variable, place in places.items()}},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for line in SAYS[name]:
        assert line in done.stdout.splitlines()
    assert done.stderr == ""
    left = [
        path for place in places.values() for path in place.rglob("*") if path != places["XDG_RUNTIME_DIR"] / "palmette"
    ]
    assert left == []
