"""A program in a cluster: its children that say what they need live on the cluster's members.

``System.start(tree, cluster="head:1900")`` makes one of it. The head says where a child may live; the member is called
up, and its lifeline takes the order to start the process; the process connects to the program, and from there on it is
a process node like any other.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Final

import msgspec

from palmette.actors import wire
from palmette.actors.actor import Actor
from palmette.actors.cluster.channel import Address, Listener, listen
from palmette.actors.cluster.credentials import Credentials
from palmette.actors.cluster.errors import HeadLost, Unreached
from palmette.actors.cluster.far_host import FarHost
from palmette.actors.cluster.head import Head
from palmette.actors.cluster.needs import Needs
from palmette.actors.cluster.output import Line, log_output
from palmette.actors.cluster.peers import Peer, connect, may_be_gone
from palmette.actors.cluster.placement import Placed, Unsatisfiable
from palmette.actors.cluster.placer import NoPlace
from palmette.actors.cluster.records import HEAD, PROGRAM, Denied, Lease
from palmette.actors.deadlines import deadline
from palmette.actors.ending import settle
from palmette.actors.endpoints import endpoint
from palmette.actors.errors import ActorDied, DeadlineExceeded, NodeError, Refused, StartFailed
from palmette.actors.exits import Killed, Reason, Shutdown, Unreachable, describe
from palmette.actors.link import Link
from palmette.actors.node_process import NodeProcess
from palmette.actors.nodes import NodeHost, Nodes
from palmette.actors.slot import Slot
from palmette.actors.starting import StartOptions

if TYPE_CHECKING:
    from palmette.actors.system import System

ENTER_SECONDS: Final = 10.0
DRAIN_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 30.0
"""For the head, beyond what the child would wait for a place."""
LIFELINE_SECONDS: Final = 10.0
"""From the head's word that a member is in touch until it is."""
FIRST_DELAY, LONGEST_DELAY = 0.2, 10.0
"""Seconds until the connection to a lost head is tried again, doubled each time."""


class Cluster(Actor):
    """The program's connection to the head, at ``/system/cluster``. It ends when that is lost, and is started anew."""

    def __init__(self, nodes: ClusterNodes) -> None:
        self._nodes = nodes
        self._head: Peer | None = None

    async def started(self) -> None:
        nodes = self._nodes
        who = wire.Enter("program", nodes.program, 0)
        self._head = await connect(self.system, nodes.head, nodes.credentials, who, self._lost)
        address = await nodes.listen(self._head.local_host)
        with deadline(ENTER_SECONDS):
            held = tuple(nodes.leases.values())
            self._head.go_by(await self._head.ref(HEAD, Head).call(Head.enter, nodes.program, address, held))

    async def stopping(self, reason: Reason) -> None:
        if self._head is not None:
            if self._nodes.is_closing and self._head.is_connected():
                self._head.ref(HEAD, Head).cast(Head.leave, self._nodes.program)
                await self._head.link.drain(DRAIN_SECONDS)
            self._head.close()

    def _lost(self, why: str) -> None:
        self._cell.stop(Shutdown(f"the head at {self._nodes.head} is lost: {why}"))

    @endpoint
    async def place(self, id: str, path: str, needs: Needs) -> Lease | Denied:
        """Ask the head for a place."""
        assert self._head is not None
        head = self._head.ref(HEAD, Head)
        return self.answer_later(head.call(Head.place, id, self._nodes.program, path, needs))

    @endpoint
    async def release(self, lease: str) -> None:
        """A place is not needed any more."""
        assert self._head is not None
        self._head.ref(HEAD, Head).cast(Head.release, lease)

    @endpoint
    async def gone(self, node: str, why: str) -> None:
        """From a member: a process has ended, or could not be started."""
        self._nodes.gone(node, why)

    @endpoint
    async def printed(self, path: str, pid: int, lines: list[Line]) -> None:
        """From a member: what a process has printed."""
        log_output(path, pid, lines)

    @endpoint
    async def move(self, lease: Lease) -> None:
        """From the head: the child there is to live elsewhere."""
        self._nodes.move(lease)


