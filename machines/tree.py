"""Kill a command with all that it started: children, daemons, double forks, new sessions.

::

    Tree             what one command started
    ├── GroupTree    a control group of its own: nothing that forks can leave it, one write kills all of it
    └── TaggedTree   where no control group can be made: a tag in the environment, looked for in /proc

``GroupTree`` needs a writable cgroup2 hierarchy with ``cgroup.kill`` (Linux 5.14): root on most hosts, an ordinary
user inside a systemd user session. :func:`writable_group` tries it out once per process. Its removal is also the
proof that nothing lives: the kernel refuses to remove a group with a living process in it, so a command that left
nothing behind costs one ``rmdir``.

``TaggedTree`` kills the command's process group and then everything whose environment carries the command's tag.
Two kinds of process escape it: one that cleared its environment *and* left the process group *and* lost its parent
(``env -i setsid``), and one that made itself undumpable. As root a process can also walk out of its control group by
writing to another one. Who has to hold such a program wants a container: another backend.

All functions here block (they wait for processes to die): call them in a thread.
"""

from __future__ import annotations

import errno
import os
import select
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from palmette.machines.errors import MachineLost
from palmette.machines.identity import MachineId

EXEC_TAG = "PALMETTE_EXEC"
MACHINE_TAG = "PALMETTE_MACHINE"
GROUP_PREFIX = "palmette."
KILL_DEADLINE = 5.0
"""Seconds that something may take to die of SIGKILL (a process in uninterruptible sleep does not)."""
_KERNEL_THREAD = 0x00200000
"""``PF_KTHREAD`` of the kernel's ``include/linux/sched.h``."""
_EXECS = 10
"""Programs that one process may become while it is looked at."""
_EXEC_SECONDS = 0.2
"""Time for becoming another program. Spent in vain beside a process that is busy and has cleared its environment."""


class Tree(Protocol):
    """All processes of one command."""

    def entry(self) -> str:
        """Shell code that the command's first process runs to become part of the tree; may be empty."""
        ...

    def gone(self) -> bool:
        """Quick and certain: nothing lives and nothing of the tree is left. ``False`` may also mean "cannot tell"."""
        ...

    def kill(self) -> int:
        """Kill what lives and clean up; how many processes it found. Blocks.

        Raises:
            MachineLost: something survived.
        """
        ...


class GroupTree:
    """A control group per command."""

    def __init__(self, base: Path, exec_id: str) -> None:
        self._path = str(base / (GROUP_PREFIX + exec_id))
        os.mkdir(self._path)

    def entry(self) -> str:
        return f"echo 0 >{shlex.quote(self._path)}/cgroup.procs"

    def gone(self) -> bool:
        try:
            os.rmdir(self._path)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
                return False
            raise
        return True

    def kill(self) -> int:
        return kill_group(Path(self._path))


class TaggedTree:
    """A tag in the environment of every process."""

    def __init__(self, exec_id: str) -> None:
        self._exec_id = exec_id

    def entry(self) -> str:
        return ""

    def gone(self) -> bool:
        return False

    def kill(self) -> int:
        return kill_tagged(EXEC_TAG, lambda value: value == self._exec_id)


def open_tree(exec_id: str) -> Tree:
    """The best tree that this host has. The first call in a process tries the host out and blocks for 2 ms."""
    base = writable_group()
    return TaggedTree(exec_id) if base is None else GroupTree(base, exec_id)


def kill_group(path: Path) -> int:
    """Kill all in a control group and those below it, then remove them. How many processes were found."""
    deadline = time.monotonic() + KILL_DEADLINE
    try:
        found = sum(_count(procs) for procs in path.rglob("cgroup.procs"))
        (path / "cgroup.kill").write_text("1")
    except FileNotFoundError:
        return 0
    pause = 0.0005
    while True:
        try:
            for directory, _, _ in os.walk(path, topdown=False):
                os.rmdir(directory)
        except FileNotFoundError:
            return found
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                raise
            if time.monotonic() > deadline:
                raise MachineLost(
                    f"processes in the control group {path.name} survived SIGKILL for {KILL_DEADLINE:g} s; "
                    "they hang in the kernel, the host needs a look"
                ) from error
            time.sleep(pause)
            pause = min(2 * pause, 0.02)
        else:
            return found


def kill_tagged(tag: str, matches: Callable[[str], bool]) -> int:
    """Kill this user's processes whose environment has ``tag`` with a value that ``matches``. How many were found.

    Passes over /proc until one finds nothing: what forked during a pass is found by the next, and so is what was just
    becoming another program, and had no environment to look into.
    """
    deadline = time.monotonic() + KILL_DEADLINE
    patience = time.monotonic() + _EXEC_SECONDS
    seen: set[int] = set()
    while True:
        found, unsure = _kill_pass(tag, matches)
        seen |= found
        now = time.monotonic()
        if found:
            patience = now + _EXEC_SECONDS
        elif not unsure or now > patience:
            return len(seen)
        else:
            time.sleep(0.001)
        if found and now > deadline:
            raise MachineLost(
                f"{len(found)} process(es) tagged {tag} survived SIGKILL for {KILL_DEADLINE:g} s (pids "
                f"{sorted(found)[:5]}); they hang in the kernel or fork without end, the host needs a look"
            )


