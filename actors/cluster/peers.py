"""Two systems that talk: the head, the members and the programs of a cluster are systems of their own.

Each of them serves a few actors to those that its cluster's certificates let in. A :class:`Peer` is the other side of
one connection: :meth:`Peer.ref` is an actor over there, called like any other. Whoever connects says first who it is
(:class:`~palmette.actors.wire.Enter`); what its certificate says it is comes from the transport.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar, cast

from palmette.actors import wire
from palmette.actors.cluster.channel import Address, dial
from palmette.actors.cluster.credentials import Credentials
from palmette.actors.heartbeat import Heartbeat
from palmette.actors.link import Link
from palmette.actors.proxy import Direct
from palmette.actors.ref import Ref
from palmette.actors.serving import serve
from palmette.actors.slot import Slot

if TYPE_CHECKING:
    from palmette.actors.system import System

A = TypeVar("A")

GREETING_SECONDS: Final = 10.0
"""For a connection that has shown its certificate to say who it is."""
DIAL_SECONDS: Final = 10.0


class Peer:
    """The other side of a connection."""

    def __init__(self, system: System, link: Link, who: wire.Enter) -> None:
        self.system = system
        self.link = link
        self.who = who
        self.address = _text(link.info("peername"))
        """Where it calls from, or was called."""
        self.local_host = _text(link.info("sockname")).rpartition(":")[0].strip("[]")
        """Where this side of the connection is: an address at which the other side's network reaches this host."""

    @property
    def name(self) -> str:
        return self.who.name

    def go_by(self, heartbeat: Heartbeat) -> None:
        """From now on, here and on further connections of this system: all of a cluster go by one."""
        self.system.heartbeat = heartbeat
        self.link.keep_alive(heartbeat, may_be_gone)

    def is_connected(self) -> bool:
        return self.link.lost is None

    def ref(self, path: str, actor: type[A]) -> Ref[A]:
        """The actor at ``path`` over there; calls to it fail as soon as the connection is lost."""
        slot = Slot(f"@{self.who.name}{path}")
        slot.target = Direct(self.system, self.link, path)
        return cast("Ref[A]", self.system.ref(slot))

    def close(self) -> None:
        self.link.fail("closed")

    def __repr__(self) -> str:
        return f"<{self.who.role} {self.who.name}>"


class Door:
    """Where peers come in: greets them, serves them, and says who came and who is gone."""

    def __init__(self, system: System, arrived: Callable[[Peer], None], gone: Callable[[Peer, str], None]) -> None:
        self._system = system
        self._arrived = arrived
        self._gone = gone
        self._strangers: dict[Link, asyncio.TimerHandle] = {}
        self.peers: dict[Link, Peer] = {}

    def accept(self) -> Link:
        """The protocol of a new connection."""
        link = Link(self._system, self._on_frame, self._on_lost, trusting=False)
        self._strangers[link] = self._system.loop.call_later(GREETING_SECONDS, link.fail, "it did not say who it is")
        return link

    def _on_frame(self, link: Link, frame: wire.Frame) -> None:
        if link not in self._strangers:
            if not serve(self._system, link, frame):
                link.fail(f"it sent a {type(frame).__name__} out of turn")
        elif isinstance(frame, wire.Enter):
            self._strangers.pop(link).cancel()
            self.peers[link] = peer = Peer(self._system, link, frame)
            link.trust(frame.name, 0)
            link.keep_alive(self._system.heartbeat, may_be_gone)
            self._arrived(peer)
        else:
            link.fail("it did not introduce itself properly")

    def _on_lost(self, link: Link, why: str) -> None:
        timer = self._strangers.pop(link, None)
        if timer is not None:
            timer.cancel()
        peer = self.peers.pop(link, None)
        if link.lost is not None:
            link.release(link.lost)
        if peer is not None:
            self._gone(peer, why)

    def close(self) -> None:
        """Part from everybody."""
        for link in [*self._strangers, *self.peers]:
            link.fail("closed")


async def connect(
    system: System,
    address: Address,
    credentials: Credentials,
    who: wire.Enter,
    gone: Callable[[str], None],
    *,
    lease: bool = False,
) -> Peer:
    """Connect to the system that listens at ``address``. ``gone`` is called once when the connection is lost, and
    with a ``lease`` no later than the other side gives it up.

    Raises:
        OSError: nobody answers there, or not with a certificate of this cluster.
    """

    def on_frame(link: Link, frame: wire.Frame) -> None:
        if not serve(system, link, frame):
            link.fail(f"it sent a {type(frame).__name__} out of turn")

    def on_lost(link: Link, why: str) -> None:
        if link.lost is not None:
            link.release(link.lost)
        gone(why)

    link = Link(system, on_frame, on_lost, trusting=True)
    await dial(address, lambda: link, credentials, DIAL_SECONDS)
    link.trust(str(address), 0)
    link.write(who)
    lapsed = (lambda: link.give_up("its lease is over")) if lease else None
    link.keep_alive(system.heartbeat, may_be_gone, lapsed)
    return Peer(system, link, wire.Enter(who.role, str(address), 0))


def may_be_gone() -> bool:
    """For links between hosts."""
    # Between hosts silence is all there is to go by.
    return True


def _text(address: object) -> str:
    host, port, *_ = cast("tuple[str, int]", address)
    return str(Address(host, port))
