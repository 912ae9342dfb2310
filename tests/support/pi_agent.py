"""The pi coding agent, installed from npm into a cache of this user's, once."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGE = "@earendil-works/pi-coding-agent"
VERSION = "0.74.2"
"""The newest that runs on Node 20."""


@pytest.fixture(scope="session")
def pi_command() -> list[str]:
    """How pi is started on this host; the test is skipped, with the reason, where it cannot be had."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("pi needs node and npm, and they are not installed")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "palmette-tests"
    cache.mkdir(parents=True, exist_ok=True)
    home = cache / f"pi-{VERSION}"
    with (cache / "pi.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # processes of one session, and sessions beside each other
        if not home.exists():
            _install(npm, home)
    cli = home / "node_modules" / PACKAGE / "dist" / "cli.js"
    assert cli.exists(), f"{PACKAGE} {VERSION} has no dist/cli.js; remove {home} to install it anew"
    return [node, str(cli)]


def _install(npm: str, home: Path) -> None:
    making = home.with_name(f"{home.name}.{os.getpid()}")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    command = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", f"{PACKAGE}@{VERSION}"]
    try:
        done = subprocess.run(
            [*command, "--prefix", str(making)], cwd=making, capture_output=True, text=True, timeout=100, check=False
        )
        if done.returncode != 0:
            pytest.skip(f"{PACKAGE} {VERSION} cannot be installed from npm: {done.stderr.strip()[-300:]}")
        making.rename(home)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{PACKAGE} {VERSION} cannot be installed from npm: it took more than 100 s")
    finally:
        shutil.rmtree(making, ignore_errors=True)
