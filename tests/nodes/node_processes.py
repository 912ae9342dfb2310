"""Looking at the processes of a system: the host, Thespian's, the nodes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import psutil

from palmette.actors import ActorDied, System
from palmette.actors.housing import Host

T = TypeVar("T")

PATIENCE = 20.0
"""Seconds to wait for what must happen."""


async def until(condition: Callable[[], bool], what: str = "") -> None:
    """Wait for ``condition``."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what or condition}"
        await asyncio.sleep(0.002)


async def until_call(call: Callable[[], Awaitable[T]], satisfied: Callable[[T], bool]) -> T:
    """Repeat a call until its answer is ``satisfied``; while nobody is there to answer, wait."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            answer = await call()
        except ActorDied:
            answer = None
        if answer is not None and satisfied(answer):
            return answer
        assert time.monotonic() < deadline, f"the last answer was {answer}"
        await asyncio.sleep(0.002)


def until_now(condition: Callable[[], bool], what: str = "") -> None:
    """Wait for ``condition`` without a loop."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what or condition}"
        time.sleep(0.005)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def host_of(system: System) -> int:
    """The host's process id."""
    host = system.nodes._host  # pyright: ignore[reportPrivateUsage]
    assert isinstance(host, Host)
    process = host._process  # pyright: ignore[reportPrivateUsage]
    assert process is not None
    return process.pid


@dataclass(frozen=True)
class Family:
    """The processes below a head, by what they do."""

    host: int
    admin: int
    keeper: int
    logger: int
    nodes: tuple[int, ...]

    @property
    def all(self) -> tuple[int, ...]:
        return (self.host, self.admin, self.keeper, self.logger, *self.nodes)


def family(host: int, node: int) -> Family:
    """Who is who below ``host``, of whose nodes ``node`` is one."""
    keeper = psutil.Process(node).parent()
    assert keeper is not None
    admin = keeper.parent()
    assert admin is not None
    assert admin.ppid() == host
    [logger] = [pid for pid in living_children(admin.pid) if pid != keeper.pid]
    return Family(host, admin.pid, keeper.pid, logger, tuple(living_children(keeper.pid)))


def living_children(pid: int) -> list[int]:
    """Thespian's processes among the children of one. (There is multiprocessing's own, too.)"""
    found: list[int] = []
    for process in psutil.Process(pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended, or is about to be waited for
            if process.status() != psutil.STATUS_ZOMBIE and "--multiprocessing-fork" in process.cmdline():
                found.append(process.pid)
    return found
