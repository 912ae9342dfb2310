"""What the systems of a cluster tell each other: plain data."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from palmette.actors.cluster.capabilities import Capabilities
from palmette.actors.cluster.needs import Needs
from palmette.actors.cluster.placement import Placed
from palmette.actors.wire import Order

HEAD: Final = "/head"
"""Where the head's actor is in its system."""
MEMBERSHIP: Final = "/membership"
LAUNCHER: Final = "/launcher"
PROGRAM: Final = "/system/cluster"
MemberState = Literal["up", "draining", "lost"]
DEFAULT_PORT: Final = 1900
"""The port of Thespian's convention leaders, and of ours."""


class Lease(msgspec.Struct, frozen=True, tag=True):
    """A place on a member that a program's child has: while it holds it, nobody else gets those devices."""

    placed: Placed
    program: str
    path: str
    """The child's address in its program."""
    needs: Needs

    @property
    def id(self) -> str:
        return self.placed.lease

    @property
    def member(self) -> str:
        return self.placed.node


class Denied(msgspec.Struct, frozen=True, tag=True):
    """Why there is no place."""

    text: str
    for_ever: bool
    """Whether it exists nowhere; else it was in use for as long as the program would wait."""


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
    state: MemberState
    address: str
    incarnation: int
    capabilities: Capabilities
    leases: tuple[Lease, ...] = ()
    since: float
    """Seconds since the epoch, by the head's clock: when it came into this state."""


class ClusterRow(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster, for people."""

    address: str
    pid: int
    """The head's process."""
    members: tuple[MemberRow, ...] = ()
    programs: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    """Placements that wait for something to become free, each with what it waits for."""


class Launch(msgspec.Struct, frozen=True):
    """A program's order to a member."""

    lease: Lease
    order: Order
