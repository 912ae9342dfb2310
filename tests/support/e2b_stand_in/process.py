"""The stand-in as tests hold it: a process that can be frozen and killed, told to fail, and asked what it saw."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Self, TypedDict

import msgspec
import psutil
from support.e2b_stand_in.faults import Fault

API_KEY = "e2b_0123456789abcdef0123456789abcdef01234567"
TESTS = Path(__file__).parents[2]


class Connection(TypedDict):
    """What every call of the SDK takes in place of the environment."""

    api_key: str
    api_url: str
    sandbox_url: str


class Report(msgspec.Struct):
    """What the server saw until now."""

    asked: dict[str, int]
    """Requests by "METHOD /path", sandbox ids replaced by ``{id}``."""
    leaks: int
    """Times that the API key went to a sandbox, or into the body of a request."""
    sandboxes: dict[str, dict[str, str]]
    """Metadata of those that are alive."""


class StandIn:
    """A running server. Use :meth:`running`."""

    def __init__(self, directory: Path, most: int) -> None:
        self._directory = directory
        self._process = subprocess.Popen(
            [*_ROOT, sys.executable, "-m", "support.e2b_stand_in", str(directory), API_KEY, str(most)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=TESTS,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])},
        )
        assert self._process.stdout is not None
        self._port = int(self._process.stdout.readline())
        self._server = psutil.Process(self._process.pid)
        if _ROOT:
            (self._server,) = self._server.children()

    @classmethod
    @contextmanager
    def running(cls, *, most: int = 100) -> Generator[Self]:
        """A server of one's own; at the end nothing of it is left, frozen or killed as it may be.

        Args:
            most: sandboxes that may be alive at a time.
        """
        with tempfile.TemporaryDirectory(prefix="e2b-stand-in-") as directory:
            server = cls(Path(directory), most)
            try:
                yield server
            finally:
                server._close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def connection(self) -> Connection:
        return Connection(api_key=API_KEY, api_url=self.url, sandbox_url=self.url)

    async def fail(self, *faults: Fault) -> None:
        """From now on these, and none of those before."""
        await asyncio.to_thread(self._ask, "faults", msgspec.json.encode(faults))

    async def cut_streams(self) -> int:
        """Break every stream that is open; how many there were."""
        return int(json.loads(await asyncio.to_thread(self._ask, "cut", b""))["streams"])

    async def forget(self) -> None:
        """Have the server forget faults and counts, and close idle connections, which the SDK's pool would keep."""
        await asyncio.to_thread(self._ask, "forget", b"")

    async def report(self) -> Report:
        return msgspec.json.decode(await asyncio.to_thread(self._ask, "report"), type=Report)

    def freeze(self) -> None:
        self._server.suspend()

    def thaw(self) -> None:
        self._server.resume()

    def kill(self) -> None:
        """SIGKILL, and with it die the sandboxes."""
        self._server.kill()
        self._process.wait()

    def _ask(self, what: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"{self.url}/stand-in/{what}", body, headers={"connection": "close"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bytes(answer.read())

    def _close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self._process.poll() is None:
            self.thaw()
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        finally:
            self._process.stdout.close()
            self._sandboxes_gone()

    def _sandboxes_gone(self) -> None:
        """A killed server's sandboxes die by themselves; their mounts are gone with them."""
        deadline = time.monotonic() + 10
        mine = str(self._directory).encode()
        while left := [name for name in os.listdir("/proc") if name.isdigit() and mine in _arguments(name)]:
            assert time.monotonic() < deadline, f"processes of the stand-in still run: {left}"
            time.sleep(0.01)


def _arguments(pid: str) -> bytes:
    try:
        return Path("/proc", pid, "cmdline").read_bytes()
    except OSError:
        return b""


_UNSHARE = "unshare --user --map-root-user --pid --fork --kill-child --mount-proc"
_ROOT = [] if os.geteuid() == 0 else _UNSHARE.split()
"""The server needs to make namespaces; an ordinary user gets them in a user namespace of its own."""
