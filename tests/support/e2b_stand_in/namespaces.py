"""A sandbox's insides: namespaces with their keeper process, and ways to start programs and find files in them."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

CLONE_NEWPID = 0x20000000
HOME = "/home/user"
_ALL_USERS = Path("/proc/self/uid_map").read_text().split()[2] != "1"
USER = 65534 if _ALL_USERS else 0
"""Commands run as an ordinary user; in a user namespace with nothing but its root, as that."""

_libc = ctypes.CDLL(None, use_errno=True)

# An ignored SIGCHLD survives exec and makes the kernel bury the orphans; descriptor 1 stays open as long as this
# lives, which is how the server learns that all of the sandbox is dead.
_KEEPER = """
mount -t proc proc /proc && mount -t tmpfs tmpfs /home && mkdir /home/user &&
mount --bind "$1/home" /home/user && mount --bind "$1/tmp" /tmp && echo ready || exit 1
trap '' CHLD; exec sleep 2147483647
"""


class Inside:
    """The namespaces of one sandbox over ``directory`` (its ``home`` and ``tmp`` are made here)."""

    def __init__(self, directory: Path) -> None:
        for name in ("home", "tmp"):
            (directory / name).mkdir(parents=True, exist_ok=True)
            os.chown(directory / name, USER, USER)
        enter = "setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --propagation private sh -c"
        self._keeper = subprocess.Popen(
            [*enter.split(), _KEEPER, "sh", str(directory)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        self._proc = f"/proc/{self._keeper.pid}"

    async def ready(self) -> None:
        """Wait until it is made."""
        assert self._keeper.stdout is not None
        if await asyncio.to_thread(self._keeper.stdout.readline) != b"ready\n":
            raise RuntimeError("the stand-in could not make namespaces: it needs root, or user namespaces")

    def path(self, name: str) -> Path:
        """Where the file that the sandbox calls ``name`` is for the server."""
        return Path(f"{self._proc}/root{os.path.join(HOME, name)}")

    def start(
        self, argv: Sequence[str], env: Mapping[str, str], cwd: str, *, stdin: int, stdout: int, stderr: int, tty: bool
    ) -> subprocess.Popen[bytes]:
        """Start a program inside, as a direct child of this process.

        Raises:
            OSError: it cannot be started.
        """
        # Only the children of this thread are born in that namespace, and nothing else runs between the two calls.
        _enter_pid_namespace(f"{self._proc}/ns/pid_for_children")
        try:
            return subprocess.Popen(
                ["nsenter", f"--mount={self._proc}/ns/mnt", f"--wd={self._proc}/root{os.path.join(HOME, cwd)}"]
                + ["--setgid", str(USER), "--setuid", str(USER)]
                + (["setsid", "--ctty"] if tty else [])
                + list(argv),
                env=dict(env),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
            )
        finally:
            _enter_pid_namespace("/proc/self/ns/pid")

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to every process inside, the keeper apart."""
        ours = os.readlink(f"{self._proc}/ns/pid_for_children")
        for name in os.listdir("/proc"):
            try:
                if name.isdigit() and os.readlink(f"/proc/{name}/ns/pid") == ours and inner_pid(int(name)) != 1:
                    os.kill(int(name), number)
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue

    async def end(self) -> None:
        """Kill everything inside, and wait until it is dead."""
        self._keeper.kill()
        await asyncio.to_thread(self._buried)

    def _buried(self) -> None:
        assert self._keeper.stdout is not None
        self._keeper.stdout.read()
        self._keeper.stdout.close()
        self._keeper.wait()


def inner_pid(pid: int) -> int:
    """The process id of ``pid`` as its own namespace counts."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    raise ProcessLookupError(pid)


def _enter_pid_namespace(path: str) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(file, CLONE_NEWPID) != 0:
            raise OSError(ctypes.get_errno(), f"setns {path}")
    finally:
        os.close(file)
