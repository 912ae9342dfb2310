"""What can be seen of a running system of programs from outside: who is there, and what they tell.

One :class:`Log` is shared by all that a root program started. ``palmette status`` and ``palmette logs`` read it.
"""

from __future__ import annotations

import reprlib
import time
from typing import TYPE_CHECKING, Final

import msgspec

from palmette.agents.conversation import ToolCall
from palmette.agents.harness import ToolEnded
from palmette.agents.programs.stream import CAPACITY, Event, EventStream
from palmette.agents.programs.talk import AgentAnswer
from palmette.agents.transcript import Turn

if TYPE_CHECKING:
    from palmette.agents.programs.agent_handle import Agent
    from palmette.agents.programs.record import Record

TEXT: Final = 400
"""Characters of an event's data that the log keeps; the streams themselves keep all of it."""


_brief = reprlib.Repr()
_brief.maxother = _brief.maxstring = _brief.maxlong = TEXT
_brief.maxdict = _brief.maxlist = _brief.maxtuple = 20


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
    """See the module's text."""

    def __init__(self) -> None:
        self.programs: dict[str, Record] = {}
        """Those that have not ended, by address."""
        self.agents: dict[str, Agent] = {}
        """Likewise."""
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
    text = text_of(data)
    return text if len(text) <= TEXT else text[: TEXT - 1] + "…"


def text_of(data: object) -> str:
    """An event's data for people."""
    match data:
        case None:
            return ""
        case str():
            return data
        case Turn(said=said):
            return said.content or ", ".join(f"{call.name}({call.arguments})" for call in said.tool_calls)
        case ToolCall(name=name, arguments=arguments):
            return f"{name}({arguments})"
        case ToolEnded(call=call, text=result):
            return f"{call.name}: {result}"
        case AgentAnswer(text=answer, stop=stop):
            return stop if answer is None else answer
        case _:
            return _brief.repr(data)
