"""Machines of this host, beside what one would start by hand: a command, a machine's start, a fork.

By hand a command is an ``asyncio`` subprocess whose output is read to its end, or ``bwrap`` around the same program: no
deadline, no kill of what it leaves, no cap of its output. A fork by hand is ``cp -a`` of the directory and a command in
the copy.

A command line runs in the very shell that joins its control group (a third of a millisecond, most of it the kernel's
wait for all processors); a program takes one ``exec`` more than by hand, of that shell, which is as long again.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from palmette.machines.images import machine_for
from tests.bench.measure import Line, Settings, compare, rounds

HAND = "asyncio subprocess"
WALLS = ("bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--unshare-all", "--die-with-parent", "--")
HAND_WALLS = "bwrap, a process each"
COPY = "cp -a and a subprocess"


async def measure(settings: Settings) -> list[Line]:
    """The rows; those of ``local+bwrap`` only where there is a bwrap."""
    lines = await _measure(settings, "local", HAND, ())
    return lines + (await _measure(settings, "local+bwrap", HAND_WALLS, WALLS) if shutil.which("bwrap") else [])


async def _measure(settings: Settings, image: str, raw: str, walls: tuple[str, ...]) -> list[Line]:
    n, few = settings.size(100, 5), settings.size(10, 1)
    machine = machine_for(image, owner="bench")
    await machine.start()
    for number in range(20):
        await machine.put(f"file-{number}", b"x" * 1000)

    async def ours() -> None:
        assert (await machine.exec(["true"])).ok

    async def by_hand() -> None:
        await _by_hand(*walls, "true")

    raw_line = f"{raw}, sh -c"

    async def line() -> None:
        assert (await machine.exec("true")).ok

    async def line_by_hand() -> None:
        await _by_hand(*walls, "/bin/sh", "-c", "true")

    async def started() -> None:
        another = machine_for(image, owner="bench")
        await another.start()
        assert (await another.exec(["true"])).ok
        await another.stop()

    async def forked() -> None:
        twin = await machine.fork()
        assert (await twin.exec(["true"])).ok
        await twin.stop()

    with tempfile.TemporaryDirectory() as directory:
        source, copy = _files(directory), Path(directory, "copy")

        async def copied() -> None:
            await _by_hand("cp", "-a", str(source), str(copy))
            await _by_hand(*walls, "true")
            shutil.rmtree(copy)

        costs = await rounds(
            settings.rounds,
            {
                "exec": _each(n, ours),
                raw: _each(n, by_hand),
                "line": _each(n, line),
                raw_line: _each(n, line_by_hand),
                "start": _each(few, started),
                "fork": _each(few, forked),
                COPY: _each(few, copied),
            },
        )
    await machine.stop()
    return [
        compare(f"{image}: a command line", settings.loop, costs, "line", raw_line, at_most=1.5),
        compare(f"{image}: a program", settings.loop, costs, "exec", raw, at_most=1.5),
        compare(f"{image}: start, a command, stop", settings.loop, costs, "start", raw),
        compare(f"{image}: fork, a command, stop", settings.loop, costs, "fork", COPY),
    ]


def _files(directory: str) -> Path:
    source = Path(directory, "source")
    source.mkdir()
    for number in range(20):
        (source / f"file-{number}").write_bytes(b"x" * 1000)
    return source


def _each(n: int, work: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[float]]:
    async def measured() -> float:
        begun = time.perf_counter()
        for _ in range(n):
            await work()
        return (time.perf_counter() - begun) / n

    return measured


async def _by_hand(*argv: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    await process.communicate()
    assert process.returncode == 0
