"""Debian packages that tests need: installed where they are missing and this is root on Debian.

One installation at a time, however many processes run tests; ``make test`` has done it for all of them before.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable


class NotInstalled(Exception):
    """It is not here and cannot be had; the text says why."""


def install(package: str, is_here: Callable[[], bool]) -> None:
    """Make sure that ``package``, recognised by ``is_here``, is installed. Raises NotInstalled."""
    if is_here():
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NotInstalled(f"there is no {package} here, and only root on Debian could install it; install it yourself")
    get = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300", package]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    errors = ""
    with open(__file__) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (get, ["apt-get", "update", "-qq"], get):
            if is_here():
                return
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
            errors = done.stderr.strip()[-300:]
        if not is_here():
            raise NotInstalled(f"apt-get could not install {package}: {errors}")
