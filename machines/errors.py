"""What can go wrong on a machine, and where the line between "the machine" and "the command" runs.

::

    MachineError
    ├── MachineLost         the machine is gone or cannot be trusted; infrastructure, retryable, never a verdict
    │   └── MachineBroken       a command on it brought that about: the doing of whoever ran it, not retryable
    ├── CommandNotStarted   the program does not exist, cannot be executed, or its limits cannot be set
    ├── PathEscapes         a path leads out of the machine
    ├── NotAFile            a FIFO, a device or a socket stands where a file was meant
    ├── FileTooLarge        a file holds more bytes than the caller allowed
    ├── SnapshotNotPossible the backend keeps no state, or less than was asked for
    ├── ImageUnusable       the image does not exist or cannot be a machine (no python3); another try fails alike
    └── UnknownImage        no backend answers to this image string

A command that ran and failed is no exception: it is an :class:`~palmette.machines.contract.ExecResult`. Missing
files and directories keep Python's own names (``FileNotFoundError``, ``IsADirectoryError``, ``NotADirectoryError``).

:func:`boundary` is the one place where an ``OSError`` of the host is sorted into "lost" or "ordinary".

This file also runs inside machines (see :mod:`palmette.machines.runner`): Python 3.6, standard library only.
"""

import errno
from collections.abc import Callable, Generator
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from palmette.machines.evidence import Evidence


class MachineError(Exception):
    """Something about a machine. ``retryable`` tells a supervisor whether a fresh machine may do better."""

    retryable: bool = False


class MachineLost(MachineError):
    """The machine is gone, was stopped, or the host under it failed: no result can be had from it."""

    retryable = True

    def __init__(self, text: str, evidence: "Evidence | None" = None) -> None:
        super().__init__(text if evidence is None else f"{text}: {evidence}")
        self.evidence = evidence

    @property
    def cause(self) -> str:
        """The evidence's one word, which goes with an exit reason; ``"unknown"`` without evidence."""
        return "unknown" if self.evidence is None else self.evidence.cause


class MachineBroken(MachineLost):
    """What a machine's actor ends with when a command on the machine was its end (``evidence.agents_doing``).

    A fresh machine is likely to meet the same command again: no restart is due for it.
    """

    retryable = False


class CommandNotStarted(MachineError):
    """The command never ran: no such program, not executable, no such directory, too long, bad limits."""


class PathEscapes(MachineError):
    """The path leads out of the machine."""


class NotAFile(MachineError):
    """Only regular files are read and replaced: a FIFO blocks its reader, a device acts on being opened."""


class FileTooLarge(MachineError):
    """The file is larger than ``max_bytes``."""


class SnapshotNotPossible(MachineError):
    """The backend keeps no state, or less of it than was asked for."""


class ImageUnusable(MachineError):
    """The image does not exist, or is not fit to be a machine. A fresh machine would fail alike."""


class UnknownImage(MachineError):
    """No backend answers to this image string."""


_HOST_FAILURES = frozenset(
    {
        errno.EIO,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.ESTALE,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.EAGAIN,
        errno.ENODEV,
        errno.ENOTCONN,
        errno.ETIMEDOUT,
    }
)
"""The host's trouble rather than the caller's: no space, no descriptors, no memory, a file system gone away."""


@contextmanager
def boundary(doing: str, *, alive: "Callable[[], bool]") -> "Generator[None]":
    """Sort the ``OSError`` of a backend's edge: a lost machine or a failing host is ``MachineLost``, the rest passes.

    Args:
        doing: what was being done, for the message ("put 'a.txt'").
        alive: whether the machine's directory still is what it was; asked only after a failure.

    Raises:
        MachineLost: the machine is not alive any more, or the host failed.
    """
    try:
        yield
    except OSError as error:
        if not alive():
            raise MachineLost(
                f"{doing}: the machine's scratch directory is gone; somebody removed or replaced it, "
                "start another machine"
            ) from error
        if error.errno in _HOST_FAILURES:
            raise MachineLost(
                f"{doing}: the host failed with {error.strerror}; see to the host "
                "(space, descriptors, memory), then start another machine"
            ) from error
        raise
