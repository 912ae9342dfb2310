"""``python -m tests.bench.run [--out DIRECTORY] [--only ROW …]``: what palmette's kernel costs on this machine.

Each row runs in a process of its own, so that none leaves its heap to the next; the inline ones run on asyncio's event
loop and on uvloop. The result is a table on the terminal, and ``bench.md`` and ``bench.svg`` in the directory.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec

from tests.bench import (
    calls,
    episodes,
    links,
    machines_docker,
    machines_e2b,
    machines_local,
    machines_ssh,
    memory,
    messages,
    processes,
    report,
    restarts,
    spawning,
    wide,
)
from tests.bench.measure import Line, LoopName, Settings, run

ROWS: dict[str, Callable[[Settings], Awaitable[list[Line]]]] = {
    "calls": calls.measure,
    "messages": messages.measure,
    "memory": memory.measure,
    "spawning": spawning.measure,
    "restarts": restarts.measure,
    "processes": processes.measure,
    "links": links.measure,
    "wide": wide.measure,
    "episodes": episodes.measure,
    "local": machines_local.measure,
    "docker": machines_docker.measure,
    "ssh": machines_ssh.measure,
    "e2b": machines_e2b.measure,
}
ON_ONE_LOOP = ("memory", "processes", "local", "docker", "ssh", "e2b")
"""Rows that the kind of loop does not matter for."""
ROW_SECONDS = 600.0


def loops(row: str) -> tuple[LoopName, ...]:
    """What a row is measured on."""
    if row in ON_ONE_LOOP or importlib.util.find_spec("uvloop") is None:
        return ("asyncio",)
    return ("asyncio", "uvloop")


def measure(row: str, settings: Settings) -> list[Line]:
    """One row, in this process."""

    async def main() -> list[Line]:
        return await ROWS[row](settings)

    return run(main(), settings.loop)


def measure_apart(row: str, settings: Settings) -> list[Line]:
    """One row, in a process of its own. Raises CalledProcessError if it fails."""
    with tempfile.TemporaryDirectory() as directory:
        result = Path(directory) / "lines.json"
        command = [sys.executable, "-m", "tests.bench.run", "--row", row, "--loop", settings.loop, "--to", str(result)]
        subprocess.run([*command, *(["--small"] if settings.small else [])], check=True, timeout=ROW_SECONDS)
        return msgspec.json.decode(result.read_bytes(), type=list[Line])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out"), help="where bench.md and the plot go (default: out)")
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS), help="these rows")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that it runs")
    inner = parser.add_argument_group("for the processes of the rows")
    inner.add_argument("--row", choices=list(ROWS), help="measure this row here")
    inner.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio", help="with --row: on this loop")
    inner.add_argument("--to", type=Path, help="with --row: write its lines to this file")
    options = parser.parse_args(arguments)
    if options.row is not None:
        lines = measure(options.row, Settings(small=options.small, loop=options.loop))
        options.to.write_bytes(msgspec.json.encode(lines))
        return 0
    lines: list[Line] = []
    for row in options.only:
        for loop in loops(row):
            print(f"{row} on {loop} …", file=sys.stderr)
            lines += measure_apart(row, Settings(small=options.small, loop=loop))
    report.show(lines)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "bench.md").write_text(report.page(lines, date=datetime.date.today().isoformat()))
    written = ["bench.md"]
    if report.plot(lines, options.out / "bench.svg"):
        written.append("bench.svg")
    print(f"written to {options.out}: {', '.join(written)}")
    missed = [line.work for line in lines if line.met is False]
    if missed:
        print(f"missed: {', '.join(missed)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
