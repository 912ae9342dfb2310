"""What can go wrong with agent programs.

::

    AgentError
    └── ProgramError
        ├── NoProgram          an ambient function was called where no program runs
        ├── ProgramFailed      a program did not come to a result
        │   ├── ProgramTimeout     it took longer than its timeout
        │   └── ProgramCancelled   somebody cancelled it, or its parent ended
        ├── ProgramEnded       an endpoint of a program that runs no more was called, or of an agent's
        ├── NoEndpoint         the program exposes nothing of that name
        ├── NoMachine          an agent without a machine is to do something on it
        ├── StreamEnded        what was waited for on a stream can no longer come
        └── HarnessEnded       an agent's harness ended by itself, which is a crash of the agent
"""

from __future__ import annotations

from palmette.actors import Reason
from palmette.agents.errors import AgentError


class ProgramError(AgentError):
    """Something about an agent program."""


class NoProgram(ProgramError, RuntimeError):
    """There is no running program here."""


class ProgramFailed(ProgramError):
    """A program did not come to a result: it said ``fail(reason)``, or ended as ``exit`` tells.

    An exception that a program's body raised comes out as it is where it was raised in this process; from another
    process it arrives as this.
    """

    def __init__(self, reason: str, *, exit: Reason | None = None) -> None:
        self.reason = reason
        self.exit = exit
        super().__init__(reason)


class ProgramTimeout(ProgramFailed, TimeoutError):
    """A program took longer than its timeout; its body was cancelled."""


class ProgramCancelled(ProgramFailed):
    """A program was cancelled before it came to a result."""


class ProgramEnded(ProgramError):
    """Whoever was called has ended; ``reason`` says how."""

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason = reason
        super().__init__(f"{name} does not run any more ({reason})")


class NoEndpoint(ProgramError, ValueError):
    """A program exposes nothing of that name (yet); the message lists what it does expose."""


class NoMachine(ProgramError):
    """The agent was made without a machine."""


class StreamEnded(ProgramError):
    """A stream was closed, and what was waited for is not on it."""


class HarnessEnded(ProgramError):
    """A harness ended by itself. Starting another may help: its agent's supervisor decides."""

    retryable = True
