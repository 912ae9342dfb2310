"""``@simulate`` and its command-line flag, used as a user would: in a pytest of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

FAILING = """
import asyncio
from palmette.actors import simulation
from palmette.actors.simulation import RandomFaults, simulate
from simulation import lost_wakeup

@simulate(seeds=1000)
async def test_the_lock_serves_everybody():
    await lost_wakeup.main()

@simulate(seeds=50)
async def test_time_passes():
    await asyncio.sleep(3600)
"""


def _pytest(folder: Path, *arguments: str) -> str:
    tests = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", str(folder), *arguments,
        ],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tests)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_a_failing_seed_is_named_and_brought_back_by_one_flag(tmp_path: Path) -> None:
    """The failure tells the seed; the flag runs that seed alone, and it fails again."""
    (tmp_path / "test_lock.py").write_text(FAILING)
    first = _pytest(tmp_path)
    assert "1 failed, 1 passed" in first, first
    seed = re.search(r"--palmette-seed (\d+)", first)
    assert seed is not None, first
    again = _pytest(tmp_path, "-k", "serves_everybody", "--palmette-seed", seed.group(1))
    assert "1 failed" in again
    assert f"seed {seed.group(1)}:" in again
