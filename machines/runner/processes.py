"""Find and kill processes, by descent and by tag.

By descent is exact: who made itself a *child subreaper* gets every orphan of its descendants as a child, whatever it
did to its session, group and environment. As long as it has children there is something to kill; when ``wait`` says
that there are none, nothing is left. By tag (a word in the environment) is for what an earlier runner left, and for
systems without subreapers.
"""

import contextlib
import os
import signal
import time

KILL_DEADLINE = 5.0
"""Seconds that something may take to die of SIGKILL (a process in uninterruptible sleep does not)."""
_FREEZE_AFTER = 3
"""Passes after which what still forks is stopped before it is killed."""
_EXEC_SECONDS = 0.2
"""Time for becoming another program. Spent in vain beside a process that is busy and has cleared its environment."""
_KERNEL_THREAD = 0x00200000
"""``PF_KTHREAD`` of the kernel's ``include/linux/sched.h``."""


def parents() -> "dict[int, int]":
    """The parent of every process that can be seen; zombies too."""
    found: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            status = _read(f"/proc/{name}/stat")
            if status:
                found[int(name)] = int(status[status.rindex(b")") + 2 :].split(None, 2)[1])
    return found


def descendants(root: int, spared: "frozenset[int]" = frozenset()) -> "list[int]":
    """All below ``root``, except those in ``spared`` and below them."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents().items():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    waiting = list(children.get(root, ()))
    while waiting:
        pid = waiting.pop()
        if pid not in spared:
            found.append(pid)
            waiting.extend(children.get(pid, ()))
    return found


def reap() -> "tuple[dict[int, int], bool]":
    """Take the exit statuses of children that have ended; and whether there are others."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended, False
        if pid == 0:
            return ended, True
        ended[pid] = status


def kill_descendants(spared: "frozenset[int]" = frozenset()) -> "tuple[dict[int, int], int]":
    """Kill all below this process and take their exit statuses; and how many would not die.

    Passes, for what forked during one is found by the next. What goes on forking is stopped first: a process that is
    stopped does not fork, so that each pass finds fewer new ones.
    """
    deadline = time.monotonic() + KILL_DEADLINE
    own = os.getpid()
    statuses: dict[int, int] = {}
    passes = 0
    while True:
        ended, more = reap()
        statuses.update(ended)
        if not more:
            return statuses, 0
        found = descendants(own, spared)
        living = [pid for pid in found if pid not in statuses]
        if not living:
            return statuses, 0
        if time.monotonic() > deadline:
            return statuses, len(living)
        if passes >= _FREEZE_AFTER:
            for pid in living:
                send(pid, signal.SIGSTOP)
            living = descendants(own, spared)
        for pid in living:
            send(pid, signal.SIGKILL)
        passes += 1
        time.sleep(min(0.0002 * 2**passes, 0.02))


def kill_tagged(tag: str, prefix: str, spared: "frozenset[int]") -> int:
    """Kill all whose environment has ``tag`` with a value that starts with ``prefix``; how many would not die."""
    entry = f"\0{tag}={prefix}".encode("utf-8", "surrogateescape")
    deadline = time.monotonic() + KILL_DEADLINE
    patience = time.monotonic() + _EXEC_SECONDS
    while True:
        found = 0
        unsure = False
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) in spared:
                continue
            block = _environment(name)
            if block is None:
                unsure = True
            elif entry in b"\0" + block:
                found += 1  # a zombie has no environment, so that this ends
                send(int(name), signal.SIGKILL)
        now = time.monotonic()
        if found:
            patience = now + _EXEC_SECONDS
        if now > deadline or not (found or (unsure and now < patience)):
            return found
        time.sleep(0.002)


def _environment(pid: str) -> "bytes | None":
    """A process's environment; ``None``: it is becoming another program, and has none for a moment."""
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            block = file.read()
    except OSError:  # ended meanwhile, or not ours to look into
        return b""
    status = b"" if block else _read(f"/proc/{pid}/stat")
    if not status:
        return block
    fields = status[status.rindex(b")") + 2 :].split()
    state, flags, begin, end = fields[0], int(fields[6]), int(fields[47]), int(fields[48])
    # See palmette.machines.tree: the kernel's fs/binfmt_elf.c has them equal until the new environment is there.
    loading = end == begin and state in (b"R", b"D") and not flags & _KERNEL_THREAD
    return None if loading or end > begin else block


def send(pid: int, number: int) -> None:
    """A signal to a process that may have ended, or be another's."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            pieces: list[bytes] = []
            while True:
                piece = file.read(1 << 16)
                if not piece:
                    return b"".join(pieces)
                pieces.append(piece)
    except OSError:  # ended meanwhile, or not ours to look into
        return b""
