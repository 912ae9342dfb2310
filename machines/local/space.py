"""The scratch directory of a local machine: made, looked after, emptied, removed; and the files in it.

It is known by its inode. Somebody may remove it, or put another in its place: both are noticed, and are the loss of
the machine rather than an ordinary failure.
"""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from palmette.machines import archive
from palmette.machines.errors import CommandNotStarted, FileTooLarge, MachineError, MachineLost, boundary
from palmette.machines.files import list_directory, read_file, remove_tree, write_file
from palmette.machines.paths import open_inside
from palmette.machines.process import uninterrupted
from palmette.machines.scratch import prepare_parent

T = TypeVar("T")

SMALL = 1 << 16
"""Bytes up to which a file is read or written on the event loop."""
FILE_DEADLINE = 60.0
"""Seconds for one put, get, list or removal."""
ARCHIVE_DEADLINE = 600.0
"""Seconds for one archive."""


class Space:
    """``work``, where commands run, and ``tmp``, in a directory that bears the machine's id."""

    def __init__(self, parent: Path, id: str) -> None:
        self._id = id
        self._parent = parent
        self._directory = f"{parent}/{id}"
        self.work = f"{self._directory}/work"
        self.tmp = f"{self._directory}/tmp"
        self._inode = (0, 0)

    def make(self) -> None:
        """Raises MachineError: the parent is not ours alone; OSError."""
        prepare_parent(self._parent)
        os.mkdir(self._directory, 0o700)
        os.mkdir(self.work, 0o700)
        self._inode = _inode(os.lstat(self.work))

    def real_work(self) -> str:
        """Where commands run, as ``pwd -P`` says it."""
        return os.path.realpath(self.work)

    def alive(self) -> bool:
        """Whether the directory still is what it was."""
        try:
            return _inode(os.lstat(self.work)) == self._inode
        except OSError:
            return False

    def open_directory(self, cwd: str) -> int:
        """A descriptor of the directory that a command is to run in.

        Raises:
            CommandNotStarted: there is none.
            MachineLost
        """
        root = self._open_root()
        try:
            if not os.path.isdir(self.tmp):
                os.mkdir(self.tmp, 0o700)
            try:
                return open_inside(root, cwd, os.O_PATH | os.O_DIRECTORY)
            except (FileNotFoundError, NotADirectoryError) as error:
                if not self.alive():
                    raise
                raise CommandNotStarted(f"there is no directory {cwd!r} in the machine to run a command in") from error
        finally:
            os.close(root)

    async def put(self, path: str, data: bytes, mode: int) -> None:
        await self._either(len(data) <= SMALL, f"put {path!r}", lambda root: write_file(root, path, (data,), mode))

    async def get(self, path: str, max_bytes: int) -> bytes:
        doing = f"get {path!r}"
        try:
            return self._at_root(doing, lambda root: read_file(root, path, min(max_bytes, SMALL)))
        except FileTooLarge:
            if max_bytes <= SMALL:
                raise
        return await self._in_thread(doing, lambda root: read_file(root, path, max_bytes))

    async def list(self, path: str) -> list[str]:
        return await self._in_thread(f"list {path!r}", lambda root: list_directory(root, path))

    async def put_archive(self, path: str, data: bytes, *, links: bool) -> None:
        await self._in_thread(
            f"put_archive {path!r}",
            lambda root: archive.unpack(root, path, io.BytesIO(data), links=links),
            ARCHIVE_DEADLINE,
        )

    async def get_archive(self, path: str, max_bytes: int) -> bytes:
        def pack(root: int) -> bytes:
            packed = bytearray()
            archive.pack(root, path, packed.extend, max_bytes)
            return bytes(packed)

        return await self._in_thread(f"get_archive {path!r}", pack, ARCHIVE_DEADLINE)

    async def empty(self) -> None:
        """Nothing in it any more."""
        with boundary("reset", alive=self.alive):
            os.close(self._open_root())
            await uninterrupted(self._empty)

    async def remove(self) -> None:
        """Missing is fine. Raises MachineError."""
        await uninterrupted(self._remove)

    def _open_root(self) -> int:
        root = os.open(self.work, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
        if _inode(os.fstat(root)) != self._inode:
            os.close(root)
            raise MachineLost(f"somebody replaced the scratch directory of machine {self._id}; start another machine")
        return root

    async def _either(self, here: bool, doing: str, work: Callable[[int], T]) -> T:
        return self._at_root(doing, work) if here else await self._in_thread(doing, work)

    def _at_root(self, doing: str, work: Callable[[int], T]) -> T:
        with boundary(doing, alive=self.alive):
            root = self._open_root()
            try:
                return work(root)
            finally:
                os.close(root)

    async def _in_thread(self, doing: str, work: Callable[[int], T], deadline: float | None = None) -> T:
        deadline = FILE_DEADLINE if deadline is None else deadline
        try:
            async with asyncio.timeout(deadline):
                return await asyncio.to_thread(self._at_root, doing, work)
        except TimeoutError as error:
            raise MachineLost(f"{doing} took more than {deadline:g} s; the file system hangs") from error

    def _empty(self) -> None:
        remove_tree(self.tmp)
        remove_tree(self.work)
        os.mkdir(self.work, 0o700)
        self._inode = _inode(os.lstat(self.work))

    def _remove(self) -> None:
        try:
            remove_tree(self._directory)
        except OSError as error:
            raise MachineError(f"the scratch directory {self._directory} could not be removed: {error}") from error


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
