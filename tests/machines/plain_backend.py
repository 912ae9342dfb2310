"""A backend without any isolation, for the tests of what stands above backends: processes in a scratch directory.

Its faults can be chosen: a place that vanishes or hangs, a channel that is slow, a program that is missing.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from palmette.machines import tree
from palmette.machines.backend import Backend, Channel, Place
from palmette.machines.errors import MachineLost
from palmette.machines.evidence import Evidence
from palmette.machines.shelter import sheltered


class PipeChannel:
    """A subprocess of this host."""

    def __init__(self, process: asyncio.subprocess.Process, backend: PlainBackend) -> None:
        self._process = process
        self._backend = backend
        self._complaint: deque[bytes] = deque(maxlen=100)
        self._listening = asyncio.create_task(self._listen())
        self.closed = False

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def complaint(self) -> str:
        return b"".join(self._complaint).decode("utf-8", "replace")

    async def read(self) -> bytes:
        assert self._process.stdout is not None
        if self._backend.slow:
            await asyncio.sleep(0.001)
        data = await self._process.stdout.read(self._backend.piece)
        if not data:
            await asyncio.wait([self._listening], timeout=1.0)
        return data

    async def write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        await self._process.stdin.drain()

    async def close(self) -> None:
        if not self.closed:
            self.closed = True
            assert self._process.stdin is not None
            self._process.stdin.close()

    async def _listen(self) -> None:
        assert self._process.stderr is not None
        while data := await self._process.stderr.read(1 << 12):
            self._complaint.append(data)

    async def end(self) -> None:
        await self.close()
        try:
            async with asyncio.timeout(10):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        self._listening.cancel()
        await asyncio.wait([self._listening])


class PlainBackend(Backend):
    """Processes of this host, below ``root``/ID."""

    name: ClassVar[str] = "plain"
    isolation: ClassVar[Literal["namespaces", "container", "host", "vm"]] = "host"

    def __init__(self, id: str, root: Path, python: str = "python3") -> None:
        self.id = id
        self.root = root / id
        self.python = python
        self.shell = "/bin/sh"
        self.group: Path | None = None
        """A control group to run in."""
        self.lease = 60.0
        self.lease_file: str | None = None
        self.temporary = True
        self.slow = False
        self.piece = 1 << 16
        self.evidence: Evidence | None = None
        self.examination: asyncio.Event | None = None
        self.asked = self.answered = 0
        """Examinations that began, and that ended."""
        self.channels: list[PipeChannel] = []
        self.killed_all = 0
        self.renewed = 0
        self.stopped = 0
        self.runner = 0
        """The process id of the present runner."""
        self.path = os.environ["PATH"]

    async def start(self) -> Place:
        self.root.mkdir(parents=True)
        return Place(
            workdir=f"{self.root}/work",
            root=str(self.root),
            temporary=self.temporary,
            lease=self.lease,
            lease_file=self.lease_file,
            environment={"HOME": f"{self.root}/work", "PLACE": "plain"},
        )

    async def open_channel(self, argv: Sequence[str]) -> Channel:
        return await sheltered(self._open_channel(argv))  # a process that was started is one that stop() must know

    async def _open_channel(self, argv: Sequence[str]) -> Channel:
        words = [{"python3": self.python, "/bin/sh": self.shell}.get(word, word) for word in argv]
        if self.group is not None:
            words = ["sh", "-c", 'echo 0 >"$0"/cgroup.procs && exec "$@"', str(self.group), *words]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**environment, "PATH": self.path},
            start_new_session=True,
        )
        channel = PipeChannel(process, self)
        self.channels.append(channel)
        if self.python in words:
            self.runner = channel.pid
        return channel

    async def examine(self) -> Evidence | None:
        self.asked += 1
        if self.examination is not None:
            await self.examination.wait()
        self.answered += 1
        if self.evidence is None and not self.root.exists():
            return Evidence(cause="machine_removed", detail="its directory is gone")
        return self.evidence

    async def stop(self) -> None:
        self.stopped += 1
        for channel in self.channels:
            await channel.end()
        await asyncio.to_thread(tree.kill_tagged, tree.MACHINE_TAG, lambda value: value == self.id)
        if self.root.exists():
            await asyncio.to_thread(shutil.rmtree, self.root)

    async def kill_all(self) -> None:
        self.killed_all += 1

    async def renew(self, seconds: float) -> None:
        self.renewed += 1
        if self.evidence is not None and self.evidence.cause == "expired":
            raise MachineLost("it cannot be renewed", self.evidence)

    def vanish(self) -> None:
        """The place is killed, as if somebody removed a container."""
        self.evidence = Evidence(cause="machine_killed", detail="the test killed it")
        os.kill(self.runner, signal.SIGKILL)

    def freeze(self) -> None:
        os.kill(self.runner, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.runner, signal.SIGCONT)
