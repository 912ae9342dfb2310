"""A container image with a shell and Python, made of this host's own files in a second, without any network.

It holds the interpreter that runs the tests, its standard library (with the compiled files, so that a start is quick),
the shared libraries that ``ldd`` names for them, at the paths that they have here, and busybox for everything else.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

ENVIRONMENT = "PATH=/usr/local/bin:/usr/bin:/bin"
_LEFT_OUT = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "lib2to3",
    "pydoc_data",
}
_ACCOUNTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/tmp:/bin/sh\n",
    "etc/group": "root:x:0:\nuser:x:1000:\n",
}


def write_image(target: Path) -> None:
    """A root file system as a tar archive, for ``docker import``."""
    busybox = shutil.which("busybox")
    assert busybox is not None, "busybox is installed with the daemon"
    python = Path(os.path.realpath(sys.executable))
    library = list(_library())
    extensions = [str(file) for file in library if file.suffix == ".so"]
    with tarfile.open(target, "w", dereference=True) as archive:
        for directory, mode in (("tmp", 0o1777), ("root", 0o755), ("etc", 0o755)):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            archive.addfile(entry)
        for name, text in _ACCOUNTS.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
        for file in {python, *library, *_shared([str(python), *extensions])}:
            archive.add(file, recursive=False)
        archive.add(busybox, "bin/busybox")
        applets = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True, timeout=10)
        for applet in set(applets.stdout.split()) - {"busybox"}:
            _link(archive, f"bin/{applet}", "busybox")
        _link(archive, "usr/local/bin/python3", str(python))


def _library() -> Iterator[Path]:
    for folder, names, files in os.walk(sysconfig.get_path("stdlib")):
        names[:] = [name for name in names if name not in _LEFT_OUT and not name.startswith("config-")]
        yield from (
            Path(folder, file) for file in files if ".opt-" not in file and not file.startswith(("_test", "_tkinter"))
        )


def _shared(programs: list[str]) -> set[Path]:
    """The libraries that ``programs`` are linked with, the loader among them."""
    told = subprocess.run(["ldd", *programs], capture_output=True, text=True, timeout=60, check=False).stdout
    return {Path(path) for path in re.findall(r"(?:=> |^\s+)(/\S+) \(0x", told, re.MULTILINE)}


def _link(archive: tarfile.TarFile, name: str, to: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, to
    archive.addfile(entry)
