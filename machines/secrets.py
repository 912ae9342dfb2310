"""Take the controller's own environment out of the sight of the commands that it runs.

Keys come to a program by its environment, and ``/proc/<pid>/environ`` shows a process's *first* environment, as the
kernel laid it out, to every process of the same user, for as long as it lives: ``os.environ.pop`` changes nothing of
it. So the block is overwritten, once, after every variable has been set anew: that moves them to memory of their own
(``setenv`` copies), and nothing refers to the block any more.

What this cannot do: a process of the same user may read this process's memory through ``/proc/<pid>/mem`` where the
system lets it trace (root may), and what *other* programs of that user show is theirs. Whoever runs what must not know
a secret on a machine without walls does so as another user.
"""

from __future__ import annotations

import ctypes
import os
import threading

_lock = threading.Lock()
_done_in: int | None = None


def hide_environment() -> bool:
    """Overwrite what ``/proc`` shows of this process's environment; whether that was possible (Linux, glibc or musl).

    Costs some 50 microseconds the first time in a process, nothing after that. ``os.environ``, ``getenv`` and the
    environment of processes started from here are not changed.
    """
    global _done_in
    with _lock:
        if _done_in == os.getpid():
            return True
        bounds = _bounds()
        if bounds is None:
            return False
        start, end = bounds
        for name, value in os.environ.items():
            os.environ[name] = value
        if any(start <= address < end for address in _addresses()):
            return False  # a C library that hands out the block itself: to overwrite it would change the environment
        ctypes.memset(start, 0, end - start)
        _done_in = os.getpid()
        return True


def _bounds() -> tuple[int, int] | None:
    """Where the kernel put the environment: fields 50 and 51 of ``/proc/self/stat`` (proc(5))."""
    try:
        with open("/proc/self/stat", "rb") as file:
            stat = file.read()
    except OSError:
        return None
    # The command name (field 2) may hold blanks and parentheses: count from the last one.
    fields = stat[stat.rindex(b")") + 2 :].split()
    start, end = int(fields[47]), int(fields[48])
    return (start, end) if 0 < start < end else None


def _addresses() -> list[int]:
    """Where the variables are that C code sees."""
    variables = ctypes.POINTER(ctypes.c_void_p).in_dll(ctypes.CDLL(None), "environ")
    found: list[int] = []
    while (address := variables[len(found)]) is not None:
        found.append(address)
    return found
