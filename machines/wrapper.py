"""What stands between ``Popen`` and the command: a line of shell that joins the tree and sets the limits.

``sh`` with built-ins only costs half a millisecond; ``preexec_fn`` would force a full fork of the controller (tens of
milliseconds from a large one) and is unsafe beside threads. A string command is appended to the same line, so that it
needs no second shell; a sequence is ``exec``-ed.

The shell cannot say "the program is missing" in a way that differs from a program that itself returns 127, so that
:func:`check_program` looks before. What it cannot see (a binary for another processor) ends with 126 or 127.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from palmette.machines.contract import Limits
from palmette.machines.errors import CommandNotStarted, MachineLost

SHELL = "/bin/sh"
_FAILED = 125


def wrap(
    command: str | Sequence[str], *, entry: str, limits: Limits | None, mark: str, terminal: str | None = None
) -> list[str]:
    """The argv to start.

    ``entry`` is the tree's shell code, ``mark`` a word that tells the wrapper's own failures. ``terminal`` names the
    pseudo-terminal: the shell leads a new session, so that the first terminal it opens is its controlling one.
    """
    steps = ["ulimit -c 0"]
    if terminal is not None:
        steps.append(f"exec 0<>{terminal} 1>&0 2>&0")
    if entry:
        steps.append(f"{{ {entry}; }} 2>/dev/null || {{ echo '{mark} tree' >&2; exit {_FAILED}; }}")
    if limits is not None and (code := _ulimits(limits)):
        steps.append(f"{{ {code}; }} || {{ echo '{mark} limits' >&2; exit {_FAILED}; }}")
    prefix = "; ".join(steps)
    if isinstance(command, str):
        return [SHELL, "-c", f"{prefix}; {command}"]
    return [SHELL, "-c", f'{prefix}; exec "$@"', "sh", *command]


def raise_own_failure(exit_code: int | None, stderr: bytes, *, mark: str) -> None:
    """Tell the wrapper's failures from the command's.

    Raises:
        MachineLost: the tree could not be joined.
        CommandNotStarted: a limit could not be set.
    """
    if exit_code != _FAILED:
        return
    text = stderr.decode("utf-8", "replace")
    if text.endswith(f"{mark} tree\n"):
        raise MachineLost("the command could not join its control group; it was removed from outside")
    if text.endswith(f"{mark} limits\n"):
        reason = text.rpartition(mark)[0].strip()
        raise CommandNotStarted(f"a limit could not be set, the host allows less than was asked for: {reason}")


def check_program(command: Sequence[str], *, search: str, cwd: str) -> None:
    """See to it that ``command[0]`` can be executed.

    Raises:
        CommandNotStarted: there is no such program, it may not be executed, or its interpreter is missing.
    """
    if not command or not command[0]:
        raise CommandNotStarted(f"a command needs a program, got {list(command)!r}")
    program = command[0]
    places = [""] if "/" in program else search.split(":")
    blocked = ""
    for place in places:
        path = os.path.join(cwd, place, program)
        if not os.path.isfile(path):
            blocked = blocked or (f"{path} is a directory" if "/" in program and os.path.isdir(path) else "")
        elif not os.access(path, os.X_OK):
            blocked = blocked or f"{path} is not executable, chmod +x would help"
        else:
            return _check_interpreter(path)
    where = f"in {cwd}" if "/" in program else f"on PATH={search}"
    raise CommandNotStarted(f"{program!r} cannot be started: {blocked or f'there is no such program {where}'}")


def raise_not_started(error: OSError, command: str | Sequence[str]) -> None:
    """``Popen`` itself failed: whose fault is it? Returns if it is neither the command's nor the shell's.

    Raises:
        CommandNotStarted: the command is too long, or its directory may not be entered.
        MachineLost: the shell is gone.
    """
    if error.errno == errno.E2BIG:
        size = len(command) if isinstance(command, str) else max(map(len, command), default=0)
        raise CommandNotStarted(
            f"the command could not be started: {error.strerror} (its longest argument has {size} characters, Linux "
            "takes 128 KiB); put() long input into a file or pass it as stdin"
        ) from error
    if error.filename == SHELL:
        raise MachineLost(f"{SHELL} cannot be started any more ({error.strerror}); the host needs a look") from error
    if error.errno == errno.EACCES:
        raise CommandNotStarted(f"the directory to run in may not be entered: {error.strerror}") from error


def _check_interpreter(path: str) -> None:
    try:
        with open(path, "rb") as file:
            line = file.readline(256)
    except PermissionError:
        return  # may be executed and not read: the kernel will see
    if line.startswith(b"#!"):
        words = line[2:].split()
        interpreter = os.fsdecode(words[0]) if words else ""
        if interpreter.startswith("/") and not os.access(interpreter, os.X_OK):
            raise CommandNotStarted(f"{path} cannot be started: its interpreter {interpreter} does not exist here")


def _ulimits(limits: Limits) -> str:
    """Shell code; the units are those of POSIX shells: KiB for -v, 512 bytes for -f (bash too, when called sh)."""
    for name in ("memory", "cpu", "file_size", "processes"):
        value = getattr(limits, name)
        if value is not None and not 0 < value < 1 << 62:
            raise ValueError(f"limits.{name} must be > 0 and below 2**62 (or None for no limit), got {value}")
    steps: list[str] = []
    if limits.memory is not None:
        steps.append(f"ulimit -v {-(-limits.memory // 1024)}")
    if limits.file_size is not None:
        steps.append(f"ulimit -f {-(-limits.file_size // 512)}")
    if limits.cpu is not None:
        # Soft before hard: SIGXCPU names the cause; SIGKILL a second later for who ignores it.
        steps.append(f"ulimit -S -t {limits.cpu} && ulimit -H -t {limits.cpu + 1}")
    if limits.processes is not None:
        # dash and ash call it -p, bash -u (and its -p refuses).
        steps.append(f"{{ ulimit -p {limits.processes} 2>/dev/null || ulimit -u {limits.processes}; }}")
    return " && ".join(steps)
