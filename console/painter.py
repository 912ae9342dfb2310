"""Draws snapshots in a thread of its own: a terminal that is slow, or stopped with Ctrl-S, holds up nobody else.

Only the newest snapshot is drawn; one that comes while the thread is at work replaces the one that waits.
"""

from __future__ import annotations

import os
import re
import threading
import time
from typing import Protocol, TextIO

from rich.console import Console
from rich.live import Live

from palmette.console.live import render
from palmette.console.plain import count, duration
from palmette.console.snapshot import Snapshot

CLOSE_SECONDS = 2.0


class Surface(Protocol):
    """Something that snapshots are drawn on. All calls come from one thread."""

    def draw(self, snapshot: Snapshot) -> None: ...

    def close(self) -> None: ...


class Painter:
    """``show`` never waits; what a surface raises is raised by the next ``show``."""

    def __init__(self, surface: Surface) -> None:
        self._surface = surface
        self._waiting: Snapshot | None = None
        self._closing = False
        self._failure: Exception | None = None
        self._something = threading.Condition()  # protects the three above
        # A daemon: a terminal that never takes another byte must not keep the program from ending.
        self._thread = threading.Thread(target=self._run, name="painter", daemon=True)
        self._thread.start()

    def show(self, snapshot: Snapshot) -> None:
        """Have ``snapshot`` drawn soon. Raises what went wrong with an earlier one, once."""
        with self._something:
            failure, self._failure = self._failure, None
            self._waiting = snapshot
            self._something.notify()
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Draw what waits, and give the terminal back; within :data:`CLOSE_SECONDS`."""
        with self._something:
            self._closing = True
            self._something.notify()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while True:
            with self._something:
                while self._waiting is None and not self._closing:
                    self._something.wait()
                snapshot, self._waiting = self._waiting, None
            try:
                if snapshot is not None:
                    self._surface.draw(snapshot)
                elif self._closing:
                    self._surface.close()
                    return
            except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the view, which raises it
                if self._closing:
                    return
                with self._something:
                    self._failure = error


class Screen:
    """The whole terminal, in its alternate buffer: at the end everything is as it was before."""

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal
        self._console = Console(file=terminal, force_terminal=True)
        self._live: Live | None = None

    def draw(self, snapshot: Snapshot) -> None:
        width, height = os.get_terminal_size(self._terminal.fileno())
        self._console.size = (width or 80, height or 24)  # pyright: ignore[reportAttributeAccessIssue]
        if self._live is None:
            self._live = Live(console=self._console, screen=True, auto_refresh=False, redirect_stdout=False)
            self._live.start()
        self._live.update(render(snapshot, width or 80, height or 24), refresh=True)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()


class Lines:
    """A line now and then, for logs: at every new phase, every tenth of the way, and every 30 seconds."""

    EVERY_SECONDS = 30.0

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._last = ("", -1, 0.0)

    def draw(self, snapshot: Snapshot) -> None:
        s, now = snapshot, time.monotonic()
        if s.phase == "starting":
            return
        phase = re.sub(r"[0-9,]+", "#", s.phase)
        tenth = int(10 * s.done / s.total) if s.total else 0
        if (phase, tenth) == self._last[:2] and now - self._last[2] < self.EVERY_SECONDS:
            return
        self._last = (phase, tenth, now)
        parts = [s.phase or "starting"]
        if s.total:
            parts.append(f"{s.done:,} of {s.total:,}")
        known = [value for value in s.curve if value is not None]
        if known:
            parts.append(f"mean reward {known[-1]:.3f}")
        restarts = sum(item.count for item in s.restarts)
        if restarts:
            parts.append(count(restarts, "restart"))
        parts.append(duration(s.elapsed))
        print("  ".join(parts), file=self._file, flush=True)

    def close(self) -> None:
        """A log needs no end."""
