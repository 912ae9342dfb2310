"""Names that say who made a machine: run, controlling process, host.

Everything that the local backend creates carries such a name: the scratch directory, the control group, and the
environment tag of each process. So a reaper that finds a leftover can tell, without any other file, whether the
process that was responsible for it still lives.

A name is ``<owner>.<pid>.<start>.<place>.<nonce>``: the owner's run id, the controller's process id and its start
time (clock ticks after boot, field 22 of ``/proc/PID/stat``, so that a reused pid is not mistaken for it), the place
(hashes of host name, boot and pid namespace, in which alone a pid means anything), and a random part.

>>> MachineId.parse("run-7.1234.99887.0a1b2c3d4e5f.9f8e7d6c").owner
'run-7'
>>> MachineId.parse("lost+found") is None
True
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket
from functools import lru_cache
from typing import Literal

import msgspec

_NAME = re.compile(r"([A-Za-z0-9_-]{1,64})\.(\d{1,10})\.(\d{1,20})\.([0-9a-f]{12})\.([0-9a-f]{8})")
_OWNER = re.compile(r"[A-Za-z0-9_-]{1,64}")

Controller = Literal["alive", "dead", "elsewhere"]


class MachineId(msgspec.Struct, frozen=True):
    """One machine's name, taken apart."""

    owner: str
    pid: int
    start: int
    place: str
    nonce: str

    def __str__(self) -> str:
        return f"{self.owner}.{self.pid}.{self.start}.{self.place}.{self.nonce}"

    @classmethod
    def new(cls, owner: str) -> MachineId:
        """A name for a machine controlled by this process.

        Raises:
            ValueError: ``owner`` does not fit into a file name, a control group and an environment alike.
        """
        if not _OWNER.fullmatch(owner):
            raise ValueError(
                f"owner must be a run id of 1 to 64 letters, digits, '-' or '_' (it becomes part of file names), "
                f"got {owner!r}"
            )
        pid = os.getpid()
        return cls(owner, pid, _own_start(pid), _place(pid), secrets.token_hex(4))

    @classmethod
    def parse(cls, name: str) -> MachineId | None:
        """The machine that ``name`` names; ``None`` for anything that is not such a name."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        owner, pid, start, place, nonce = match.groups()
        return cls(owner, int(pid), int(start), place, nonce)

    def controller(self) -> Controller:
        """Whether the controlling process lives, as far as this process can tell.

        ``elsewhere`` means another host or another pid namespace that shares the directory: no judgement is possible
        from here, and whoever asks should leave the machine alone.
        """
        here = _place(os.getpid())
        if self.place[:4] != here[:4]:
            return "elsewhere"
        if self.place[4:8] != here[4:8]:
            return "dead"  # the same host was booted since
        if self.place[8:] != here[8:]:
            return "elsewhere"
        return "alive" if start_time(self.pid) == self.start else "dead"


def start_time(pid: int) -> int | None:
    """When ``pid`` started, in clock ticks after boot; ``None`` when there is no such process, or only its zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name (field 2) may hold blanks and parentheses: count from the last one.
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


@lru_cache(maxsize=1)
def _own_start(pid: int) -> int:
    start = start_time(pid)
    assert start is not None, "this process is alive"
    return start


@lru_cache(maxsize=1)
def _place(pid: int) -> str:
    """Twelve hex digits: four each for host name, boot and pid namespace. Cached per pid, so a fork looks again."""
    del pid
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    parts = (socket.gethostname(), boot, os.readlink("/proc/self/ns/pid"))
    return "".join(hashlib.blake2b(part.encode(), digest_size=2).hexdigest() for part in parts)
