"""Resolve paths inside a machine so that none leads out of it.

The kernel does it: ``openat2(2)`` with ``RESOLVE_IN_ROOT`` treats the machine's directory as ``/`` while it resolves,
so that ``..``, absolute symbolic links and links swapped at the wrong moment all stay inside. Checking a path first
and opening it afterwards would leave a gap that a hostile command can use; here the check is the opening.

Where the system call is missing (kernels before 5.6, some seccomp profiles) the path is walked one component at a
time with ``O_NOFOLLOW``. That is as tight, but stricter: *no* symbolic link is followed, not even one that stays
inside, and :class:`~palmette.machines.errors.PathEscapes` says so.

A path that goes up past the machine's root by its own dots (``../secret``) is refused with ``PathEscapes`` rather
than silently taken as ``secret``.

This file also runs inside machines (see :mod:`palmette.machines.runner`): Python 3.6, standard library only.
"""

import errno
import os
import stat
from functools import lru_cache

from palmette.machines.errors import PathEscapes
from palmette.machines.runner.libc import openat2

_AT_FDCWD = -100


def open_inside(root: int, path: str, flags: int) -> int:
    """Open ``path`` below the directory descriptor ``root``; the caller closes what it gets.

    ``flags`` are those of ``os.open`` without ``O_CREAT``; ``O_CLOEXEC`` is added.

    Raises:
        PathEscapes: the path leads out of ``root``.
        OSError: as from ``os.open``.
    """
    check(path)
    if has_openat2():
        return openat2(root, path, flags)
    if os.path.samestat(os.fstat(root), os.stat("/")):  # nothing to be led out of
        return os.open(f"/{path}", flags | os.O_CLOEXEC)
    return _walk(root, path, flags)


def open_parent(root: int, path: str) -> "tuple[int, str]":
    """Open the directory that is to hold ``path``, made first if need be; the descriptor and the last component.

    Raises:
        PathEscapes: the path leads out of ``root``.
        IsADirectoryError: the path names no file ("", ".", "a/").
        OSError: as from ``os.open`` and ``os.mkdir``.
    """
    check(path)
    directory, _, name = path.rpartition("/")
    if name in ("", ".", ".."):
        raise IsADirectoryError(errno.EISDIR, "this names a directory, a file name was wanted", path)
    try:
        return open_inside(root, directory or ".", os.O_PATH | os.O_DIRECTORY), name
    except FileNotFoundError:
        return _make_directories(root, [part for part in directory.split("/") if part]), name


def check(path: str) -> None:
    """Refuse what no kernel call should ever see.

    Raises:
        ValueError: empty, or with a NUL in it.
        PathEscapes: more ``..`` than directories before them.
    """
    if not path or "\0" in path:
        raise ValueError(f"a path inside a machine must not be empty or contain NUL, got {path!r}")
    depth = 0
    for part in path.split("/"):
        if part == "..":
            depth -= 1
        elif part not in ("", "."):
            depth += 1
        if depth < 0:
            raise PathEscapes(
                f"{path!r} leads out of the machine; paths start at its working directory and stay below it"
            )


@lru_cache(maxsize=1)
def has_openat2() -> bool:
    """Whether this kernel lets us call openat2 (seccomp profiles older than the call answer EPERM)."""
    try:
        os.close(openat2(_AT_FDCWD, ".", os.O_PATH))
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):
            return False
        raise
    return True


def _walk(root: int, path: str, flags: int) -> int:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    stack = [os.open(".", os.O_PATH | os.O_DIRECTORY, dir_fd=root)]
    try:
        for index, part in enumerate(parts):
            if part == "..":
                if len(stack) > 1:
                    os.close(stack.pop())
                continue
            last = index == len(parts) - 1
            if stat.S_ISLNK(os.stat(part, dir_fd=stack[-1], follow_symlinks=False).st_mode):
                raise PathEscapes(
                    f"{path!r} goes through the symbolic link {part!r}; this kernel has no openat2, "
                    "so none is followed: name the file itself"
                )
            # Swapped for a link since the look above? O_NOFOLLOW makes that an ELOOP or ENOTDIR, never a way out.
            how = flags if last else os.O_PATH | os.O_DIRECTORY
            stack.append(os.open(part, how | os.O_NOFOLLOW, dir_fd=stack[-1]))
        if parts and parts[-1] != "..":
            return stack.pop()
        return os.open(".", flags, dir_fd=stack[-1])
    except OSError as error:
        error.filename = path
        raise
    finally:
        for fd in stack:
            os.close(fd)


def _make_directories(root: int, parts: "list[str]") -> int:
    here = open_inside(root, ".", os.O_PATH | os.O_DIRECTORY)
    for index, part in enumerate(parts):
        prefix = "/".join(parts[: index + 1])
        try:
            try:
                below = open_inside(root, prefix, os.O_PATH | os.O_DIRECTORY)
            except FileNotFoundError:
                os.mkdir(part, dir_fd=here)
                below = open_inside(root, prefix, os.O_PATH | os.O_DIRECTORY)
        finally:
            os.close(here)
        here = below
    return here
