"""Pack a directory into a tar archive and unpack one, so that nothing is read or written outside of the machine.

:func:`check_members` looks at a whole archive before anything of it is unpacked. Unpacking then goes by descriptors
(:mod:`palmette.machines.paths`): also a link that stood in the directory before leads nowhere else.

This file also runs inside machines (see :mod:`palmette.machines.runner`): Python 3.6, standard library only.
"""

import contextlib
import errno
import os
import posixpath
import stat
import tarfile
from collections.abc import Callable
from typing import cast

from palmette.machines.errors import FileTooLarge, NotAFile, PathEscapes
from palmette.machines.paths import open_inside, open_parent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

_PIECE = 1 << 20


class _Bounded:
    """A file object for tarfile that writes to a function, and not too much."""

    def __init__(self, write: "Callable[[bytes], object]", path: str, max_bytes: int) -> None:
        self._write = write
        self._path = path
        self._max_bytes = max_bytes
        self._room = max_bytes

    def write(self, data: bytes) -> int:
        self._room -= len(data)
        if self._room < 0:
            raise FileTooLarge(
                f"{self._path!r} as an archive is larger than the {self._max_bytes} bytes that were allowed; raise "
                "max_bytes, or take parts of it"
            )
        self._write(bytes(data))
        return len(data)


def pack(root: int, path: str, write: "Callable[[bytes], object]", max_bytes: int) -> None:
    """Write the directory (or file) ``path`` below ``root`` as a plain tar archive, names relative to it.

    Links stay links; sockets are left out, as they mean nothing elsewhere. A file that changes meanwhile is cut or
    filled up to the size it had.

    Raises:
        FileTooLarge: the archive would be larger than ``max_bytes``.
        OSError: there is no such path, or it cannot be read.
    """
    handle = open_inside(root, path, os.O_PATH)
    try:
        top = f"/proc/self/fd/{handle}"
        directory = stat.S_ISDIR(os.fstat(handle).st_mode)
        file = cast(
            "IO[bytes]", _Bounded(write, path, max_bytes)
        )  # writing a stream, tarfile calls nothing but write()
        with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_PIECE) as archive:
            if directory:
                for name in sorted(os.listdir(top)):
                    _add(archive, f"{top}/{name}", name)
            else:
                _add(archive, os.path.realpath(top), posixpath.basename(path.rstrip("/")))
    finally:
        os.close(handle)


def _add(archive: "tarfile.TarFile", path: str, name: str) -> None:
    try:
        member = archive.gettarinfo(path, name)
        if member is None:  # a socket  # pyright: ignore[reportUnnecessaryComparison]
            return
        if member.isreg():
            with open(path, "rb") as file:
                archive.addfile(member, _Exactly(file, member.size))
            return
        names = sorted(os.listdir(path)) if member.isdir() else []
    except FileNotFoundError:  # removed meanwhile: as if it had been a moment earlier
        return
    archive.addfile(member)
    for below in names:
        _add(archive, f"{path}/{below}", f"{name}/{below}")


class _Exactly:
    """As many bytes as the header says, whatever happens to the file meanwhile."""

    def __init__(self, file: "IO[bytes]", size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int = -1) -> bytes:
        size = self._left if size < 0 else min(size, self._left)
        data = self._file.read(size)
        data += b"\0" * (size - len(data))
        self._left -= size
        return data


def check_members(archive: "tarfile.TarFile", *, links: bool) -> None:
    """See to it that no member, nor a link in it, leads out.

    Args:
        archive: read to its end here.
        links: whether symbolic links may lead anywhere. Unpacking follows none, so this is for archives of our own
            making, which hold the machine's links as they were.

    Raises:
        PathEscapes: one does.
        NotAFile: it holds a device or a FIFO.
    """
    for member in archive:
        _inside(member.name, member.name)
        if member.islnk():
            _inside(member.linkname, member.name)
        elif member.issym():
            if not links:
                _inside(posixpath.join(posixpath.dirname(member.name), member.linkname), member.name)
        elif not (member.isreg() or member.isdir()):
            raise NotAFile(f"the archive's member {member.name!r} is a device or a FIFO; leave it out")


def _inside(path: str, member: str) -> None:
    if path.startswith("/") or posixpath.normpath(path).split("/")[0] == ".." or "\0" in path:
        raise PathEscapes(
            f"the archive's member {member!r} leads out of the directory it is unpacked into; make its names and "
            "links relative, without going up past the top"
        )


