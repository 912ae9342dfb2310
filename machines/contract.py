"""The contract that every machine backend keeps, and the record of one command.

A *machine* is a place where an agent's commands run. Paths given to :meth:`Machine.put` and friends are paths
*inside* the machine: relative ones start at its working directory, absolute ones at its own root, and no path leads
out of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

import msgspec

StreamName = Literal["stdout", "stderr"]


class ExecResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a command ended. A command that timed out has a result too: what it printed is kept."""

    exit_code: int | None
    """``None`` when a signal ended it (see :attr:`signal`)."""
    signal: int | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    timed_out: bool = False
    bytes_left_out: int = 0
    """Bytes that fell between the kept head and tail of the two streams."""
    pipe_held: bool = False
    """Something the command left behind still held its output open; it was killed."""
    duration: float = 0.0
    """Seconds, wall clock."""

    @property
    def ok(self) -> bool:
        """Whether the command ran to its end and returned 0."""
        return self.exit_code == 0 and not self.timed_out

    @property
    def text(self) -> str:
        """Standard output decoded as UTF-8, undecodable bytes replaced."""
        return self.stdout.decode("utf-8", "replace")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Upper bounds for one command; ``None`` means the backend's default."""

    memory: int | None = None
    """Bytes of address space per process."""
    cpu: int | None = None
    """Seconds of processor time per process."""
    file_size: int | None = None
    """Bytes per file."""
    processes: int | None = None


class Machine(Protocol):
    """One machine, started and exclusively owned by its caller. Every method that waits has a deadline."""

    @property
    def id(self) -> str:
        """Unique; it labels everything that the machine creates."""
        ...

    async def start(self) -> None: ...

    async def exec(
        self,
        command: str | Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float = 60.0,
        env: Mapping[str, str] | None = None,
        cwd: str = ".",
        limits: Limits | None = None,
        max_output: int = 1 << 20,
        on_output: Callable[[StreamName, bytes], None] | None = None,
    ) -> ExecResult:
        """Run ``command`` (a string goes to ``sh -c``) and return once it and all that it started are gone.

        ``timeout`` is in seconds of wall clock; ``max_output`` in bytes per stream, the head and the tail kept.

        Raises:
            MachineLost: the machine is gone, or no exit code can be had. Never an ordinary command failure.
            CommandNotStarted: the program does not exist or cannot be executed.
        """
        ...

    async def put(self, path: str, data: bytes, *, mode: int = 0o644) -> None: ...

    async def get(self, path: str, *, max_bytes: int = 64 << 20) -> bytes: ...

    async def list(self, path: str = ".") -> list[str]:
        """Names in a directory, sorted."""
        ...

    async def reset(self) -> None:
        """Back to an empty working directory; whatever still runs in the machine is killed."""
        ...

    async def stop(self) -> None:
        """Kill what runs, remove what was created. Stopping twice is fine."""
        ...
