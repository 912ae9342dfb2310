"""Long work on files, done in a process of its own beside the runner's loop: killed and held up like any command.

A chore reads descriptor 0 and writes descriptor 1; what goes wrong it writes to descriptor 2 as JSON, and exits 1.
"""

import json
import os
from collections.abc import Callable, Iterator

from palmette.machines.errors import MachineError
from palmette.machines.files import regular_file, remove_tree, too_large, write_file
from palmette.machines.runner.keeper import EXEC_TAG
from palmette.machines.runner.processes import kill_tagged

_PIECE = 1 << 20


def describe_error(error: Exception) -> "dict[str, object]":
    """An ordinary failure, as data. The counterpart is :func:`palmette.machines.replies.raise_described`."""
    if isinstance(error, OSError):
        path = error.filename if isinstance(error.filename, str) else None
        return {"kind": "OSError", "errno": error.errno or 0, "text": error.strerror or str(error), "path": path}
    return {"kind": type(error).__name__, "errno": 0, "text": str(error), "path": None}


def chore(work: "Callable[[], None]") -> "Callable[[], None]":
    """``work`` so that its failures are written to descriptor 2, and end the process."""

    def run() -> None:
        try:
            work()
        except (MachineError, OSError, ValueError) as error:
            _write_all(2, json.dumps(describe_error(error)).encode("ascii"))
            os._exit(1)

    return run


def write(root: int, path: str, mode: int, size: int) -> None:
    """Input to a file, which appears when ``size`` bytes have come."""
    write_file(root, path, _input(size), mode)


def read(root: int, path: str, max_bytes: int) -> None:
    """A file to output."""
    with regular_file(root, path) as (fd, size):
        if size > max_bytes:
            raise too_large(path, size, max_bytes)
        room = max_bytes + 1
        while room:
            piece = os.read(fd, min(room, _PIECE))
            if not piece:
                return
            _write_all(1, piece)
            room -= len(piece)
        raise too_large(path, os.fstat(fd).st_size, max_bytes)


def pack(root: int, path: str, max_bytes: int) -> None:
    """A directory to output, as an archive."""
    from palmette.machines import archive

    archive.pack(root, path, lambda data: _write_all(1, data), max_bytes)


def unpack(root: int, path: str, size: int, links: bool, scratch: str) -> None:
    """Input as an archive into a directory. It is kept in a nameless file until all of its members were looked at."""
    import tempfile

    from palmette.machines import archive

    with tempfile.TemporaryFile(dir=scratch) as file:
        for piece in _input(size):
            file.write(piece)
        file.seek(0)
        archive.unpack(root, path, file, links=links)


def empty(workdir: str, machine: str, spared: "frozenset[int]") -> None:
    """Kill what carries the machine's tag and remove all in ``workdir``, but not itself: it may be a mount point."""
    kill_tagged(EXEC_TAG, f"{machine}.", spared)
    for name in os.listdir(workdir):
        path = f"{workdir}/{name}"
        if os.path.isdir(path) and not os.path.islink(path):
            remove_tree(path)
        else:
            os.unlink(path)


def _input(size: int) -> "Iterator[bytes]":
    while size:
        piece = os.read(0, min(size, _PIECE))
        if not piece:
            raise ValueError("the input was cut off")
        yield piece
        size -= len(piece)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
