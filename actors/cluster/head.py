"""The head of a cluster: it knows the members, and says where a program's children may run.

It is asked for a place (:meth:`Head.place`) and gives a :class:`~palmette.actors.cluster.records.Lease`; the rest is
between the program and the member. So a head that dies takes nothing with it: what runs goes on, members and programs
come back to its successor and say what they run and hold, and only new places wait meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from palmette.actors.actor import Actor
from palmette.actors.cluster.capabilities import Capabilities
from palmette.actors.cluster.channel import Address, Listener, listen
from palmette.actors.cluster.credentials import Credentials
from palmette.actors.cluster.membership import Membership
from palmette.actors.cluster.needs import Needs
from palmette.actors.cluster.peers import Door, Peer
from palmette.actors.cluster.placement import Accounts, Placed, Unsatisfiable, Waiting
from palmette.actors.cluster.records import (
    MEMBERSHIP,
    PROGRAM,
    ClusterRow,
    Denied,
    Lease,
    MemberCard,
    MemberRow,
    MemberState,
)
from palmette.actors.deadlines import deadline
from palmette.actors.endpoints import endpoint
from palmette.actors.errors import ActorDied, DeadlineExceeded, Refused
from palmette.actors.exits import Reason
from palmette.actors.heartbeat import Heartbeat

_log: Final = logging.getLogger(__name__)

ATTEND_SECONDS: Final = 20.0
"""For a member to get in touch with a program."""
REMEMBERED_SECONDS: Final = 600.0
"""For which a lost member is expected to come back: what only it could satisfy waits, and is not refused."""


class _Member(msgspec.Struct):
    card: MemberCard
    peer: Peer
    since: float


class _Lost(msgspec.Struct):
    row: MemberRow
    at: float


class _Gone(msgspec.Struct, frozen=True):
    role: str
    name: str
    incarnation: int


class _Forget(msgspec.Struct, frozen=True):
    program: str
    peer_id: int


class Head(Actor):
    """See the module's text. ``bind`` and ``port``: where members and programs connect to."""

    def __init__(self, bind: str, port: int, credentials: str) -> None:
        self._bind = bind
        self._port = port
        self._directory = credentials
        self._listener: Listener | None = None
        self._door = Door(self.system, self._came, self._went)
        self._members: dict[str, _Member] = {}
        self._lost: dict[str, _Lost] = {}
        self._programs: dict[str, tuple[Peer, str]] = {}
        """Each with the address that it listens at."""
        self._accounts = Accounts()
        self._leases: dict[str, Lease] = {}
        self._placing: dict[str, str] = {}
        """Leases that are asked for, and by which program."""
        self._waiting: dict[asyncio.Future[None], str] = {}
        """Placements that nothing is free for, first come first served, with what they wait for."""

    async def started(self) -> None:
        _log.setLevel(logging.INFO)  # here, in its own process; what is shown of it is the node's to say
        credentials = await asyncio.to_thread(Credentials.load, Path(self._directory))
        self._listener = await listen(self._door.accept, credentials, self._bind, self._port)

    async def stopping(self, reason: Reason) -> None:
        self._door.close()
        if self._listener is not None:
            self._listener.close()

    # --- who is there ----------------------------------------------------------------------------------------------

    @endpoint
    async def join(self, card: MemberCard) -> Heartbeat:
        """A member is here, or here again: with what it runs. It is told when who is silent is lost, here.

        Raises:
            Refused: somebody else has its name.
        """
        peer = self._peer("member", card.name, card.incarnation)
        known = self._members.get(card.name)
        if known is not None and known.card.incarnation != card.incarnation:
            raise Refused(
                f"there is a member named {card.name!r} already, at {known.peer.address}; start this one with "
                f"--name and another name (one that has died is given up within {self.system.heartbeat.loss:g} s)"
            )
        self._lost.pop(card.name, None)
        self._members[card.name] = _Member(card, peer, time.time() if known is None else known.since)
        self._accounts.add(card.name, card.incarnation, card.capabilities, card.limit)
        for lease in [running.lease for running in card.running] + [*self._leases.values()]:
            if lease.member == card.name and lease.placed.incarnation == card.incarnation:
                self._restore(lease)
        if known is None:
            _log.info("%s has joined from %s: %s", card.name, peer.address, card.capabilities)
        self._look_again()
        return self.system.heartbeat

    @endpoint
    async def enter(self, program: str, address: str, held: tuple[Lease, ...]) -> Heartbeat:
        """A program is here, or here again: with what it holds. ``address`` is where members reach it."""
        if program not in self._programs:
            _log.info("program %s is here, at %s", program, address)
        self._programs[program] = (self._peer("program", program, None), address)
        mine = {lease.id for lease in held}
        held_no_more = [id for id, lease in self._leases.items() if lease.program == program and id not in mine]
        # Who asked over an earlier connection has been told that it is lost.
        self._release([*held_no_more, *(id for id, asking in self._placing.items() if asking == program)])
        for lease in held:
            member = self._members.get(lease.member)
            if member is None or member.card.incarnation == lease.placed.incarnation:
                self._restore(lease)
        return self.system.heartbeat

    @endpoint
    async def leave(self, program: str) -> None:
        """A program has ended, in order: nothing of it runs any more."""
        if self._programs.pop(program, None) is not None:
            _log.info("program %s has ended", program)
        self._release([lease.id for lease in self._leases.values() if lease.program == program])

    def _restore(self, lease: Lease) -> None:
        self._leases[lease.id] = lease
        if lease.member in self._members:
            placed = lease.placed
            self._accounts.restore(lease.id, lease.needs, placed.node, placed.incarnation, placed.gpus)

    def _peer(self, role: str, name: str, incarnation: int | None) -> Peer:
        for peer in self._door.peers.values():
            who = peer.who
            if who.role == role and who.name == name and incarnation in (None, who.incarnation):
                return peer
        raise Refused(f"no {role} {name!r} is connected")

    def _came(self, peer: Peer) -> None:
        pass  # it says more with its first call

    def _went(self, peer: Peer, why: str) -> None:
        # Through the mailbox: after what it had still asked for.
        self.ref.send(_Gone(peer.who.role, peer.name, peer.who.incarnation))

    async def receive(self, message: object) -> None:
        match message:
            case _Gone("member", name, incarnation):
                member = self._members.get(name)
                if member is not None and member.card.incarnation == incarnation and not member.peer.is_connected():
                    self._lose(member)
            case _Gone("program", name):
                entry = self._programs.get(name)
                if entry is not None and not entry[0].is_connected():
                    # It may be back before its members have given it up, and go on.
                    self.send_after(self.system.heartbeat.loss, _Forget(name, id(entry[0])))
            case _Forget(program, peer_id):
                entry = self._programs.get(program)
                if entry is not None and id(entry[0]) == peer_id:
                    del self._programs[program]
                    self.start_task(self._forget(program), tag="forget")
            case _:
                pass  # a visitor has left, or a task is done

    def _lose(self, member: _Member) -> None:
        card = member.card
        _log.warning("%s is lost", card.name)
        row = msgspec.structs.replace(self._row(member, "lost"), leases=())
        del self._members[card.name]
        self._lost[card.name] = _Lost(row, self.system.loop.time())
        self._accounts.remove(card.name)
        # Its processes end by their own lease; the programs know, and ask for other places.
        for lease in [lease for lease in self._leases.values() if lease.member == card.name]:
            del self._leases[lease.id]

    async def _forget(self, program: str) -> None:
        """A program is gone for good: what it held is free when nothing of it runs any more."""
        for member in list(self._members.values()):
            held = [lease.id for lease in self._leases.values() if _is(lease, program, member.card.name)]
            if held:
                try:
                    with deadline(ATTEND_SECONDS):
                        await member.peer.ref(MEMBERSHIP, Membership).call(Membership.forget, program)
                except (ActorDied, DeadlineExceeded):
                    continue  # the member is on its way out, and its accounts with it
                self._release(held)

    # --- places ----------------------------------------------------------------------------------------------------

    @endpoint
    async def place(self, id: str, program: str, path: str, needs: Needs) -> Lease | Denied:
        """A place for the child at ``path``, reserved until ``id`` is released. Waits up to ``needs.wait`` seconds."""
        self._placing[id] = program
        return self.answer_later(self._place(id, program, path, needs))

    async def _place(self, id: str, program: str, path: str, needs: Needs) -> Lease | Denied:
        until = self.system.loop.time() + needs.wait
        try:
            while id in self._placing:
                found = self._find(id, needs)
                if isinstance(found, Placed):
                    self._leases[id] = lease = Lease(found, program, path, needs)
                    if await self._introduce(self._members[found.node], program):
                        return lease
                    self._leases.pop(id, None)
                    self._accounts.release(id)
                    continue
                if self.system.loop.time() >= until:
                    self._accounts.release(id)
                    return Denied(f"it waited {needs.wait:g} s for a place: {found.reason}", for_ever=False)
                change: asyncio.Future[None] = self.system.loop.create_future()
                self._waiting[change] = f"{path}: {found.reason}"
                try:
                    await asyncio.wait([change], timeout=until - self.system.loop.time())
                finally:
                    self._waiting.pop(change, None)
        except Unsatisfiable as error:
            return Denied(str(error), for_ever=True)
        except BaseException:
            self._release([id])
            raise
        finally:
            self._placing.pop(id, None)
        return Denied("it is not wanted any more", for_ever=False)

    def _find(self, id: str, needs: Needs) -> Placed | Waiting:
        try:
            return self._accounts.place(id, needs)
        except Unsatisfiable:
            for name, capabilities in self._still_expected():
                if _would_do(name, capabilities, needs):
                    return Waiting(lease=id, reason=f"member {name} could have it, and is lost")
            raise

    def _still_expected(self) -> list[tuple[str, Capabilities]]:
        now = self.system.loop.time()
        self._lost = {name: lost for name, lost in self._lost.items() if now - lost.at < REMEMBERED_SECONDS}
        return [(name, lost.row.capabilities) for name, lost in self._lost.items()]

    async def _introduce(self, member: _Member, program: str) -> bool:
        """Have a member get in touch with a program; false if the member is gone."""
        if program not in self._programs:
            raise Refused(f"program {program} has left")
        try:
            with deadline(ATTEND_SECONDS):
                ref = member.peer.ref(MEMBERSHIP, Membership)
                await ref.call(Membership.attend, program, self._programs[program][1])
        except ActorDied:
            if self._members.get(member.card.name) is member:
                self._lose(member)
            return False
        except DeadlineExceeded:
            raise Refused(f"member {member.card.name} does not answer") from None
        return True

    @endpoint
    async def release(self, lease: str) -> None:
        """A place is free again: nothing runs there any more. One that is still looked for is looked for no more."""
        self._release([lease])

    def _release(self, leases: Iterable[str]) -> None:
        for id in leases:
            self._leases.pop(id, None)
            self._placing.pop(id, None)
            self._accounts.release(id)  # or its place in the line
        self._look_again()

    def _look_again(self) -> None:
        self._accounts.grant()  # who was served, or has no hope any more, learns of it when it asks again
        for change in self._waiting:
            if not change.done():
                change.set_result(None)

    # --- for people ------------------------------------------------------------------------------------------------

    @endpoint
    async def cluster(self) -> ClusterRow:
        """Who is here."""
        self._still_expected()
        rows = [self._row(member, self._state(member)) for member in self._members.values()]
        return ClusterRow(
            address=str(Address(self._bind, self._port)),
            pid=os.getpid(),
            members=tuple(sorted((*rows, *(lost.row for lost in self._lost.values())), key=lambda row: row.name)),
            programs=tuple(self._programs),
            waiting=tuple(self._waiting.values()),
        )

    def _state(self, member: _Member) -> MemberState:
        return "draining" if self._accounts.members[member.card.name].draining else "up"

    def _row(self, member: _Member, state: MemberState) -> MemberRow:
        card = member.card
        return MemberRow(
            name=card.name,
            state=state,
            address=member.peer.address,
            incarnation=card.incarnation,
            capabilities=card.capabilities,
            leases=tuple(lease for lease in self._leases.values() if lease.member == card.name),
            since=time.time() if state == "lost" else member.since,
        )

    @endpoint
    async def drain(self, name: str, move: bool = False, undo: bool = False) -> int:
        """Give a member nothing new, or, to ``undo`` that, as much as any other. With ``move``, what runs there is
        stopped, and started elsewhere by its supervisor; else it is left to finish. How many children are there."""
        self._member(name)
        self._accounts.drain(name, draining=not undo)
        self._look_again()
        leases = [lease for lease in self._leases.values() if lease.member == name]
        if move:
            self._tell_to_move(leases)
        return len(leases)

    def _tell_to_move(self, leases: Iterable[Lease]) -> None:
        from palmette.actors.cluster.program import Cluster

        for lease in leases:
            entry = self._programs.get(lease.program)
            if entry is not None:
                entry[0].ref(PROGRAM, Cluster).cast(Cluster.move, lease)

    @endpoint
    async def remove(self, name: str) -> None:
        """Have a member leave: what runs there is killed. One that is lost is forgotten."""
        if self._lost.pop(name, None) is not None:
            return
        self._member(name).peer.ref(MEMBERSHIP, Membership).cast(Membership.leave)

    def _member(self, name: str) -> _Member:
        if name not in self._members:
            raise Refused(f"no member is called {name!r}; there are {', '.join(self._members) or 'none'}")
        return self._members[name]


def _is(lease: Lease, program: str, member: str) -> bool:
    return lease.program == program and lease.member == member


def _would_do(name: str, capabilities: Capabilities, needs: Needs) -> bool:
    alone = Accounts()
    alone.add(name, 0, capabilities)
    try:
        alone.place("", needs)
    except Unsatisfiable:
        return False
    return True
