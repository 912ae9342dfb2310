"""Where the sockets of running systems are: a directory that only this user can enter.

``$XDG_RUNTIME_DIR/palmette``, else ``palmette-<uid>`` in the temporary directory. A file's name is
``<name>.<pid>.sock`` (or ``.log``); what processes left that are gone is swept away by whoever comes next.
"""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from palmette.actors.errors import PalmetteError

LONGEST = 107
"""Bytes of a unix socket's path on Linux (``sun_path``, with its final zero)."""


class NoPlaceForSockets(PalmetteError):
    """The directory, or a path in it, cannot be used; the message says what to do."""


def runtime_directory() -> Path:
    """The directory, made if need be.

    Raises:
        NoPlaceForSockets: it is not ours alone.
    """
    base = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(base) / "palmette" if base else Path(tempfile.gettempdir()) / f"palmette-{os.geteuid()}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise NoPlaceForSockets(
            f"{path} must be a directory of yours that nobody else may enter; remove it, or set XDG_RUNTIME_DIR to a "
            "directory of your own"
        )
    return path


def socket_path(run: str) -> Path:
    """Where this process serves ``run``. Raises NoPlaceForSockets for a path that no socket can have."""
    path = runtime_directory() / f"{run}.{os.getpid()}.sock"
    if len(os.fsencode(path)) > LONGEST:
        raise NoPlaceForSockets(f"{path} is too long for a socket; set XDG_RUNTIME_DIR to a shorter directory")
    return path


def log_path(run: str) -> Path:
    """Where this process puts what was written to standard error behind the live view."""
    return runtime_directory() / f"{run}.{os.getpid()}.log"


def living_sockets() -> Iterator[tuple[str, Path]]:
    """``(run, path)`` of every socket that somebody serves. Others, and the logs of the dead, are removed."""
    for path in sorted(runtime_directory().iterdir()):
        run, _, rest = path.name.partition(".")
        pid, _, kind = rest.partition(".")
        if kind == "sock" and _answers(path):
            yield run, path
        elif kind == "sock" or (kind in ("log", "new") and pid.isdigit() and not Path(f"/proc/{pid}").exists()):
            path.unlink(missing_ok=True)


def sweep() -> None:
    """Remove what nobody serves any more."""
    for _ in living_sockets():
        pass


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # busy, not gone
            return True
    return True