class ClusterNodes(Nodes):
    """The process nodes of a program in a cluster: here, and on other hosts."""

    def __init__(self, system: System, head: Address, credentials: Credentials) -> None:
        super().__init__(system)
        self.placer = self
        self.head = head
        self.credentials = credentials
        self.program = f"{system.name}-{secrets.token_hex(4)}"
        self.leases: dict[str, Lease] = {}
        """What this program holds, by id."""
        self._listener: Listener | None = None
        self._members: dict[str, FarHost] = {}
        """Those that have called, by name."""
        self._far: set[Link] = set()
        """Connections that came in over TLS."""
        self._by_link: dict[Link, FarHost] = {}
        self._called: dict[str, asyncio.Future[None]] = {}
        self._ordered: dict[str, FarHost] = {}
        """Where each node was ordered."""
        self._again: asyncio.TimerHandle | None = None
        self._joining: asyncio.Task[None] | None = None

    @property
    def is_closing(self) -> bool:
        return self._closing

    # --- the connection to the head ----------------------------------------------------------------------------------

    async def join(self) -> None:
        """Connect to the head; afterwards it is connected to again, whenever that is lost.

        Raises:
            StartFailed: it does not answer.
        """
        system = self.system
        slot = system.slots.setdefault(PROGRAM, Slot(PROGRAM))
        cell = await system.start_actor(slot, None, Cluster, (self,), {}, StartOptions(start_timeout=20.0))
        cell.ended().add_done_callback(lambda _: self._rejoin(FIRST_DELAY))

    def _rejoin(self, delay: float) -> None:
        if not self._closing:
            # It has no supervisor above it, like the registry.
            self._again = self.system.loop.call_later(delay * self.system.random.uniform(0.5, 1.0), self._try, delay)

    def _try(self, delay: float) -> None:
        def tried(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception() is not None:
                self._rejoin(min(2 * delay, LONGEST_DELAY))

        self._joining = self.system.loop.create_task(self.join())
        self._joining.add_done_callback(tried)

    async def listen(self, host: str) -> str:
        """Open the port that nodes and members call; where it is."""
        if self._listener is None:
            self._listener = await listen(self.accept_far, self.credentials, host, 0)
        return str(self._listener.address)

    def accept_far(self) -> Link:
        """The program's end of a new connection, from a host of the cluster."""
        link = self.accept()
        self._far.add(link)
        return link

    # --- places ------------------------------------------------------------------------------------------------------

    async def place(self, path: str, needs: Needs) -> Placed:
        """See :class:`~palmette.actors.cluster.placer.Placer`. A head that is just being replaced is waited for."""
        until = self.system.loop.time() + needs.wait
        id = secrets.token_hex(8)
        answer: Lease | Denied | None = None
        try:
            cluster = await self.system.wait_for(PROGRAM, Cluster, timeout=needs.wait)
            seconds = max(0.0, until - self.system.loop.time())
            with deadline(seconds + ANSWER_SECONDS):
                answer = await cluster.call(Cluster.place, id, path, msgspec.structs.replace(needs, wait=seconds))
        except (ActorDied, DeadlineExceeded) as error:
            raise HeadLost(f"no head at {self.head} to ask for a place: {error}") from error
        except Refused as error:
            raise NodeError(str(error)) from error
        finally:
            if answer is None:  # it was called off, or nobody knows
                self.system.ref_at(PROGRAM, Cluster).cast(Cluster.release, id)
        assert answer is not None
        if isinstance(answer, Denied):
            raise Unsatisfiable(answer.text) if answer.for_ever else NoPlace(answer.text)
        self.leases[answer.id] = answer
        return answer.placed

    def release(self, lease: str) -> None:
        """Give a place back; a head that is not there learns of it when it is back, by what is still held."""
        if self.leases.pop(lease, None) is not None:
            self.system.ref_at(PROGRAM, Cluster).cast(Cluster.release, lease)

    def move(self, lease: Lease) -> None:
        """Stop the child that holds ``lease``, for its supervisor to start it elsewhere."""
        for hosted in self._hosted.values():
            if hosted.placed is not None and hosted.placed.lease == lease.id:
                hosted.stop(Killed(f"its member {lease.member} drains"))

    # --- starting ----------------------------------------------------------------------------------------------------

    async def host_for(self, placed: Placed | None) -> NodeHost:
        if placed is None:
            return await super().host_for(None)
        called = self._called.setdefault(placed.node, self.system.loop.create_future())
        if placed.node not in self._members:
            await asyncio.wait([called], timeout=LIFELINE_SECONDS)
        host = self._members.get(placed.node)
        if host is None or host.incarnation != placed.incarnation:
            raise NodeError(f"member {placed.node}, where it was to live, is lost")
        return host

    def order(self, host: NodeHost, node: str, token: str, slot: Slot, placed: Placed | None) -> None:
        if placed is None or not isinstance(host, FarHost):
            super().order(host, node, token, slot, placed)
            return
        assert self._listener is not None
        self._ordered[node] = host
        address = str(self._listener.address)
        host.launch(self.leases[placed.lease], wire.Order(node, "", token, self.system.heartbeat, address=address))

    def process_of(self, link: Link) -> NodeProcess:
        host = self._ordered.get(link.node)
        return super().process_of(link) if host is None else host.process(link.node)

    def gone(self, node: str, why: str) -> None:
        """A member says that a process has ended, or that there will be none."""
        expected = self._expected.get(node)
        if expected is not None and not expected.arrived.done():
            expected.arrived.set_exception(NodeError(why))
        host = self._ordered.pop(node, None)
        if host is not None:
            host.over(node)

    # --- members -----------------------------------------------------------------------------------------------------

    def _greet(self, link: Link, frame: wire.Frame) -> None:
        if not isinstance(frame, wire.Enter) or frame.role != "lifeline" or link not in self._far:
            super()._greet(link, frame)
            return
        self._strangers.pop(link).cancel()
        link.trust(f"member {frame.name}", 0)
        link.keep_alive(self.system.heartbeat, may_be_gone)
        self._members[frame.name] = host = FarHost(Peer(self.system, link, frame))
        self._by_link[link] = host
        called = self._called.pop(frame.name, None)
        if called is not None and not called.done():
            called.set_result(None)

    def _on_lost(self, link: Link, why: str) -> None:
        self._far.discard(link)
        host = self._by_link.pop(link, None)
        super()._on_lost(link, why)
        if host is None:
            return
        if self._members.get(host.name) is host:
            del self._members[host.name]
        # Whoever is silent for so long, or gives up itself, has ended everything by now.
        host.lost(at_once=isinstance(link.lost, Unreachable))
        text = f"member {host.name} is lost: {why}"
        for expected in list(self._expected.values()):
            if expected.host is host and not expected.arrived.done():
                expected.arrived.set_exception(NodeError(text))
        for hosted in list(self._hosted.values()):
            if self._ordered.get(hosted.link.node) is host:
                hosted.link.give_up(text)

    # --- the end -----------------------------------------------------------------------------------------------------

    async def _close(self) -> None:
        if self._again is not None:
            self._again.cancel()
        if self._joining is not None:
            await settle([self._joining])
        # While their members are there to say that it is done.
        left = list(self._hosted.values())
        for hosted in left:
            hosted.kill(Killed("the system stops"))
        await settle([hosted.ended() for hosted in left], timeout=2 * self.system.kill_grace)
        await super()._close()
        cluster = self.system.slots[PROGRAM].target
        if cluster is not None:
            ended = cluster.ended()
            cluster.stop(Shutdown("the system stops"))
            await settle([ended], timeout=self.system.kill_grace)
        if self._listener is not None:
            self._listener.close()


async def join(system: System, head: str) -> ClusterNodes:
    """Make ``system`` a program of the cluster whose head is at ``head``.

    Raises:
        ClusterError: it does not answer, or this host has no credentials for it.
        ValueError: ``head`` is no address.
    """
    address = Address.parse(head)
    credentials = await asyncio.to_thread(Credentials.load)
    nodes = ClusterNodes(system, address, credentials)
    try:
        await nodes.join()
    except StartFailed as error:
        await nodes.close()
        raise Unreached(str(describe(error.reason))) from error
    return nodes
