"""What a runner is told and tells, as records: whatever does not fit them was not written by a runner."""

from __future__ import annotations

from typing import Literal

import msgspec


class End(msgspec.Struct, frozen=True):
    """What was seen of a session's end."""

    seen: str
    forged: bool = False
    """Somebody else wrote into the runner's channel."""
    expired: bool = False
    """The runner heard nothing of us for a lease."""


class Failed(msgspec.Struct, frozen=True):
    """What went wrong in the runner; of a job, at which stage of its start."""

    failed: str = ""
    errno: int = 0
    text: str = ""
    kind: str = "OSError"
    path: str | None = None


class Ending(msgspec.Struct, frozen=True):
    """The runner's last word on a job."""

    code: int | None = None
    signal: int | None = None
    timed_out: bool = False
    held: bool = False
    left_out: int = 0
    duration: float = 0.0
    failed: Failed | None = None
    left: int = 0
    evidence: Literal["out_of_memory", "too_many_processes", "disk_full", "runner_killed"] | None = None


class Reply(msgspec.Struct, frozen=True):
    """The runner's answer to a call."""

    data: bytes = b""
    error: Failed | None = None
    names: list[str] | None = None
    jobs: dict[str, int] | None = None
    """By number, how many processes each has."""


class Greeting(msgspec.Struct, frozen=True):
    """The runner's first word."""

    python: str
    platform: str
    subreaper: bool
    shell: bool
    left: int
    pid: int


class Specification(msgspec.Struct, frozen=True, kw_only=True):
    """What a job is, as the runner wants it."""

    argv: list[str] | None = None
    chore: dict[str, str | int | bool] | None = None
    env: dict[str, str] = {}
    limits: dict[str, int] = {}
    cwd: str = "."
    timeout: float
    keep: int | None = None
    """Bytes of each stream to keep; ``None``: all of it, by credit."""
    terminal: tuple[int, int] | None = None
    acknowledge: bool = False
