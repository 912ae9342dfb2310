"""Who a part of a run is, whichever episode it belongs to: ``/episodes/trail-7+0`` is ``/episodes/*``.

Restarts are told by role: one line for all agents, not one for each episode.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from palmette.console.snapshot import RestartCount

# `episodes` is what the trees of runs and trainings call their dynamic supervisor.
_EPISODE = re.compile(r"(^|/)episodes/[^/]+")


def role_of(path: str) -> str:
    """``path`` with the episode's name left out.

    >>> role_of("/rollouts/episodes/trail-7+0/agent")
    '/rollouts/episodes/*/agent'
    """
    return _EPISODE.sub(r"\1episodes/*", path)


class RestartCounts:
    """Restarts by supervisor and child, as roles."""

    def __init__(self, restarts: Iterable[tuple[str, str]] = ()) -> None:
        """``restarts``: the child's path and why it had ended, for each restart so far, oldest first."""
        self._counts: dict[str, tuple[int, str]] = {}
        for path, reason in restarts:
            self.add(path, reason)

    def add(self, path: str, reason: str) -> None:
        """Count one."""
        role = role_of(path)
        self._counts[role] = (self._counts.get(role, (0, ""))[0] + 1, reason)

    def listed(self) -> tuple[RestartCount, ...]:
        """The most frequent first."""
        ranked = sorted(self._counts.items(), key=lambda item: (-item[1][0], item[0]))
        counted: list[RestartCount] = []
        for role, (count, reason) in ranked:
            supervisor, _, child = role.rpartition("/")
            counted.append(RestartCount(supervisor=supervisor or "/", child=child, count=count, last_reason=reason))
        return tuple(counted)
