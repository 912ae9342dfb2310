"""Read, write and list files inside a machine, by descriptors, never by a path that could change underneath.

Plain blocking functions on a descriptor of the machine's root directory; the caller decides what is small enough to
run on an event loop.

A file is written beside its target and renamed over it: a reader sees the old file or the new one, and a symbolic
link in the target's place is replaced, not followed. A FIFO, device or socket is never opened.

This file also runs inside machines (see :mod:`palmette.machines.runner`): Python 3.6, standard library only.
"""

import errno
import os
import stat
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress

from palmette.machines.errors import FileTooLarge, NotAFile
from palmette.machines.paths import open_inside, open_parent


def write_file(root: int, path: str, pieces: "Iterable[bytes]", mode: int) -> None:
    """Write ``pieces`` to ``path``, atomically; directories above it are made."""
    parent, name = open_parent(root, path)
    temporary = f".palmette-{os.urandom(6).hex()}"
    try:
        _refuse_special(parent, name, path)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=parent)
        try:
            try:
                for piece in pieces:
                    view = memoryview(piece)
                    while view:
                        view = view[os.write(fd, view) :]
                os.fchmod(fd, mode)
            finally:
                os.close(fd)
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=parent)
            raise
    finally:
        os.close(parent)


@contextmanager
def regular_file(root: int, path: str) -> "Generator[tuple[int, int]]":
    """A descriptor to read ``path`` from, and the file's size in bytes at this moment.

    Raises:
        IsADirectoryError: it is a directory.
        NotAFile: it is neither.
    """
    # O_PATH first: it opens nothing, so that a device does not act and a FIFO does not block before it is judged.
    handle = open_inside(root, path, os.O_PATH)
    try:
        status = os.fstat(handle)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, "this is a directory, list() shows what is in it", path)
        if not stat.S_ISREG(status.st_mode):
            raise NotAFile(f"{path!r} is a {_kind(status.st_mode)}, only regular files can be read")
        fd = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(handle)
    try:
        yield fd, status.st_size
    finally:
        os.close(fd)


def read_file(root: int, path: str, max_bytes: int) -> bytes:
    """The whole file.

    Raises:
        FileTooLarge: it holds more than ``max_bytes``, or grows past them while it is read.
    """
    with regular_file(root, path) as (fd, size):
        if size <= max_bytes:
            chunks: list[bytes] = []
            room = max_bytes + 1
            while room:
                chunk = os.read(fd, min(room, 1 << 20))
                if not chunk:
                    break
                chunks.append(chunk)
                room -= len(chunk)
            if room:
                return b"".join(chunks)
            size = os.fstat(fd).st_size
    raise too_large(path, size, max_bytes)


def too_large(path: str, size: int, max_bytes: int) -> FileTooLarge:
    """What to raise for ``path``."""
    return FileTooLarge(
        f"{path!r} holds {size} bytes and at most {max_bytes} were allowed; raise max_bytes, "
        "or cut the file inside the machine first"
    )


def list_directory(root: int, path: str) -> "list[str]":
    """Names in a directory, sorted. Names that are not UTF-8 carry surrogate escapes, as ``os.listdir`` gives them."""
    fd = open_inside(root, path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return sorted(os.listdir(fd))
    finally:
        os.close(fd)


def give_access(path: str) -> None:
    """Give a directory's owner back what a command (``chmod 000 .``) took from him. Missing, or not ours, is fine."""
    with suppress(FileNotFoundError, PermissionError):
        mode = os.stat(path, follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode) and mode & stat.S_IRWXU != stat.S_IRWXU:
            os.chmod(path, stat.S_IMODE(mode) | stat.S_IRWXU)


def remove_tree(path: str) -> None:
    """Delete a directory and all below it, also where a command took its own permissions away. Missing is fine."""
    import shutil  # draws in all compressors, and most programs never come here

    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        if os.path.lexists(path):  # something inside went away under us: once more from the top
            shutil.rmtree(path)
    except PermissionError:
        os.chmod(path, 0o700)
        for directory, _, _ in os.walk(path):
            for entry in os.scandir(directory):
                if entry.is_dir(follow_symlinks=False):
                    os.chmod(entry.path, 0o700)
        shutil.rmtree(path)


def _refuse_special(parent: int, name: str, path: str) -> None:
    try:
        mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode)):
        raise NotAFile(f"{path!r} is a {_kind(mode)}; remove it before a file is put there")


def _kind(mode: int) -> str:
    kinds = {stat.S_IFIFO: "FIFO", stat.S_IFCHR: "device", stat.S_IFBLK: "device", stat.S_IFSOCK: "socket"}
    return kinds.get(stat.S_IFMT(mode), "special file")
