"""The contract that every machine backend keeps, and the records of what happened on a machine.

A *machine* is a place where an agent's commands run. Paths given to :meth:`Machine.put` and friends are paths
*inside* the machine: relative ones start at its working directory, absolute ones at its own root, and no path leads
out of it.

What is written here is checked, promise by promise, by :mod:`palmette.machines.conformance`; a backend of your own
passes the same kit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from palmette.machines.evidence import Evidence

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
    evidence: Evidence | None = None
    """What is known of an end that the command itself does not explain (killed for memory, disk full, too many
    processes, its own runner killed). Such an end is the command's own doing: the machine is well."""

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


class TerminalSize(msgspec.Struct, frozen=True):
    """Of the pseudo-terminal that a process is given."""

    rows: int = 24
    columns: int = 80


SnapshotGrade = Literal["workdir", "filesystem", "memory"]
"""What a snapshot holds, from least to most: the working directory; all files; files and running processes."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A machine's state, kept. ``machine_for(snapshot.image, owner=...)`` makes a machine that starts from it."""

    image: str
    """An image string."""
    grade: SnapshotGrade
    machine: str
    """The id of the machine that it was taken of."""
    bytes: int | None = None
    """What it takes to keep, where the backend says so."""


class MachineDescription(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to know of a started machine."""

    id: str
    image: str
    backend: str
    workdir: str
    """The working directory as commands see it."""
    platform: str
    """As ``uname -srm`` says it."""
    cpus: float | None = None
    memory: int | None = None
    """Bytes that all processes together may use; ``None`` without a limit of its own."""
    network: bool = True
    snapshot_grade: SnapshotGrade | None = None
    isolation: Literal["none", "namespaces", "container", "host", "vm"] = "none"
    """What stands between a command and the controller's host: nothing; namespaces of the kernel; a container;
    another host (nothing stands between the commands and *that* host); a virtual machine."""


class Process(Protocol):
    """A command that runs, as a duplex stream. Whoever opened it ends it: by :meth:`kill`, or its deadline does."""

    async def read(self) -> tuple[StreamName, bytes] | None:
        """The next piece of output; ``None`` when both streams have ended. With a terminal all of it is stdout.

        The command is held up when nobody reads (at most about 1 MiB waits).

        Raises:
            MachineLost: the machine is gone.
        """
        ...

    async def write(self, data: bytes) -> None:
        """To its standard input; waits while the command does not read.

        Raises:
            BrokenPipeError: it ended, or closed its input.
            MachineLost: the machine is gone.
        """
        ...

    async def close_stdin(self) -> None: ...

    async def resize(self, size: TerminalSize) -> None:
        """Tell the terminal's new size; without a terminal nothing happens."""
        ...

    async def kill(self) -> None:
        """SIGKILL to all that the command started. Twice, or after its end, is fine."""
        ...

    async def wait(self) -> ExecResult:
        """How it ended, once it and all that it started are gone; output that nobody read is dropped.

        Its result holds no output: that went through :meth:`read`. Any number may wait, at any time. A command is not
        held up by its output while somebody waits and nobody has ever read.

        Raises:
            MachineLost: the machine is gone, or no exit code can be had.
        """
        ...


class Machine(Protocol):
    """One machine, started and exclusively owned by its caller. Every method that waits has a deadline.

    Raises, in every method: ``MachineLost`` when the machine is gone or was stopped, ``MachineError`` when it was
    never started.
    """

    @property
    def id(self) -> str:
        """Unique; it labels everything that the machine creates."""
        ...

    @property
    def snapshot_grade(self) -> SnapshotGrade | None:
        """The best that :meth:`snapshot` can do here; ``None``: nothing."""
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

    async def open(
        self,
        command: str | Sequence[str],
        *,
        timeout: float = 3600.0,
        env: Mapping[str, str] | None = None,
        cwd: str = ".",
        limits: Limits | None = None,
        terminal: TerminalSize | None = None,
    ) -> Process:
        """Start ``command`` and talk with it. After ``timeout`` seconds it is killed with all that it started.

        With ``terminal`` it has a pseudo-terminal as its controlling terminal (an interactive shell, say).

        Raises:
            CommandNotStarted: as :meth:`exec`.
        """
        ...

    async def put(self, path: str, data: bytes, *, mode: int = 0o644) -> None: ...

    async def get(self, path: str, *, max_bytes: int = 64 << 20) -> bytes: ...

    async def put_archive(self, path: str, archive: bytes) -> None:
        """Unpack a tar archive (plain or gzip) into the directory ``path``, which is made if need be.

        Raises:
            PathEscapes: a member, or a link in it, would lead out; nothing of the archive is unpacked then.
        """
        ...

    async def get_archive(self, path: str = ".", *, max_bytes: int = 1 << 30) -> bytes:
        """The directory (or file) ``path`` as a plain tar archive, names relative to it; links stay links.

        Raises:
            FileTooLarge: it would be larger than ``max_bytes``.
        """
        ...

    async def list(self, path: str = ".") -> list[str]:
        """Names in a directory, sorted."""
        ...

    async def probe(self, *, timeout: float = 5.0) -> float:
        """See whether the machine can still run a command, by a path of its own; the seconds it took.

        Raises:
            MachineLost: it cannot, or said nothing for ``timeout`` seconds; ``evidence`` says what is known.
        """
        ...

    async def snapshot(self, *, minimum: SnapshotGrade = "workdir") -> Snapshot:
        """Keep the machine's state; the machine goes on.

        Raises:
            SnapshotNotPossible: the backend cannot, or not as much as ``minimum``.
        """
        ...

    async def fork(self) -> Machine:
        """Another, started machine with this one's state and owner; whoever called stops it."""
        ...

    async def describe(self) -> MachineDescription: ...

    async def reset(self) -> None:
        """Back to an empty working directory; whatever still runs in the machine is killed."""
        ...

    async def stop(self) -> None:
        """Kill what runs, remove what was created. Stopping twice is fine."""
        ...
