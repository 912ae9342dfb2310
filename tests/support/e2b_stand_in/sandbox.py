"""One sandbox: what the control plane knows of it, and what runs in it."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import signal
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from support.e2b_stand_in.commands import Command
from support.e2b_stand_in.namespaces import Inside
from support.e2b_stand_in.wire import Message, RpcError, child, text

ENVD_VERSION = "0.6.13"


class Sandbox:
    """Lives until it is killed or its time is up.

    Args:
        parent: where its directory is made.
        template: what it says it was made from.
        ended: told once when its time is up; the one who is told removes it.
    """

    def __init__(
        self,
        parent: Path,
        template: str,
        metadata: dict[str, str],
        envs: dict[str, str],
        ended: Callable[[Sandbox], None],
    ) -> None:
        self.id = f"i{secrets.token_hex(10)}"
        self.token = secrets.token_hex(16)
        self.template = template
        self.metadata = metadata
        self.envs = envs
        self.paused = False
        self.commands: dict[int, Command] = {}
        self.started = self.ends = datetime.now(UTC)
        self._settled = asyncio.Event()
        self._directory = parent / self.id
        self._ended = ended
        self._expiry: asyncio.TimerHandle | None = None
        self._all: set[Command] = set()

    async def start(self, timeout: float, files: Path | None = None) -> None:
        """Make it, with a copy of the files that :meth:`keep_files` kept."""
        try:
            if files is not None:
                await _copy(files, self._directory)
            self.inside = Inside(self._directory)
            await self.inside.ready()
            self.live_for(timeout)
        finally:
            self._settled.set()

    def live_for(self, timeout: float) -> None:
        """From now; the time is given anew, not added."""
        self.ends = datetime.now(UTC) + timedelta(seconds=timeout)
        self._cancel_expiry()
        if not self.paused:
            self._expiry = asyncio.get_running_loop().call_later(timeout, self._ended, self)

    async def end(self) -> None:
        """Kill what runs and remove the files; one that is being made is made first."""
        await self._settled.wait()
        self._cancel_expiry()
        await self.inside.end()
        for command in tuple(self._all):
            await command.ended()
        await asyncio.to_thread(shutil.rmtree, self._directory)

    def pause(self) -> None:
        self.paused = True
        self._cancel_expiry()
        self.inside.signal_all(signal.SIGSTOP)

    def resume(self, timeout: float) -> None:
        self.paused = False
        self.inside.signal_all(signal.SIGCONT)
        self.live_for(timeout)

    async def keep_files(self, where: Path) -> None:
        await _copy(self._directory, where)

    def start_command(self, request: Message) -> Command:
        command = Command(self.inside, request, self.envs, self._gone)
        self.commands[command.pid] = command
        self._all.add(command)
        return command

    def command(self, request: Message) -> Command:
        """The one that ``request`` selects.

        Raises:
            RpcError: there is none.
        """
        selector = child(request, "process")
        for pid, command in self.commands.items():
            if selector.get("pid") == pid or (command.tag and command.tag == text(selector, "tag")):
                return command
        raise RpcError("not_found", f"process with selector {selector} not found")

    def described(self) -> Message:
        return {
            "templateID": self.template,
            "alias": self.template,
            "sandboxID": self.id,
            "clientID": "stand-in",
            "envdVersion": ENVD_VERSION,
            "startedAt": _when(self.started),
            "endAt": _when(self.ends),
            "cpuCount": 2,
            "memoryMB": 512,
            "diskSizeMB": 1024,
            "state": "paused" if self.paused else "running",
            "metadata": self.metadata,
        }

    def credentials(self) -> Message:
        return {
            "templateID": self.template,
            "sandboxID": self.id,
            "clientID": "stand-in",
            "envdVersion": ENVD_VERSION,
            "envdAccessToken": self.token,
        }

    def _gone(self, command: Command) -> None:
        self.commands.pop(command.pid, None)
        self._all.discard(command)

    def _cancel_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()


async def _copy(source: Path, target: Path) -> None:
    def copy() -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", str(source), str(target)], check=True)

    await asyncio.to_thread(copy)


def _when(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")
