"""The head's side of its host process: the directory they share, and the channel that tells of the host's death.

The directory is private to this user. It holds the socket that nodes call, the key of the Thespian system, and a lock
that the head keeps for as long as it lives: a directory whose lock is free is swept by the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

import msgspec

from palmette.actors import wire

PREFIX: Final = "palmette-host-"
SOCKET_PATH_LIMIT: Final = 103
"""Bytes of a unix socket's path on the least generous system (macOS)."""
CLOSE_SECONDS: Final = 5.0
HOST: Final = "palmette.actors.host"


class Directory:
    """A private directory with a lock in it. Making one sweeps those whose owners are gone."""

    def __init__(self) -> None:
        sweep()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        try:
            self._lock = os.open(self.path / "new", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            # It gets its name when it is locked already, so that no sweeper can be faster.
            os.rename(self.path / "new", self.path / "lock")
            if len(os.fsencode(self.socket)) > SOCKET_PATH_LIMIT:
                raise OSError(f"{self.socket} is too long for a unix socket; set TMPDIR to a shorter directory")
        except OSError:
            shutil.rmtree(self.path, ignore_errors=True)
            raise

    @property
    def socket(self) -> Path:
        """Where nodes call."""
        return self.path / "link"

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def sweep() -> None:
    """Remove the directories of heads that are gone, killed together with their hosts."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # somebody else's, or swept by another at this moment
            if path.lstat().st_uid == os.getuid() and _is_abandoned(path):
                shutil.rmtree(path, ignore_errors=True)


def _is_abandoned(path: Path) -> bool:
    try:
        lock = os.open(path / "lock", os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return time.time() - path.lstat().st_mtime > 3600  # else it may be about to get its lock
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(lock)


class Host(asyncio.Protocol):
    """One host process. It reads orders from a socket that is its standard input, and dies when that is closed."""

    def __init__(self, on_gone: Callable[[Host, str], None]) -> None:
        self._on_gone = on_gone
        self._transport: asyncio.Transport | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._reaped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_gone = False

    async def start(self, directory: Path) -> None:
        """Start the process. Raises OSError if the system will not have one more."""
        ours, its = socket.socketpair()
        try:
            self._process = await asyncio.to_thread(_spawn, directory, its)
        except OSError:
            ours.close()
            raise
        finally:
            its.close()
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=ours)

    def order(self, order: wire.Order) -> None:
        """Have a node started."""
        if self._transport is not None and not self.is_gone:
            self._transport.write(msgspec.json.encode(order) + b"\n")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        assert self._process is not None
        self.is_gone = True

        def reaped(status: asyncio.Future[int]) -> None:
            self._on_gone(self, f"the host process ended with status {status.result()}")
            self._reaped.set_result(None)

        asyncio.get_running_loop().run_in_executor(None, _reap, self._process).add_done_callback(reaped)

    async def close(self) -> None:
        """End the process and all that it started, and wait."""
        if self._transport is not None:
            self._transport.close()
            await self._reaped  # bounded by CLOSE_SECONDS and a kill


def _spawn(directory: Path, stdin: socket.socket) -> subprocess.Popen[bytes]:
    # A node imports what the head can import. -P: the directory that we happen to be in is not part of that.
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    environment = {**os.environ, "PYTHONPATH": path}
    if "PYTHONPATH" in os.environ:
        environment["PALMETTE_PYTHONPATH"] = os.environ["PYTHONPATH"]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", HOST, str(directory)],
        stdin=stdin.fileno(),
        stdout=2 if _is_open(2) else subprocess.DEVNULL,
        # A session of its own: a Ctrl-C at the terminal is the head's to answer, in order; and it outlives a kill of
        # the head's group by the moment that it takes to clean up.
        start_new_session=True,
        env=environment,
    )


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _reap(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(CLOSE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
