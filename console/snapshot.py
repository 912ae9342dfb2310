"""What the live view shows: plain values, taken at one moment, with no way back to the actors they came from.

The view is a pure function of a :class:`Snapshot` (see :func:`palmette.console.live.render`), so that it can
be tested without a run, recorded, and sent over a wire.
"""

from __future__ import annotations

import msgspec

from palmette.benchmarks.outcomes import Tally


class TreeNode(msgspec.Struct, frozen=True, kw_only=True):
    """One actor and what it supervises."""

    name: str
    kind: str = ""
    """The actor's class: ``"Supervisor"``, ``"PolicyServer"``, …"""
    state: str = "running"
    """``running`` is shown by a quiet mark; every other state is spelled out, and those that need attention
    (``starting``, ``down`` or ``restarting``, ``stopping``, ``suspended``, ``crashed``, ``zombie``) are
    coloured."""
    pid: int | None = None
    """The operating system process, where the actor has one of its own."""
    place: str | None = None
    """The host that it was placed on, and its GPUs there, where its spec says what it needs."""
    restarts: int = 0
    detail: str = ""
    """A few words on what it is doing: the task of an episode, the step of a trainer."""
    children: tuple[TreeNode, ...] = ()
    hidden_children: int = 0
    """Further children that were left out when the snapshot was taken."""


class RestartCount(msgspec.Struct, frozen=True, kw_only=True):
    """How often a supervisor restarted one of its children."""

    supervisor: str
    child: str
    count: int
    last_reason: str = ""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A run at one moment."""

    run_id: str
    title: str
    """What is being run: ``"trail · react · openai/gpt-5"``."""
    phase: str = ""
    """What it is doing now: ``"GRPO step 17 of 40"``."""
    done: int = 0
    total: int | None = None
    """Units of work in this phase; ``None`` where nobody knows."""
    tally: Tally = Tally()
    """Of the whole run so far."""
    curve: tuple[float | None, ...] = ()
    """Mean reward per step (training) or over time (evaluation), oldest first; ``None`` is a gap."""
    restarts: tuple[RestartCount, ...] = ()
    tree: TreeNode | None = None
    elapsed: float = 0.0
    """Seconds since the run started."""
    eta: float | None = None
    """Seconds left, as far as can be told."""
    log: tuple[str, ...] = ()
    """What happened lately, oldest first."""
