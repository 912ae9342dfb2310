"""The log of those who were turned away: who and why, once a minute each, and how often.

A port that is open to a network is knocked at all day. Each peer address and cause makes one line; what comes within
the next minute is counted, and is one more line. Causes are ours: nothing that a stranger says gets into the log.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

MINUTE: Final = 60.0
MAX_KEYS: Final = 1024
"""Addresses and causes that are told apart at a time; the others share a line for each cause."""
OTHERS: Final = "many other addresses"

_log = logging.getLogger("palmette.cluster")


class Complaints:
    """See the module's text."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._open: dict[tuple[str, str], int] = {}
        """How often since the last line."""
        self._timers: dict[tuple[str, str], asyncio.TimerHandle] = {}

    def note(self, peer: str, cause: str) -> None:
        """Somebody at ``peer`` was turned away."""
        key = (peer, cause)
        if key not in self._open and len(self._open) >= MAX_KEYS:
            key = (OTHERS, cause)
        if key in self._open:
            self._open[key] += 1
        else:
            _log.warning("%s was refused: %s", *key)
            self._begin(key)

    def _begin(self, key: tuple[str, str]) -> None:
        self._open[key] = 0
        self._timers[key] = self._loop.call_later(MINUTE, self._sum_up, key)

    def _sum_up(self, key: tuple[str, str]) -> None:
        count = self._open.pop(key)
        del self._timers[key]
        if count:
            peer, cause = key
            _log.warning("%s was refused %d more times within %g s: %s", peer, count, MINUTE, cause)
            self._begin(key)

    def close(self) -> None:
        """Say what is left to be said."""
        for timer in self._timers.values():
            timer.cancel()
        for (peer, cause), count in self._open.items():
            if count:
                _log.warning("%s was refused %d more times: %s", peer, count, cause)
        self._open.clear()
        self._timers.clear()
