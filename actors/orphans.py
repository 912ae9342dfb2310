"""Life and death among processes: adopt the orphans of one's descendants, find descendants, wait for a death.

Linux has the means; elsewhere deaths are noticed by looking once a second, and orphans go to the operating system.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Final

POLL_SECONDS: Final = 1.0
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends: also one that is deep in native code."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def descendants() -> list[int]:
    """Process ids of living (not defunct) descendants, by /proc; empty where there is none."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The command name, in parentheses, may contain anything; state and parent follow it.
            state, parent = entry.read_text(errors="replace").rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if state not in "ZX":
            parents[int(entry.parent.name)] = int(parent)
    mine = {os.getpid()}
    found: list[int] = []
    grown = True
    while grown:
        new = [pid for pid, parent in parents.items() if parent in mine and pid not in mine]
        mine.update(new)
        found += new
        grown = bool(new)
    return found


def open_process(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends; ``None`` if it has, or if there are none here."""
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def wait_for_death(pid: int) -> None:
    """Return once the process ``pid`` has ended."""
    process = open_process(pid)
    if process is not None:
        try:
            select.select([process], [], [])
        finally:
            os.close(process)
    while sys.platform != "linux":
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(POLL_SECONDS)
