"""The examples are programs: they run, and they say what their docstrings promise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

SAYS = {
    "counter.py": [
        "10 + 5 = 15",
        "/counter died: ValueError: step must be >= 0, got -1",
        "10 + 1 = 11 (incarnation 2)",
    ],
    "workers.py": ["left: 17984 primes below 200000", "right: 17984 primes below 200000", "killed"],
    "own_benchmark.py": [
        "hello  scored        1.0",
        "world  scored        0.0",
        "crash  infra_failed",
        "requested 3 = 2 scored + 1 infra failed",
    ],
}


def test_every_example_is_run_here() -> None:
    """A new example needs a line above."""
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SAYS)


@pytest.mark.parametrize("name", sorted(SAYS))
def test_an_example_runs_says_what_it_promises_and_leaves_no_machine(name: str, tmp_path: Path) -> None:
    """As a user would run it: a script, in a process of its own."""
    machines = tmp_path / "machines"
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        env={**os.environ, "PALMETTE_MACHINES": str(machines)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for line in SAYS[name]:
        assert line in done.stdout
    assert not machines.exists() or not list(machines.iterdir())
