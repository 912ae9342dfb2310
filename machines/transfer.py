"""Whole directories between the controller's host and a machine, by way of archives.

    await upload(machine, Path("fixtures"), "tests")       # fixtures/a.txt becomes tests/a.txt
    await download(machine, "out", Path("results"))        # out/b.txt becomes results/b.txt

What comes out of a machine was written by whoever worked there: it is looked at before anything of it is unpacked, and
unpacked by descriptors, so that neither a name, nor a link in it, nor one that lies in the way leads out of the
destination.
"""

from __future__ import annotations

import asyncio
import io
import os
from pathlib import Path

from palmette.machines import archive
from palmette.machines.contract import Machine

MAX_BYTES = 1 << 30


async def upload(machine: Machine, source: Path, path: str, *, max_bytes: int = MAX_BYTES) -> None:
    """Copy a directory of this host (what is in it), or a file, into the directory ``path`` of ``machine``.

    Raises:
        FileNotFoundError: there is no ``source``.
        PathEscapes: it holds a link that leads out of it.
        FileTooLarge: it takes more than ``max_bytes``.
    """
    await machine.put_archive(path, await asyncio.to_thread(_pack, source, max_bytes))


async def download(machine: Machine, path: str, destination: Path, *, max_bytes: int = MAX_BYTES) -> None:
    """Copy a directory of ``machine`` (what is in it), or a file, into the directory ``destination``, made if need be.

    Raises:
        FileNotFoundError: there is no ``path``.
        PathEscapes: it holds a link that leads out of it; nothing was unpacked.
        FileTooLarge: it takes more than ``max_bytes``.
    """
    packed = await machine.get_archive(path, max_bytes=max_bytes)
    await asyncio.to_thread(_unpack, packed, destination)


def _pack(source: Path, max_bytes: int) -> bytes:
    packed = bytearray()
    whole = source.absolute()
    root = os.open(whole if whole.is_dir() else whole.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        archive.pack(root, "." if whole.is_dir() else whole.name, packed.extend, max_bytes)
    finally:
        os.close(root)
    return bytes(packed)


def _unpack(packed: bytes, destination: Path) -> None:
    destination.mkdir(parents=True, exist_ok=True)
    root = os.open(destination, os.O_PATH | os.O_DIRECTORY)
    try:
        archive.unpack(root, ".", io.BytesIO(packed))
    finally:
        os.close(root)
