"""The first process of a container: it keeps the place up for as long as somebody wants it, and not longer.

It is run by the container's own Python (3.6 or newer) as ``python3 -ISc SOURCE LEASE FILE``, and does two things.
It takes the exit statuses of orphans, as process 1 has to. And it watches the lease: the modification time of ``FILE``,
which the runner renews with every word from the controller. When ``LEASE`` seconds have passed since the last change,
it ends, and with it the container: that of a controller that was killed, or lost its way to the daemon, needs nobody
to remove it.

Nothing inside the container can kill it: the kernel keeps signals that process 1 has no handler for from reaching it,
SIGKILL included, so ``kill -9 -1`` of a command ends the runner but leaves the place. What can end it is the kernel,
for memory, and the daemon.

A second counts when this process could run during it: a container that was frozen for its snapshot, or a host
that slept, does not lose its lease by that.
"""

import os
import signal
import sys
import time

EXPIRED = 75
"""Exit code when the lease has run out (EX_TEMPFAIL)."""


def keep(lease: float, path: str) -> None:
    """Until the lease has run out."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's handler would let it through
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # so that none is missed between two waits
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    turn = min(1.0, lease / 4)
    seen = 0
    left = lease
    before = time.monotonic()
    while left > 0:
        signal.sigtimedwait({signal.SIGCHLD}, turn)
        while _reaped():
            pass
        now = time.monotonic()
        left -= min(now - before, 2 * turn)
        before = now
        changed = _changed(path)
        if changed not in (0, seen):
            seen = changed
            left = lease


def _reaped() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False


def _changed(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:  # a command removed it: its last change was the last
        return 0


if __name__ == "__main__":
    keep(float(sys.argv[1]), sys.argv[2])
    os._exit(EXPIRED)
