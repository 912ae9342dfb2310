"""Set Python's garbage collector up for a program of many actors."""

from __future__ import annotations

import gc
from typing import Final

THRESHOLDS: Final = (50_000, 20, 20)
"""Young objects, then collections of each generation, between two looks. Python's own 700, 10, 10 look at the young
objects so often that most actors have aged by the time they are idle, and count towards full collections: with ten
thousand episodes that costs as much again as to start them (`make bench`, episodes)."""


_tuned: set[bool] = set()


def is_tuned() -> bool:
    """Whether this process's heap was frozen by :func:`tune_collector`. To ask the collector would have it count."""
    return bool(_tuned)


def tune_collector() -> None:
    """Have the collector look more rarely, and never again at what exists now: imports, classes, settings.

    Once, when a program has been imported and before its tree starts. Process nodes and the command line do it by
    themselves; a program of its own that starts actors by the thousand gains about half of their cost. What it takes
    is memory: up to :data:`THRESHOLDS` objects in reference cycles wait longer to be freed (some 10 MB).
    """
    gc.freeze()
    _tuned.add(True)
    gc.set_threshold(*THRESHOLDS)
