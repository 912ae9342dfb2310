"""Look from outside at what machines left: processes, control groups, directories, descriptors."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

from palmette.machines import tree


def list_root(root: Path) -> list[str]:
    return sorted(os.listdir(root)) if root.exists() else []


def open_descriptors() -> set[tuple[int, str]]:
    found: set[tuple[int, str]] = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add((int(name), os.readlink(f"/proc/self/fd/{name}")))
        except FileNotFoundError:  # listdir's own
            continue
    return found


def groups_of(pid: int) -> list[str]:
    """Control groups made by the controller ``pid``."""
    base = tree.own_group()
    if base is None or not base.exists():
        return []
    return [name for name in os.listdir(base) if name.startswith(tree.GROUP_PREFIX) and f".{pid}." in name]


def tagged(part: str) -> list[int]:
    """Processes whose machine tag contains ``part``; zombies have none."""
    found: list[int] = []
    for name in os.listdir("/proc"):
        try:
            block = Path("/proc", name, "environ").read_bytes() if name.isdigit() else b""
        except OSError:
            continue
        for entry in block.split(b"\0"):
            if entry.startswith(tree.MACHINE_TAG.encode() + b"=") and part.encode() in entry:
                found.append(int(name))
    return found


def running(word: str) -> list[int]:
    """Processes that have ``word`` as an argument."""
    found: list[int] = []
    for name in os.listdir("/proc"):
        try:
            words = Path("/proc", name, "cmdline").read_bytes().split(b"\0") if name.isdigit() else []
        except OSError:
            continue
        if word.encode() in words:
            found.append(int(name))
    return found


async def until(condition: Callable[[], bool], what: str, *, timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout} s for {what}"
        await asyncio.sleep(0.005)
