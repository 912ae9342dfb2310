"""The directory under which all scratch directories of a user stand.

``$PALMETTE_MACHINES`` if set, else ``palmette-machines-<uid>`` in the system's temporary directory, which anybody may
write to: so a parent that belongs to somebody else, or into which others may write, is refused.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from palmette.machines.errors import MachineError

VARIABLE = "PALMETTE_MACHINES"


def parent_directory(root: Path | None) -> Path:
    """Where machines of this user go unless ``root`` says otherwise. Not made, not checked."""
    if root is not None:
        return root.absolute()
    named = os.environ.get(VARIABLE)
    return Path(named).absolute() if named else Path(tempfile.gettempdir()) / f"palmette-machines-{os.geteuid()}"


def prepare_parent(parent: Path) -> None:
    """Make ``parent`` (mode 0700) or see to it that it is ours alone.

    Raises:
        MachineError: it is a link, belongs to another user, or others may write to it.
    """
    try:
        status = os.lstat(parent)
    except FileNotFoundError:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = os.lstat(parent)
    if not stat.S_ISDIR(status.st_mode):
        raise MachineError(f"{parent} is not a directory; remove it or set {VARIABLE} to another one")
    if status.st_uid != os.geteuid():
        raise MachineError(
            f"{parent} belongs to user {status.st_uid} and we are {os.geteuid()}; set {VARIABLE} to a directory of ours"
        )
    if status.st_mode & 0o022:
        raise MachineError(f"others may write to {parent}; run chmod 700 on it, or set {VARIABLE} to another one")
