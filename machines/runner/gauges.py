"""What the kernel counts about this machine: kills for memory, refused forks, space. Read before and after a job.

The counters are those of the control group that the runner is in, version 2 or 1, as far as they can be seen from
inside: in a container they are its own. Where nothing can be seen nothing is claimed.
"""

import os

_PLACES = (
    ("memory.events", b"oom_kill ", ("", "memory")),
    ("memory.oom_control", b"oom_kill ", ("memory",)),
    ("pids.events", b"max ", ("", "pids")),
)


class Gauges:
    """Counters of this machine."""

    def __init__(self) -> None:
        self._memory: list[tuple[str, bytes]] = []
        self._processes: list[tuple[str, bytes]] = []
        groups = _groups()
        for file, word, controllers in _PLACES:
            for controller in controllers:
                for directory in groups.get(controller, ()):
                    path = f"{directory}/{file}"
                    if os.path.exists(path):
                        (self._processes if file == "pids.events" else self._memory).append((path, word))
                        break

    def read(self) -> "tuple[int, int]":
        """Kills for memory and refused forks, so far."""
        return _sum(self._memory), _sum(self._processes)


def disk_full(path: str) -> bool:
    """Whether the file system has no block, or no file, left for ordinary users."""
    try:
        status = os.statvfs(path)
    except OSError:
        return False
    return (status.f_blocks > 0 and status.f_bavail == 0) or (status.f_files > 0 and status.f_favail == 0)


def _sum(counters: "list[tuple[str, bytes]]") -> int:
    total = 0
    for path, word in counters:
        try:
            with open(path, "rb", buffering=0) as file:
                lines = file.read(4096).split(b"\n")
        except OSError:
            continue
        total += sum(int(line[len(word) :]) for line in lines if line.startswith(word))
    return total


def _groups() -> "dict[str, list[str]]":
    """By controller (``""``: version 2), directories where this process's group may be, the likeliest first."""
    mounts: dict[str, tuple[str, str]] = {}
    found: dict[str, list[str]] = {}
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                before, _, after = line.partition(" - ")
                kind, _, options = after.partition(" ")
                fields = before.split()
                if kind == "cgroup2":
                    mounts.setdefault("", (fields[3], fields[4]))
                elif kind == "cgroup":
                    for option in options.split()[-1].split(","):
                        mounts.setdefault(option, (fields[3], fields[4]))
        with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                _, controllers, path = line.rstrip("\n").split(":", 2)
                for controller in controllers.split(","):
                    if controller in mounts:
                        root, mount = mounts[controller]
                        # A container sees its own group mounted as the whole, and its path as the host names it.
                        inner = path[len(root) :] if root != "/" and path.startswith(root) else path
                        found[controller] = [f"{mount}/{inner.strip('/')}".rstrip("/"), mount]
    except (OSError, ValueError):
        return found
    return found