def unpack(root: int, path: str, file: "IO[bytes]", *, links: bool = False) -> None:
    """Unpack the tar archive ``file`` (plain or gzip; seekable) into the directory ``path``, made if need be.

    Nothing is unpacked when a member leads out. Owners are ours; modes keep their lower nine bits.

    Raises:
        PathEscapes, NotAFile: see :func:`check_members`.
        ValueError: it is no tar archive, or cut off.
    """
    start = file.tell()
    try:
        with tarfile.open(fileobj=file, mode="r:*") as archive:
            check_members(archive, links=links)
        file.seek(start)
        with tarfile.open(fileobj=file, mode="r:*") as archive:
            unpacking = _Unpacking(root, path.rstrip("/") or "/")
            try:
                unpacking.all(archive)
            finally:
                unpacking.close()
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"this is no tar archive (plain or gzip), or it is cut off: {error}") from error


class _Unpacking:
    def __init__(self, root: int, top: str) -> None:
        self._root = root
        self._top = top
        self._directories: list[tuple[str, tarfile.TarInfo]] = []
        self._open = -1
        self._open_at: str | None = None

    def all(self, archive: "tarfile.TarFile") -> None:
        self._make(self._top)
        for member in archive:
            name = posixpath.normpath(member.name)
            if name == ".":
                continue
            path = f"{self._top}/{name}"
            if member.isdir():
                self._make(path)
                self._directories.append((path, member))
            elif member.issym():
                self._replace(path, lambda at, fd, link=member.linkname: os.symlink(link, at, dir_fd=fd))
            elif member.islnk():
                self._link(f"{self._top}/{posixpath.normpath(member.linkname)}", path)
            else:
                self._write(archive, member, path)
        # Last, as a directory's time changes with each file in it, and its mode may forbid them.
        for path, member in reversed(self._directories):
            self._finish(path, member)

    def _make(self, path: str) -> None:
        try:
            os.close(open_inside(self._root, path, os.O_PATH | os.O_DIRECTORY))
        except FileNotFoundError:
            parent, name = open_parent(self._root, path)
            try:
                os.mkdir(name, dir_fd=parent)
            except FileExistsError:  # a link that leads nowhere
                os.unlink(name, dir_fd=parent)
                os.mkdir(name, dir_fd=parent)
            finally:
                os.close(parent)

    def _write(self, archive: "tarfile.TarFile", member: tarfile.TarInfo, path: str) -> None:
        file = archive.extractfile(member)
        assert file is not None, "a regular file"
        parent, name = self._parent(path)
        how = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            fd = os.open(name, how, 0o600, dir_fd=parent)
        except FileExistsError:  # replaced, and not followed if it is a link
            os.unlink(name, dir_fd=parent)
            fd = os.open(name, how, 0o600, dir_fd=parent)
        try:
            for piece in iter(lambda: file.read(_PIECE), b""):
                view = memoryview(piece)
                while view:
                    view = view[os.write(fd, view) :]
            os.fchmod(fd, member.mode & 0o777)
            os.utime(fd, (member.mtime, member.mtime))
        finally:
            os.close(fd)

    def _parent(self, path: str) -> "tuple[int, str]":
        """The directory that is to hold ``path``, kept open for the next file, and the name in it."""
        directory, _, name = path.rpartition("/")
        if directory != self._open_at:
            parent, _ = open_parent(self._root, path)
            self.close()
            self._open, self._open_at = parent, directory
        return self._open, name

    def close(self) -> None:
        if self._open >= 0:
            os.close(self._open)
        self._open, self._open_at = -1, None

    def _replace(self, path: str, make: "Callable[[str, int], None]") -> None:
        parent, name = open_parent(self._root, path)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=parent)
            make(name, parent)
        finally:
            os.close(parent)

    def _link(self, target: str, path: str) -> None:
        parent, name = open_parent(self._root, target)
        try:
            if not stat.S_ISREG(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                raise OSError(errno.EINVAL, "a hard link of the archive leads to something that is no file", target)
            self._replace(
                path, lambda at, fd: os.link(name, at, src_dir_fd=parent, dst_dir_fd=fd, follow_symlinks=False)
            )
        finally:
            os.close(parent)

    def _finish(self, path: str, member: tarfile.TarInfo) -> None:
        fd = open_inside(self._root, path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fchmod(fd, member.mode & 0o777)
            os.utime(fd, (member.mtime, member.mtime))
        finally:
            os.close(fd)
