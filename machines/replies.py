"""Turn what a runner answers into results and exceptions of the contract."""

from __future__ import annotations

import errno
import os
from typing import Literal

from palmette.machines.contract import ExecResult
from palmette.machines.errors import (
    CommandNotStarted,
    FileTooLarge,
    MachineError,
    MachineLost,
    NotAFile,
    PathEscapes,
)
from palmette.machines.evidence import Evidence
from palmette.machines.runner_records import Ending, Failed

_ORDINARY: dict[str, type[Exception]] = {
    "PathEscapes": PathEscapes,
    "NotAFile": NotAFile,
    "FileTooLarge": FileTooLarge,
    "MachineError": MachineError,
    "ValueError": ValueError,
}
_PLACE_FAILS = frozenset({errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENOTCONN, errno.ETIMEDOUT})
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})

KILLED = Evidence(
    cause="runner_killed", detail="the machine is well, but our process in it was killed", agents_doing=True
)
_DETAILS: dict[Literal["out_of_memory", "too_many_processes", "disk_full", "runner_killed"], str] = {
    "out_of_memory": "the kernel killed in the machine's control group while the command ran",
    "too_many_processes": "the machine's control group refused a fork while the command ran",
    "disk_full": "the working directory's file system has no space left",
    "runner_killed": "the process that kept the command was killed",
}


def exception(doing: str, failed: Failed) -> Exception:
    """What the runner failed with, as it would have been raised here."""
    if failed.kind != "OSError":
        return _ORDINARY.get(failed.kind, MachineError)(failed.text)
    if failed.errno in _PLACE_FAILS:
        return MachineLost(
            f"{doing}: the machine's file system failed", Evidence(cause="unknown", detail=os.strerror(failed.errno))
        )
    if failed.errno in _NO_SPACE:
        return OSError(
            failed.errno, f"{doing}: the machine's disk is full; remove something there, or give it more", failed.path
        )
    return OSError(failed.errno, failed.text, failed.path)


def not_started(failed: Failed, *, what: str, cwd: str, shell: bool) -> Exception:
    """Why a command could not be started, and whose fault it is."""
    if failed.failed == "cwd":
        if failed.kind != "OSError":
            return exception(f"exec {what}", failed)
        return CommandNotStarted(f"there is no directory {cwd!r} in the machine to run a command in: {failed.text}")
    if failed.failed == "limits":
        return CommandNotStarted(f"a limit could not be set, the machine allows less than was asked for: {failed.text}")
    if failed.failed == "execute" and shell and failed.errno in (errno.ENOENT, errno.EACCES, errno.ENOEXEC):
        return MachineLost(
            f"exec {what}",
            Evidence(cause="unknown", detail=f"/bin/sh cannot be started any more: {failed.text}", agents_doing=True),
        )
    if failed.errno == errno.E2BIG:
        return CommandNotStarted(
            f"{what} could not be started: {failed.text} (Linux takes 128 KiB an argument); put() long input into a "
            "file or pass it as stdin"
        )
    if failed.errno == errno.EAGAIN:
        return CommandNotStarted(
            f"{what} could not be started: the machine has as many processes as it may have, or its user as many as "
            "limits.processes says"
        )
    return CommandNotStarted(f"{what} could not be started: {failed.text}")


def result(ending: Ending, *, stdout: bytes, stderr: bytes, left_out: int, duration: float) -> ExecResult:
    """The result of a command that ran.

    Raises:
        MachineLost: something of it would not die.
    """
    if ending.left:
        raise MachineLost(
            f"{ending.left} process(es) of the command survived SIGKILL; they hang in the kernel, the machine's host "
            "needs a look"
        )
    if (ending.code is None) == (ending.signal is None):
        raise MachineLost("the command ended and nobody knows how; it has no exit code")
    evidence = None
    if ending.evidence is not None:
        evidence = Evidence(cause=ending.evidence, detail=_DETAILS[ending.evidence], agents_doing=True)
    return ExecResult(
        exit_code=ending.code,
        signal=ending.signal,
        stdout=stdout,
        stderr=stderr,
        timed_out=ending.timed_out,
        bytes_left_out=ending.left_out + left_out,
        pipe_held=ending.held,
        duration=duration,
        evidence=evidence,
    )
