"""Everything that the programs and agents of a running system tell, in one stream: what ``palmette logs`` shows."""

from __future__ import annotations

import time
from typing import Final

import msgspec

from palmette.agents.programs.stream import CAPACITY, Event, EventStream

TEXT: Final = 400
"""Characters of an event's data that the log keeps; the streams themselves keep all of it."""


class Line(msgspec.Struct, frozen=True):
    """One line of the log."""

    at: float
    """Seconds since the epoch."""
    who: str
    """The program, or ``program/agent``."""
    type: str
    text: str
    """The event's data, abridged."""


class Log:
    """See the module's text; shared by all that one root program started."""

    def __init__(self) -> None:
        self.lines = EventStream()
        """Each event's ``data`` is a :class:`Line`."""

    def stream(self, who: str, *, capacity: int = CAPACITY, earlier: EventStream | None = None) -> EventStream:
        """A stream of ``who``'s whose events are logged, too."""
        return LoggedStream(self, who, capacity=capacity, earlier=earlier)

    def add(self, who: str, type: str, data: object) -> None:
        """Log one event."""
        self.lines.append("line", Line(time.time(), who, type, _abridged(data)))


class LoggedStream(EventStream):
    """A stream whose events are in the log, too. What was copied from another stream is there already."""

    def __init__(self, log: Log, who: str, *, capacity: int, earlier: EventStream | None) -> None:
        super().__init__(capacity=capacity, earlier=earlier)
        self._log = log
        self._who = who

    def append(self, type: str, data: object = None, *, source: str | None = None) -> Event | None:
        event = super().append(type, data, source=source)
        if event is not None:
            self._log.add(self._who, type, data)
        return event


def _abridged(data: object) -> str:
    if data is None:
        return ""
    text = data if isinstance(data, str) else repr(data)
    return text if len(text) <= TEXT else text[: TEXT - 1] + "…"
