"""How a program is run: its child spec's options, and what its agents and machines are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

import msgspec

from palmette.agents.harness import HarnessFactory
from palmette.agents.programs.recorder import Recorder
from palmette.agents.programs.stream import CAPACITY
from palmette.supervisors import Backoff
from palmette.supervisors.policy import Directive, Restart
from palmette.supervisors.spec import Isolation


class ProgramOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of ``@program`` and ``Program.options``. ``None`` means as in the program that starts it."""

    name: str | None = None
    """Its name below its parent; by default the function's, with a number where it is taken."""
    image: str | None = None
    """Of its machines, and of its agents' (an image string of :mod:`palmette.machines`); none: agents have none."""
    harness: HarnessFactory | str | None = None
    """Of its agents: a factory, or ``react``, ``pi``, ``pi:COMMAND`` or ``cli:COMMAND``. In a process of its own a
    program has the harness that it was declared with."""
    recorder: Recorder | None = None
    """Where its agents' conversations are kept; by default in memory, for as long as the program's record lives."""
    timeout: float | None = None
    """Seconds that its body may take; then the body is cancelled and the program has failed."""
    restart: Restart = "temporary"
    """What its supervisor does when it fails: ``temporary`` lets it be, ``transient`` starts it again."""
    backoff: Backoff | None = None
    rules: Mapping[str, Directive] = {}
    """Exit reasons that are treated specially; see :class:`~palmette.supervisors.ChildSpec`."""
    shutdown: float = 30.0
    """Seconds that it and all that it started have for their clean-up when it is asked to end."""
    isolation: Isolation = "inline"
    max_restarts: int = 3
    """Restarts of what it started, within ``max_seconds``; one more, and the program fails."""
    max_seconds: float = 60.0
    capacity: int = CAPACITY
    """Events that its stream keeps."""
    control: bool = True
    """Whether a root program serves a control socket, for ``palmette ls``, ``call`` and the others."""

    def __post_init__(self) -> None:
        if self.timeout is not None and not self.timeout > 0:
            raise ValueError(f"a program's timeout is more than 0 seconds, got {self.timeout}; None sets none")
        if not self.shutdown > 0:
            raise ValueError(f"a program has more than 0 seconds to end, got shutdown={self.shutdown}")


class Changes(TypedDict, total=False):
    """The same, for signatures."""

    name: str | None
    image: str | None
    harness: HarnessFactory | str | None
    recorder: Recorder | None
    timeout: float | None
    restart: Restart
    backoff: Backoff | None
    rules: Mapping[str, Directive]
    shutdown: float
    isolation: Isolation
    max_restarts: int
    max_seconds: float
    capacity: int
    control: bool
