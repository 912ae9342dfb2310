"""What the kernel and the supervisors promise, row by row (DESIGN §4 and §5), and which tests show it, in both worlds.

A row is shown by tests of ``tests/actors`` and ``tests/supervisors``; at least one of them runs in real time, and at
least one in the simulation (``support.worlds``). The rows are in ``kernel_rows`` and ``supervisor_rows``.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from kernel_rows import KERNEL
from supervisor_rows import SUPERVISORS

TESTS = Path(__file__).resolve().parents[1]

ROWS = {**KERNEL, **SUPERVISORS}


@pytest.fixture(scope="module")
def collected() -> dict[str, set[str]]:
    """The worlds in which each test is run, as pytest collects them."""
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", "-n", "0"]
    listed = subprocess.run(
        [*command, str(TESTS / "actors"), str(TESTS / "supervisors")],
        cwd=TESTS.parent, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert listed.returncode == 0, listed.stdout[-2000:] + listed.stderr[-2000:]
    found: dict[str, set[str]] = defaultdict(set)
    for name, parameters in re.findall(r"::test_(\w+)(?:\[(.*)\])?$", listed.stdout, flags=re.MULTILINE):
        found[name] |= {re.sub(r"\d+$", "", word) for word in parameters.split("-")} & {"real", "seed"}
    return found


@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_shown_in_real_time_and_in_the_simulation(row: str, collected: dict[str, set[str]]) -> None:
    missing = [name for name in ROWS[row] if name not in collected]
    assert not missing, f"no test of this name: {missing}"
    worlds = set[str]().union(*(collected[name] for name in ROWS[row]))
    assert worlds == {"real", "seed"}, f"{row}: shown in {sorted(worlds) or 'no world'} only"


def test_no_row_is_given_twice() -> None:
    assert len(ROWS) == len(KERNEL) + len(SUPERVISORS)
