"""Snapshots of a working directory: an archive in a file on the controller's host, named in an image string.

``docker:python:3.12@/…/snapshots/NAME.tar`` is a machine of ``docker:python:3.12`` that starts with the archive
unpacked in its working directory. The files lie in ``snapshots`` below the directory of this user's machines
(:mod:`palmette.machines.scratch`); they are kept until :func:`delete_snapshot` removes them. What a backend keeps in a
way of its own is removed by the coroutine function ``delete_snapshot(rest)`` of its module.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path

from palmette.machines.contract import Snapshot, SnapshotGrade
from palmette.machines.errors import ImageUnusable, SnapshotNotPossible
from palmette.machines.scratch import parent_directory, prepare_parent

SEPARATOR = "@/"
_RANK: dict[SnapshotGrade, int] = {"workdir": 0, "filesystem": 1, "memory": 2}
MAX_BYTES = 8 << 30
"""Of an archived working directory."""


def split_image(image: str) -> tuple[str, Path | None]:
    """The image without its snapshot, and the snapshot's file."""
    base, separator, path = image.rpartition(SEPARATOR)
    return (base, Path("/" + path)) if separator else (image, None)


def demand(minimum: SnapshotGrade, best: SnapshotGrade, backend: str) -> None:
    """See to it that a snapshot holds enough.

    Raises:
        SnapshotNotPossible: it would not.
    """
    if _RANK[best] < _RANK[minimum]:
        raise SnapshotNotPossible(
            f"a {backend} machine keeps its state at grade {best!r} at best, and {minimum!r} was asked for"
        )


def write_snapshot(archive: bytes, *, image: str, machine: str, root: Path | None = None) -> Snapshot:
    """Keep ``archive`` as a snapshot of ``machine``, which is of ``image``. Blocks."""
    parent = parent_directory(root)
    prepare_parent(parent)
    folder = parent / "snapshots"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{machine}.{secrets.token_hex(4)}.tar"
    temporary = path.with_suffix(".part")
    try:
        temporary.write_bytes(archive)
        os.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    base, _ = split_image(image)
    return Snapshot(image=f"{base}@{path}", grade="workdir", machine=machine, bytes=len(archive))


def read_snapshot(path: Path) -> bytes:
    """The archive. Blocks.

    Raises:
        ImageUnusable: there is no such file.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise ImageUnusable(f"the snapshot {path} cannot be read: {error.strerror}") from error


async def delete_snapshot(image: str) -> None:
    """Remove what :meth:`Machine.snapshot <palmette.machines.contract.Machine.snapshot>` kept. Twice is fine.

    Raises:
        SnapshotNotPossible: the image is no snapshot that can be removed from here.
    """
    _, path = split_image(image)
    if path is not None:
        await asyncio.to_thread(path.unlink, missing_ok=True)
        return
    from palmette.machines.images import snapshot_deleter

    await snapshot_deleter(image)