class _InExec(Exception):
    """A process has left its old program, and has not yet got the environment of its new one."""


def _kill_pass(tag: str, matches: Callable[[str], bool]) -> tuple[set[int], bool]:
    """Who was killed, and whether there was somebody of whom nothing could be told."""
    own, uid, prefix = os.getpid(), os.geteuid(), tag.encode() + b"="
    killed: dict[int, int] = {}
    unsure = False
    try:
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) == own:
                continue
            try:
                value = _tag_of(name, uid, prefix)
                if value is None or not matches(value):
                    continue
                # The descriptor first, then a second look: the pid may have been given to another process.
                pidfd = os.pidfd_open(int(name))
                killed[int(name)] = pidfd
                if _tag_of(name, uid, prefix) == value:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # ended meanwhile, or not ours to look into
            except _InExec:
                unsure = True
        poller = select.poll()
        for pidfd in killed.values():
            poller.register(pidfd, select.POLLIN)
        left, until = len(killed), time.monotonic() + 0.5
        while left and (wait := until - time.monotonic()) > 0:
            for pidfd, _ in poller.poll(wait * 1000):
                poller.unregister(pidfd)
                left -= 1
    finally:
        for pidfd in killed.values():
            os.close(pidfd)
    return set(killed), unsure


def _tag_of(pid: str, uid: int, prefix: bytes) -> str | None:
    for entry in _environment(pid, uid).split(b"\0"):
        if entry.startswith(prefix):
            return entry[len(prefix) :].decode("ascii", "replace")
    return None


def _environment(pid: str, uid: int) -> bytes:
    """A process's environment; empty for another user's, a zombie's and the kernel's own. Raises _InExec."""
    for _ in range(_EXECS):
        fd = os.open(f"/proc/{pid}/environ", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if os.fstat(fd).st_uid != uid:
                return b""
            block = bytearray()
            while chunk := os.read(fd, 1 << 16):
                block += chunk
        finally:
            os.close(fd)
        if block or not _has_environment(pid):
            return bytes(block)
    raise _InExec


def _has_environment(pid: str) -> bool:
    """Whether there is one by now: between two programs there is none for a moment. Raises _InExec in that moment."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b") ")[2].split()
    state, flags, begin, end = fields[0], int(fields[6]), int(fields[47]), int(fields[48])
    # While a program is loaded, both are 0, and then, for a moment, equal, as they stay where there is no variable at
    # all (create_elf_tables in the kernel's fs/binfmt_elf.c). Who loads runs, or waits for the disk.
    if end == begin and state in (b"R", b"D") and not flags & _KERNEL_THREAD:
        raise _InExec
    return end > begin


_lock = threading.Lock()
_tried: dict[int, Path | None] = {}


def writable_group() -> Path | None:
    """The control group of this process, if groups can be made below it and processes moved into them; else ``None``.

    Found out by doing it once, with a real process, and remembered for this process id.
    """
    pid = os.getpid()
    with _lock:
        if pid not in _tried:
            _tried.clear()
            base = own_group()
            _tried[pid] = base if base is not None and _works(base) else None
        return _tried[pid]


def group_known() -> bool:
    """Whether :func:`writable_group` has its answer already, and will not block."""
    return os.getpid() in _tried


def group_mount() -> Path | None:
    """Where the cgroup2 hierarchy is mounted."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            if after.startswith("cgroup2 "):
                return Path(before.split()[4])
    return None


def own_group() -> Path | None:
    """The directory of the control group that this process is in."""
    mount = group_mount()
    if mount is None:
        return None
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            if line.startswith("0::"):
                return mount / line[3:].rstrip("\n").lstrip("/")
    return None


def _works(base: Path) -> bool:
    # Named like any other group, so that the reaper finds it should this process be killed right here.
    probe = base / f"{GROUP_PREFIX}{MachineId.new('probe')}.0"
    try:
        probe.mkdir()
    except OSError:  # read-only, not ours, not delegated: whatever the reason, it cannot be used
        return False
    try:
        return (probe / "cgroup.kill").exists() and not subprocess.run(
            ["/bin/sh", "-c", 'echo 0 >"$1"/cgroup.procs', "sh", str(probe)],
            check=False,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=10,
        ).returncode
    finally:
        probe.rmdir()


def _count(procs: Path) -> int:
    try:
        return len(procs.read_bytes().split())
    except OSError:  # removed meanwhile, or a threaded group, which lists no processes
        return 0
