"""What is known of why a machine, or a command on it, came to an end.

Whoever decides what a failure means needs the fact and not the prose: the same ``kill -9`` is the agent's own doing
when its command used up the memory, and infrastructure when somebody removed the container.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Cause = Literal[
    "out_of_memory",  # the kernel killed for memory
    "disk_full",  # a write failed for want of space or quota
    "too_many_processes",  # a fork failed at the limit
    "runner_killed",  # the machine lives, but a command killed our own process inside it
    "machine_killed",  # container, sandbox or namespace ended without our asking
    "host_lost",  # the host, or our process there, that it was kept from is gone
    "machine_removed",  # it does not exist any more
    "connection_lost",  # the way to it is gone; what happens there is unknown
    "daemon_gone",  # who runs the machines does not answer: refused, closed
    "daemon_frozen",  # it takes connections and says nothing
    "expired",  # its lease ran out
    "image_missing",  # there is nothing to make it from; trying again does not help
    "quota",  # the provider gives no more machines at present
    "stopped",  # we did it
    "unknown",
]


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """One cause, and what shows it."""

    cause: Cause
    detail: str = ""
    """What was seen, for a person: "container state: OOMKilled=true, exit code 137"."""
    agents_doing: bool = False
    """Whether a command on the machine brought it about, rather than what lies below the machine."""

    def __str__(self) -> str:
        return f"{self.cause.replace('_', ' ')}{f' ({self.detail})' if self.detail else ''}"
