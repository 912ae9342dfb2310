"""Short programs on the host: is it fit, is a machine there, end it, clear what is left of others.

A machine's directory on the host is ``DIRECTORY/palmette-MACHINE``, ours alone (0700), with ``work`` and ``tmp`` in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TypeVar

import msgspec

from palmette.machines import bootstrap
from palmette.machines.errors import ImageUnusable, MachineError
from palmette.machines.identity import MachineId
from palmette.machines.reaper import ReapReport
from palmette.machines.ssh.address import Address, SshImage
from palmette.machines.ssh.host import PREFIX
from palmette.machines.ssh.pool import Pool, Seat

T = TypeVar("T", bound=msgspec.Struct)

SECONDS = 10.0
"""For an errand. Ending a machine takes 5 where its processes will not die."""
_MODULES = ("errors", "runner.libc", "paths", "files", "runner.processes", "ssh.host")
_MARK = "palmette-is-here"
_FIT = """
echo palmette-is-here
cd "$1" && [ -w . ] || { echo "there is no directory $1 that we may write to" >&2; exit 1; }
pwd -P
command -v python3 >/dev/null || { echo "there is no python3 on PATH=$PATH" >&2; exit 1; }
exec python3 -I -S -B -c '
import sys
sys.exit("its python3 is %d.%d" % sys.version_info[:2] if sys.version_info < (3, 6) else 0)'
"""
_RUN = """
echo "$1"
d=$2; shift 2
e=$(mkdir -m 700 "$d" 2>&1) || { [ -d "$d" ] && [ -O "$d" ] && [ ! -L "$d" ]; } || { echo "$e" >&2; exit 125; }
mkdir -m 700 "$d/tmp" 2>/dev/null
env -i PATH="$PATH" LANG="${LANG:-C.UTF-8}" USER="$USER" LOGNAME="$LOGNAME" "$@"
r=$?
[ -e "$d/work" ] || rmdir "$d/tmp" "$d" 2>/dev/null
exit $r
"""


class Found(msgspec.Struct, frozen=True):
    """The machines on a host, by name."""

    directories: dict[str, float]
    """Seconds since each last heard of its controller."""
    running: list[str]


class Ended(msgspec.Struct, frozen=True):
    """What was left of a machine."""

    killed: int
    left: int
    error: str


def directory_of(machine: str, parent: str) -> str:
    """Where ``machine`` is on its host; ``parent`` is what :func:`check_host` returned."""
    return f"{parent.rstrip('/')}/{PREFIX}{machine}"


def wrapped(argv: Sequence[str], directory: str, mark: str) -> list[str]:
    """``argv`` with the host's PATH and little else in its environment, once the machine's directory is there.

    It says ``mark`` first, so that what the login shell says is not taken for it. Should the program end before it
    has made its working directory (its controller died just now), the directory is removed again.
    """
    return ["/bin/sh", "-c", _RUN, "sh", mark, directory, *argv]


async def check_host(pool: Pool, address: Address, seat: Seat, directory: str) -> str:
    """See that machines can be made in ``directory``, once per connection; its real path there.

    Raises:
        ImageUnusable: what is missing.
    """
    known = seat.connection.directories
    if directory not in known:
        answer = await pool.errand(address, seat, ["/bin/sh", "-c", _FIT, "sh", directory], seconds=SECONDS)
        _, mark, real = answer.stdout.partition(f"{_MARK}\n")
        if not mark:
            said = " ".join(f"{answer.stdout} {answer.complaint}".split())[-300:]
            raise ImageUnusable(f"{address} lets us in, but its login shell does not run commands; it says {said!r}")
        if answer.status != 0:
            raise ImageUnusable(
                f"{address} is not fit to run machines: {answer.complaint[-300:]}; it needs python3 (3.6 or newer), "
                "and a directory to write to (?directory=/path)"
            )
        known[directory] = real.strip("\n")
    return known[directory]


async def exists(pool: Pool, address: Address, seat: Seat, directory: str, *, seconds: float) -> bool:
    """Whether there is that directory."""
    answer = await pool.errand(address, seat, ["/bin/sh", "-c", 'test -d "$1"', "sh", directory], seconds=seconds)
    return answer.status == 0


async def kill(pool: Pool, address: Address, seat: Seat | None, machine: str) -> Ended:
    """Kill every process of a machine, its runner included."""
    return await _ask(pool, address, seat, ["kill", machine], Ended)


async def end(pool: Pool, address: Address, seat: Seat | None, machine: str, directory: str) -> Ended:
    """Kill every process of a machine and remove its directory."""
    return await _ask(pool, address, seat, ["end", machine, directory], Ended)


async def reap(pool: Pool, address: Address, image: SshImage, *, owner: str | None, unheard: float) -> ReapReport:
    """End the machines on a host whose controller is dead; see :func:`palmette.machines.ssh.reap`."""
    seat = await pool.seat(address)
    try:
        parent = await check_host(pool, address, seat, image.directory)
        found = await _ask(pool, address, seat, ["list", parent], Found)
        directories: list[str] = []
        elsewhere: list[str] = []
        failed: list[str] = []
        processes = alive = 0
        for name in sorted({*found.directories, *found.running}):
            machine = MachineId.parse(name)
            if machine is None or (owner is not None and machine.owner != owner):
                continue
            verdict = machine.controller()
            if verdict == "elsewhere" and found.directories.get(name, 0.0) > unheard:
                verdict = "dead"
            if verdict == "alive":
                alive += 1
            elif verdict == "elsewhere":
                elsewhere.append(name)
            else:
                ended = await end(pool, address, seat, name, directory_of(name, parent))
                processes += ended.killed
                if trouble := complaint(ended):
                    failed.append(f"{name}: {trouble}")
                elif name in found.directories:
                    directories.append(name)
    finally:
        await seat.release()
    return ReapReport(
        directories=tuple(directories),
        processes=processes,
        alive=alive,
        elsewhere=tuple(elsewhere),
        failed=tuple(failed),
    )


def complaint(ended: Ended) -> str:
    """What could not be done; empty when all is well."""
    if ended.left:
        return f"{ended.left} process(es) survived SIGKILL; they hang in the kernel, the host needs a look"
    return ended.error


async def _ask(pool: Pool, address: Address, seat: Seat | None, words: list[str], kind: type[T]) -> T:
    source = _program()
    answer = await pool.errand(address, seat, [*bootstrap.loader(source), *words], stdin=source, seconds=SECONDS)
    try:
        # The last line: what comes before it is the login shell's.
        return msgspec.json.decode(answer.stdout.strip().rpartition("\n")[2], type=kind)
    except msgspec.DecodeError as error:
        raise MachineError(
            f"{address} did not {words[0]} machines: status {answer.status}, {answer.complaint[-500:]!r}"
        ) from error


@cache
def _program() -> bytes:
    return bootstrap.program(_MODULES, _MODULES[-1])
