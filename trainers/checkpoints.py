"""Checkpoints that survive ``kill -9`` at any moment.

A trainer writes a checkpoint directory file by file; killed halfway, it leaves one that looks like a checkpoint and is
none. :func:`seal` is called when all is written: it records every file's size and appears by an atomic rename.
:func:`newest` only believes directories whose seal agrees with their files.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import msgspec

SEAL = "palmette-checkpoint.json"
_NAME = re.compile(r"checkpoint-(\d+)")


class Seal(msgspec.Struct, frozen=True, kw_only=True):
    """What a complete checkpoint consists of."""

    step: int
    """Optimiser steps behind it."""
    files: dict[str, int]
    """Size in bytes by path within the directory."""


class Checkpoint(NamedTuple):
    """A complete checkpoint."""

    step: int
    path: Path


def seal(path: Path, step: int) -> None:
    """Declare the checkpoint directory ``path`` complete."""
    data = msgspec.json.encode(Seal(step=step, files=_sizes(path)))
    partial = path / f".{SEAL}"
    partial.write_bytes(data)
    os.rename(partial, path / SEAL)


def newest(output_dir: Path) -> Checkpoint | None:
    """The complete checkpoint with the most steps in ``output_dir``, or ``None``."""
    return max(_complete(output_dir), default=None)


def discard_incomplete(output_dir: Path) -> list[Path]:
    """Remove half-written checkpoints, so that none is mistaken for one or counted by a rotation. Returns them."""
    complete = {checkpoint.path for checkpoint in _complete(output_dir)}
    broken = sorted(path for path in _candidates(output_dir) if path not in complete)
    for path in broken:
        shutil.rmtree(path)
    return broken


def _candidates(output_dir: Path) -> list[Path]:
    if not output_dir.is_dir():
        return []
    return [path for path in output_dir.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]


def _complete(output_dir: Path) -> list[Checkpoint]:
    found: list[Checkpoint] = []
    for path in _candidates(output_dir):
        try:
            sealed = msgspec.json.decode((path / SEAL).read_bytes(), type=Seal)
        except (FileNotFoundError, msgspec.DecodeError):
            continue  # no seal, or not ours: not a complete checkpoint, which is all that is asked here
        if sealed.files == _sizes(path):
            found.append(Checkpoint(sealed.step, path))
    return found


def _sizes(path: Path) -> dict[str, int]:
    return {
        str(file.relative_to(path)): file.stat().st_size
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name not in (SEAL, f".{SEAL}")
    }
