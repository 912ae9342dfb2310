"""Python's logging in a node: warnings and worse go to the logger of the same name in the head.

Thespian replaces the root logger and the manager of its processes by ones that send every record through its own
transport. A node takes them back, so that user code finds the logging that it knows.
"""

from __future__ import annotations

import logging
import threading
from typing import Final

from palmette.actors.link import Link
from palmette.actors.sealed import STANDARD_LOGGING
from palmette.actors.system import System
from palmette.actors.wire import Logged

MAX_TEXT: Final = 64 << 10
"""Characters of one record."""


class ToHead(logging.Handler):
    """Sends records over the link. While that is congested they are dropped: news gives way to messages."""

    def __init__(self, system: System, link: Link) -> None:
        super().__init__()  # which records there are is for the loggers' own levels to say
        self._system = system
        self._link = link
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)[:MAX_TEXT]
        except Exception:  # noqa: BLE001 - logging's own way: a bad record is reported, and harms nobody
            self.handleError(record)
            return
        logged = Logged(record.name, record.levelno, text, record.created)
        if threading.get_ident() == self._thread:
            self._send(logged)
        elif not self._system.loop.is_closed():
            self._system.loop.call_soon_threadsafe(self._send, logged)

    def _send(self, logged: Logged) -> None:
        if not self._link.is_congested():
            self._link.write(logged)


def forward_logging(system: System, link: Link) -> None:
    """Put Python's own logging back, with the head as where it goes."""
    root, manager = STANDARD_LOGGING
    logging.root = logging.Logger.root = root
    logging.Logger.manager = manager
    root.addHandler(ToHead(system, link))
