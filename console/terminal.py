"""The terminal while the live view has it: nothing else may write to it.

Worker processes inherit standard error, libraries print warnings to it, Python's logging ends there. Inside
:func:`owned_terminal` file descriptor 2 leads to a file; the live view draws on a duplicate of the old one.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


def is_interactive() -> bool:
    """Whether standard error is a terminal on which a view can be drawn."""
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"


@contextmanager
def owned_terminal(log: Path) -> Generator[TextIO]:
    """Standard error's terminal, for the block alone; all others' output goes to ``log``.

    An empty log is removed at the end, and so is one of a block that ended well.
    """
    sys.stderr.flush()
    terminal = os.fdopen(os.dup(2), "w", encoding=sys.stderr.encoding, errors="replace")
    aside = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    os.dup2(aside, 2)
    os.close(aside)
    keep = True
    try:
        yield terminal
        keep = False
    finally:
        sys.stderr.flush()
        terminal.flush()
        os.dup2(terminal.fileno(), 2)
        terminal.close()
        if not keep or log.stat().st_size == 0:
            log.unlink(missing_ok=True)


class LogLines(logging.Handler):
    """Logging records as lines of the live view's log."""

    def __init__(self, lines: deque[str]) -> None:
        super().__init__(logging.INFO)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        self._lines.append(f"{clock}  {record.getMessage()}")


@contextmanager
def logging_to(lines: deque[str]) -> Generator[None]:
    """Have ``palmette``'s log lines, and warnings of everybody else, appended to ``lines`` inside the block."""
    handler = LogLines(lines)
    root, ours = logging.getLogger(), logging.getLogger("palmette")
    level = ours.level
    ours.setLevel(logging.INFO)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        ours.setLevel(level)
