"""What is known of a program from outside, whatever becomes of its incarnations: its stream, its outcome, its agents.

The record belongs to whoever started the program. The program's actor tells it what happens; from another process it
does so by messages, which arrive in order and before the word of its end.

The events that a record adds by itself:

==============  =====================================  ====================================================
type            data                                   when
==============  =====================================  ====================================================
``restarting``  why, as text                           it ended, and its supervisor starts it again
``done``        the result                             the last event: it came to a result
``failed``      why, as text                           the last event: it did not, and is not started again
``cancelled``   ``None``                               the last event: somebody cancelled it
==============  =====================================  ====================================================
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from palmette.actors import Actor, Crashed, Reason, Ref, describe, is_graceful, root_cause
from palmette.agents.programs.errors import ProgramCancelled, ProgramFailed, ProgramTimeout
from palmette.agents.programs.log import Log
from palmette.agents.programs.stream import CAPACITY

if TYPE_CHECKING:
    from palmette.agents.programs.agent_handle import Agent

State = Literal["starting", "running", "restarting", "done", "failed", "cancelled"]


class Record:
    """See the module's text. Of one program; a :class:`~palmette.agents.programs.Handle` shows it to users."""

    def __init__(self, name: str, path: str, *, log: Log, capacity: int = CAPACITY) -> None:
        self.name = name
        self.path = path
        """Its address."""
        self.log = log
        self.state: State = "starting"
        self.events = log.stream(path, capacity=capacity)
        self.agents: dict[str, Agent] = {}
        self.ref: Ref[Actor] | None = None
        self.value: object = None
        self.error: BaseException | None = None
        self.is_unwanted = False
        """It was cancelled, or is to be started anew by hand: no restart by policy."""
        log.programs[path] = self
        self._has_value = False
        self._capacity = capacity
        self._changed = asyncio.Event()
        """Set while it runs, and once it is over."""

    @property
    def is_over(self) -> bool:
        return self.state in ("done", "failed", "cancelled")

    @property
    def how(self) -> str:
        """How things stand, for messages."""
        return f"{self.state}: {self.error}" if self.state == "failed" and self.error is not None else self.state

    async def until_started(self) -> None:
        """Wait until it runs, or never will."""
        while not (self.is_over or self.state == "running"):
            await self._changed.wait()

    async def until_over(self) -> None:
        """Wait for its end; afterwards nothing of it runs."""
        while not self.is_over:
            self._changed.clear()
            await self._changed.wait()

    def outcome(self) -> object:
        """The result of one that is over. Raises what it ended with."""
        match self.state:
            case "done":
                return self.value
            case "cancelled":
                raise ProgramCancelled(f"{self.name} was cancelled")
            case _:
                assert self.error is not None
                raise self.error

    # --- told by its supervisor and by itself -----------------------------------------------------------------------

    def started(self, ref: Ref[Actor]) -> None:
        """An incarnation runs."""
        self.ref = ref
        self.state = "running"
        self._changed.set()

    def returned(self, value: object) -> None:
        """The body has come to a result. It counts once everything that it started has ended."""
        self.value = value
        self._has_value = True

    def raised(self, error: BaseException) -> None:
        """The body raised, in this process."""
        self.error = error

    def restarting(self, reason: Reason) -> None:
        """It ended, and is started again."""
        self.state = "restarting"
        self._changed.clear()
        self._forget()
        self.events.append("restarting", _text(reason))

    def ended(self, reason: Reason) -> None:
        """It ended for good. The first word counts."""
        if self.is_over:
            return
        if self._has_value and is_graceful(reason):
            self._over("done", self.value)
        elif self.is_unwanted or is_graceful(reason):
            self._over("cancelled", None)
        else:
            self.error = self.error if self.error is not None else _error_of(self.name, reason)
            self._over("failed", _text(reason))

    def again(self) -> None:
        """It is started anew by hand, with a new outcome."""
        was_over = self.is_over
        self.state = "restarting"
        self.is_unwanted = False
        self.log.programs[self.path] = self
        self._changed.clear()
        self._forget()
        if was_over:
            self.events = self.log.stream(self.path, capacity=self._capacity, earlier=self.events)
        self.events.append("restarting", "by request")

    def _forget(self) -> None:
        self.value, self._has_value, self.error = None, False, None
        self.agents = {}

    def _over(self, state: Literal["done", "failed", "cancelled"], data: object) -> None:
        self.state = state
        if self.log.programs.get(self.path) is self:
            del self.log.programs[self.path]
        self.events.append(state, data)
        self.events.close()
        self._changed.set()


def _text(reason: Reason) -> str:
    """What a person wants to read: a crash's own words, or its class where it has none."""
    cause = root_cause(reason)
    if isinstance(cause, Crashed) and cause is reason:
        return cause.text or cause.error.rpartition(".")[2]
    return describe(reason)


def _error_of(name: str, reason: Reason) -> ProgramFailed:
    """The error for an end whose own exception is not at hand."""
    if isinstance(reason, Crashed) and reason.error.endswith(f".{ProgramTimeout.__name__}"):
        return ProgramTimeout(reason.text, exit=reason)
    if isinstance(reason, Crashed) and reason.error.endswith(f".{ProgramFailed.__name__}"):
        return ProgramFailed(reason.text, exit=reason)
    return ProgramFailed(f"{name} failed: {describe(reason)}", exit=reason)
