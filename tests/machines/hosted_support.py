"""Hosted machines over the plain backend, for tests."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from plain_backend import PlainBackend

from palmette.machines.hosted import HostedMachine
from palmette.machines.identity import MachineId


class Bench:
    """Makes machines in a directory of the test's own, and remembers them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made: list[HostedMachine] = []

    def backend(self, **faults: object) -> PlainBackend:
        backend = PlainBackend(str(MachineId.new("test-run")), self.root)
        for name, value in faults.items():
            assert hasattr(backend, name), name
            setattr(backend, name, value)
        return backend

    def machine(self, backend: PlainBackend) -> HostedMachine:
        self.made.append(HostedMachine(backend, backend.id, "plain"))
        return self.made[-1]

    async def started(self, **faults: object) -> tuple[HostedMachine, PlainBackend]:
        backend = self.backend(**faults)
        machine = self.machine(backend)
        await machine.start()
        return machine, backend


@functools.cache
def oldest_python() -> str:
    """The oldest interpreter from 3.6 on that this host has, at least the one that runs the tests."""
    home = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    for minor in range(6, sys.version_info.minor):
        candidates = [shutil.which(f"python3.{minor}"), *map(str, sorted(home.glob(f"3.{minor}.*/bin/python3")))]
        for python in filter(None, candidates):
            asked = [python, "-c", "import sys; print(sys.version_info[1])"]
            done = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=False)
            if done.stdout.strip() == str(minor):
                return python
    return sys.executable


def altered(payload: Callable[[], bytes], old: str, new: str) -> Callable[[], bytes]:
    """A runner whose source says ``new`` where it says ``old``: for what a machine may lack."""
    assert payload().count(old.encode()) == 1, f"{old!r} does not stand in the runner's source once"
    text = payload().replace(old.encode(), new.encode())
    return lambda: text
