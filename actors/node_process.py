"""The process of a node as its head can reach it: to kill it, to wait for its death, to see whether it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from palmette.actors.orphans import open_process


class NodeProcess(Protocol):
    """See the module's text. A simulation has processes of its own."""

    @property
    def patience(self) -> float | None:
        """Seconds to wait for its end once it was killed; ``None``: the system's grace for killed code."""
        ...

    def kill(self) -> None:
        """Kill it, with all that it started. One that is gone stays gone."""
        ...

    def when_gone(self, tell: Callable[[], None]) -> Callable[[], None]:
        """Have ``tell`` called when it has ended, but not before this has returned; the returned function calls it
        off, and may be called after the fact."""
        ...

    def may_be_gone(self) -> bool:
        """Whether its silence means something: it is stopped, or nobody can say."""
        ...


class OwnProcess:
    """A process on this host, which leads a process group."""

    patience = None

    def __init__(self, loop: asyncio.AbstractEventLoop, pid: int) -> None:
        self._loop = loop
        self._pid = pid

    def kill(self) -> None:
        """What it forked goes with it, even after its own end."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)

    def when_gone(self, tell: Callable[[], None]) -> Callable[[], None]:
        """By the kernel's word, where it gives one; else at once."""
        dying = open_process(self._pid)
        if dying is None:
            return self._loop.call_soon(tell).cancel
        loop, watching = self._loop, True

        def stop() -> None:
            nonlocal watching
            if watching:
                watching = False
                loop.remove_reader(dying)
                os.close(dying)

        loop.add_reader(dying, tell)
        return stop

    def may_be_gone(self) -> bool:
        """Whether a signal has stopped it (or it is dead), by /proc. One that runs or waits is busy, whatever it does.

        Elsewhere than on Linux nobody is taken for stopped: a deadline has to tell.
        """
        try:
            stat = Path(f"/proc/{self._pid}/stat").read_text(errors="replace")
        except OSError:
            return False  # it is gone (the link will break), or there is no /proc
        # The command name, in parentheses, may contain anything. "t" is stopped by a debugger, who looks after it.
        return stat.rpartition(")")[2].split()[0] in "TZX"
