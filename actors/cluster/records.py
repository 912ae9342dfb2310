"""What the systems of a cluster tell each other: plain data."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from palmette.actors.cluster.capabilities import Capabilities
from palmette.actors.cluster.placement import Needs
from palmette.actors.wire import Order

HEAD: Final = "/head"
"""Where the head's actor is in its system."""
MEMBERSHIP: Final = "/membership"
LAUNCHER: Final = "/launcher"
PROGRAM: Final = "/system/cluster"
DEFAULT_PORT: Final = 1900
"""The port of Thespian's convention leaders, and of ours."""


class Lease(msgspec.Struct, frozen=True):
    """A place on a member that a program's child has: while it holds it, nobody else gets those devices."""

    id: str
    program: str
    path: str
    """The child's address in its program."""
    member: str
    incarnation: int
    """The member's."""
    needs: Needs
    gpus: tuple[int, ...] = ()
    environment: dict[str, str] = {}
    """For the child's process, before anything is imported in it."""


class Running(msgspec.Struct, frozen=True):
    """A process that a member has started."""

    node: str
    lease: Lease
    pid: int


class MemberCard(msgspec.Struct, frozen=True):
    """What a member says of itself when it joins."""

    name: str
    incarnation: int
    capabilities: Capabilities
    running: tuple[Running, ...] = ()
    limit: int | None = None
    """How many processes it takes at most."""


class MemberRow(msgspec.Struct, frozen=True, kw_only=True):
    """One member, for people."""

    name: str
    state: Literal["up", "draining", "lost"]
    address: str
    incarnation: int
    capabilities: Capabilities
    leases: tuple[Lease, ...] = ()
    since: float
    """Seconds since the epoch, by the head's clock: when it came into this state."""


class ClusterRow(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster, for people."""

    address: str
    members: tuple[MemberRow, ...] = ()
    programs: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    """Placements that wait for something to become free, each with what it waits for."""


class Launch(msgspec.Struct, frozen=True):
    """A program's order to a member."""

    lease: Lease
    order: Order
