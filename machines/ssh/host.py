"""What we do on the host of ssh machines besides running them: see which there are, and end them.

Sent and started by :mod:`palmette.machines.ssh.errands`; says what it did as one line of JSON.

This file runs on other hosts: Python 3.6, standard library only.
"""

import json
import os
import sys
import time
from contextlib import suppress

from palmette.machines.files import remove_tree
from palmette.machines.runner.processes import kill_tagged

PREFIX = "palmette-"
TAG = b"PALMETTE_MACHINE="


def main() -> None:
    """``list DIRECTORY``, ``kill MACHINE``, or ``end MACHINE DIRECTORY-OF-THE-MACHINE``."""
    what, arguments = sys.argv[1], sys.argv[2:]
    if what == "list":
        answer = found(arguments[0])
    else:
        answer = {"killed": len(processes_of(arguments[0])), "left": _kill(arguments[0]), "error": ""}
        if what == "end":
            try:
                remove_tree(arguments[1])
            except OSError as error:
                answer["error"] = str(error)
    print(json.dumps(answer))


def found(directory: str) -> "dict[str, object]":
    """Machines by their directories (and since when, in seconds, nothing was heard there), and by their processes."""
    directories: dict[str, float] = {}
    for entry in os.scandir(directory):
        if entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False):
            with suppress(OSError):  # it went away
                if entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                    directories[entry.name[len(PREFIX) :]] = time.time() - _renewed(entry.path)
    return {"directories": directories, "running": sorted(set(_machines().values()))}


def processes_of(machine: str) -> "list[int]":
    """Its processes."""
    return [pid for pid, name in _machines().items() if name == machine]


def _machines() -> "dict[int, str]":
    """The machine that each process belongs to, of those that we may look into."""
    machines: dict[int, str] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):  # ended, or another user's
                with open(f"/proc/{name}/environ", "rb") as file:
                    words = file.read().split(b"\0")
                for word in words:
                    if word.startswith(TAG):
                        machines[int(name)] = os.fsdecode(word[len(TAG) :])
    return machines


def _renewed(path: str) -> float:
    with suppress(OSError):
        return os.stat(os.path.join(path, "lease")).st_mtime
    return os.stat(path).st_mtime


def _kill(machine: str) -> int:
    return kill_tagged(TAG[:-1].decode("ascii"), machine, frozenset((os.getpid(),)))
