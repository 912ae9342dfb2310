"""A host's membership in a cluster: the connection to the head.

It crashes when that is lost, and its supervisor starts it again, with backoff, until a head answers. What runs on this
host does not notice: that is between the launcher and the programs.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from palmette.actors.actor import Actor
from palmette.actors.cluster.capabilities import Capabilities
from palmette.actors.cluster.channel import Address
from palmette.actors.cluster.credentials import Credentials
from palmette.actors.cluster.errors import HeadLost
from palmette.actors.cluster.launcher import Launcher
from palmette.actors.cluster.peers import Peer, connect
from palmette.actors.cluster.records import HEAD, MemberCard
from palmette.actors.deadlines import deadline
from palmette.actors.endpoints import endpoint
from palmette.actors.exits import Reason, Shutdown
from palmette.actors.wire import Enter

JOIN_SECONDS = 20.0


class _Lost(msgspec.Struct, frozen=True):
    why: str


class Member(msgspec.Struct, frozen=True):
    """What a host says of itself; it stays what it is when the connection is made anew."""

    name: str
    incarnation: int
    capabilities: Capabilities
    head: str
    """``HOST:PORT``."""
    credentials: str
    """The directory with this host's certificate."""
    limit: int | None = None


class Membership(Actor):
    """See the module's text."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._head: Peer | None = None

    async def started(self) -> None:
        from palmette.actors.cluster.head import Head

        member = self._member
        credentials = await asyncio.to_thread(Credentials.load, Path(member.credentials))
        running = await self.sibling("launcher", Launcher).call(Launcher.running)
        card = MemberCard(member.name, member.incarnation, member.capabilities, running, member.limit)
        who = Enter("member", member.name, member.incarnation)
        self._head = await connect(self.system, Address.parse(member.head), credentials, who, self._gone)
        with deadline(JOIN_SECONDS):
            # Who thought a lease longer than others do would live beside its successor.
            self._head.go_by(await self._head.ref(HEAD, Head).call(Head.join, card))

    async def stopping(self, reason: Reason) -> None:
        if self._head is not None:
            self._head.close()

    def _gone(self, why: str) -> None:
        self.ref.send(_Lost(why))

    async def receive(self, message: object) -> None:
        if isinstance(message, _Lost):
            raise HeadLost(f"the head at {self._member.head} is lost: {message.why}")
        await super().receive(message)

    @endpoint
    async def attend(self, program: str, address: str) -> None:
        """Get in touch with a program that has a place here.

        Raises:
            Refused: it does not answer.
        """
        return self.answer_later(self.sibling("launcher", Launcher).call(Launcher.attend, program, address))

    @endpoint
    async def forget(self, program: str) -> None:
        """Kill what a program runs here, and wait until it is gone."""
        return self.answer_later(self.sibling("launcher", Launcher).call(Launcher.forget, program))

    @endpoint
    async def leave(self) -> None:
        """This host is to leave the cluster: what runs here is killed, and the node ends."""
        self.stop(Shutdown("removed from the cluster"))
