"""What the console's actors know in common about the run that they stand beside.

The console is a small system of its own, next to the run's: its tree is not in the run's tree, and whatever breaks in
it, the run goes on. All of it lives on one event loop, so plain attributes are enough.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from palmette.actors import System
from palmette.console.snapshot import Snapshot
from palmette.console.work import Work

LOG_LINES = 200


@dataclass(kw_only=True)
class Stage:
    """One run, seen from beside it."""

    run: str
    work: Work
    journal: str
    """Its URL, password and all: for opening it, never for showing."""
    ended_before: int = 0
    """Episodes that had ended when this process took the run on."""
    stop: Callable[[], None] = lambda: None
    """Ask for an orderly stop."""
    system: System | None = None
    """The run's; ``None`` before it is up."""
    note: str = ""
    """Said in place of the phase: that the run is being stopped, for example."""
    started: float = field(default_factory=time.monotonic)
    log: deque[str] = field(default_factory=lambda: deque[str](maxlen=LOG_LINES))
    view_lost: bool = False
    """Whether the view broke beyond its restart budget."""
    snapshot: Snapshot | None = None
    """What was last shown."""
