"""A wheel of the palmette that runs here, for a host that has none; from an installed one or a source tree alike."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

from palmette.machines.errors import MachineError

_ROOT: Final = Path(__file__).parents[1]
"""Of the package."""
_WHEEL: Final = "Wheel-Version: 1.0\nGenerator: palmette\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_SKIPPED: Final = "__pycache__"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip file can hold: the same files make the same wheel."""


def build_wheel() -> tuple[str, bytes]:
    """Its file name and what is in it. Reads every file of the package: call it in a thread.

    Raises:
        MachineError: palmette was not installed here, so that nobody can say what it depends on.
    """
    try:
        distribution = metadata.distribution("palmette")
    except metadata.PackageNotFoundError:
        raise MachineError(
            f"palmette is imported from {_ROOT} and was never installed, so that what it "
            "depends on is not known; `pip install -e .` there, or use --python with an interpreter that has it"
        ) from None
    info = f"palmette-{distribution.version}.dist-info"
    files = dict(_package())
    files[f"{info}/WHEEL"] = _WHEEL.encode()
    for name in ("METADATA", "entry_points.txt"):
        text = distribution.read_text(name)
        if text is not None:
            files[f"{info}/{name}"] = text.encode()
    record = "".join(f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
    return f"palmette-{distribution.version}-py3-none-any.whl", wheel.getvalue()


def _package() -> Iterator[tuple[str, bytes]]:
    # In a source tree the folders are links.
    for folder, folders, names in os.walk(_ROOT, followlinks=True):
        folders[:] = sorted(name for name in folders if name != _SKIPPED)
        for name in sorted(names):
            path = Path(folder, name)
            yield f"palmette/{path.relative_to(_ROOT).as_posix()}", path.read_bytes()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
