"""Process nodes, seen from the head: each runs one actor (and what lives below it) in an OS process of its own.

Thespian starts the processes (see :mod:`palmette.actors.host`); everything else, messages and death notices included,
travels over a direct link on a unix socket that only this user can open, and that asks for a token. A node whose
connection breaks is dead to everyone in the same turn of the loop, and one that is silent for too long is made so: it
is cut off first, and then killed, so that nothing it may still say is heard beside its successor.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from typing import TYPE_CHECKING, Final, Protocol
from weakref import WeakValueDictionary

import msgspec

from palmette.actors import wire
from palmette.actors.actor import Actor
from palmette.actors.arguments import encode_arguments, initializer
from palmette.actors.cluster.books import Placed
from palmette.actors.cluster.needs import Needs
from palmette.actors.codec import name_of
from palmette.actors.ending import settle
from palmette.actors.errors import NodeError, Refused, StartFailed
from palmette.actors.exits import Killed, reason_of
from palmette.actors.fingerprint import check_build, interface_of
from palmette.actors.hosted import Hosted
from palmette.actors.housing import Directory, Host
from palmette.actors.link import Link
from palmette.actors.node_process import NodeProcess, OwnProcess
from palmette.actors.proxy import Inner
from palmette.actors.serving import serve
from palmette.actors.slot import Slot
from palmette.actors.starting import StartOptions

if TYPE_CHECKING:
    from palmette.actors.cell import Cell
    from palmette.actors.system import System

BOOT_SECONDS: Final = 60.0
"""For a new process to call back. It takes under a second; a death meanwhile is noticed at once."""
GREETING_SECONDS: Final = 10.0
"""For a connection to say who it is."""
MAX_STRANGERS: Final = 64
"""Connections that have not said who they are. One more, and the oldest is cut off."""


class NodeHost(Protocol):
    """What starts processes: a host process, or a simulation's."""

    @property
    def is_gone(self) -> bool:
        """Whether it starts nothing any more."""
        ...

    def order(self, order: wire.Order) -> None:
        """Have a node started; it calls back."""
        ...

    async def close(self) -> None:
        """End it and all that it started, and wait."""
        ...


class _Expected:
    """A node that was ordered and has not called back."""

    def __init__(self, token: str, arrived: asyncio.Future[Link], host: NodeHost) -> None:
        self.token = token
        self.arrived = arrived
        self.host = host


class Nodes:
    """The head's side of all process nodes of a system. Made by the first child that asks for a process."""

    def __init__(self, system: System) -> None:
        self.system = system
        self._directory: Directory | None = None
        self._server: asyncio.Server | None = None
        self._host: NodeHost | None = None
        self._hosts: dict[NodeHost, None] = {}
        """The present one, and those that died and are not reaped yet."""
        self._opening: asyncio.Task[NodeHost] | None = None
        self._expected: dict[str, _Expected] = {}
        self._hosted: dict[str, Hosted] = {}
        self._strangers: dict[Link, asyncio.TimerHandle] = {}
        self._links: dict[Link, None] = {}
        self._places: WeakValueDictionary[str, Slot] = WeakValueDictionary()
        """Addresses that process children have lived at."""
        self._closing = False
        self.placer = system.make_placer()

    # --- starting ------------------------------------------------------------------------------------------------

    async def start_child(
        self,
        slot: Slot,
        parent: Cell | None,
        cls: type[Actor],
        args: tuple[object, ...],
        kwargs: dict[str, object],
        options: StartOptions,
    ) -> Hosted:
        """Start ``cls`` in a new process, in ``slot``, and return once it may be talked to.

        ``options.start_timeout`` bounds the import of its module, ``__init__`` and ``started``, once there is a
        process; that itself has BOOT_SECONDS, and a place for it has ``options.on.wait``.

        Raises:
            StartFailed: and the process is gone.
        """
        if slot.target is not None:
            raise StartFailed(slot.path, Killed(f"its address is still taken by a {slot.target.state} incarnation"))
        try:
            actor = name_of(cls)
            arguments = encode_arguments(initializer(cls), args, kwargs)
            interface = interface_of(cls)
        except (NodeError, Refused) as error:
            raise StartFailed(slot.path, reason_of(error)) from None
        slot.incarnation += 1
        placed = await self._place(slot, options.on)
        if placed is not None:
            options = msgspec.structs.replace(options, placed=placed)
        try:
            link = await self._new_node(slot, placed)
        except BaseException:
            # Its process, should there be one, is not welcomed any more, and has run nothing of the user's.
            if placed is not None:
                self.placer.release(placed.lease)
            raise
        self._places[slot.path] = slot
        process = self.process_of(link)
        hosted = Hosted(self.system, slot, parent, options.kind or cls.__name__, link, process)
        hosted.placer, hosted.placed = self.placer, placed
        slot.target = self._hosted[link.node] = hosted
        starting = hosted.starting
        assert starting is not None
        link.keep_alive(self.system.heartbeat, process.may_be_gone)
        names = self.system.naming.follow(link, slot.path)
        number, dynamic = slot.incarnation, slot.dynamic
        link.write(wire.StartActor(slot.path, number, actor, arguments, options, dynamic, names, interface))
        try:
            done, _ = await asyncio.wait([starting], timeout=options.start_timeout)
            if not done:
                hosted.kill(Killed(f"its start took longer than {options.start_timeout:g} s"))
                await asyncio.wait([starting], timeout=self.system.kill_grace)
        except asyncio.CancelledError:
            hosted.kill(Killed("its start was called off"))
            raise
        if not starting.done():
            raise StartFailed(slot.path, Killed(f"its process {hosted.pid} cannot be killed"))
        starting.result()
        self.system.arrived(slot)
        return hosted

    async def _place(self, slot: Slot, needs: Needs | None) -> Placed | None:
        if needs is None:
            return None
        try:
            return await self.placer.place(slot.path, needs)
        except NodeError as error:
            raise StartFailed(slot.path, reason_of(error)) from None

    async def _new_node(self, slot: Slot, placed: Placed | None) -> Link:
        """Have a process started, and wait until it has called back. Raises StartFailed."""
        node = f"{slot.name or 'root'}-{secrets.token_hex(4)}"
        arrived: asyncio.Future[Link] = self.system.loop.create_future()
        taken = False
        try:
            host = await self.host_for(placed)
            self._expected[node] = expected = _Expected(secrets.token_hex(16), arrived, host)
            self.order(host, node, expected.token, slot, placed)
            await asyncio.wait([arrived], timeout=BOOT_SECONDS)
            if not arrived.done():
                raise NodeError(f"its process did not call back within {BOOT_SECONDS:g} s")
            link, taken = arrived.result(), True
            if link.lost is not None:
                raise NodeError("its process ended right after it had called back; see its stderr")
        except (OSError, NodeError) as error:
            raise StartFailed(slot.path, reason_of(error)) from None
        else:
            return link
        finally:
            self._expected.pop(node, None)
            if not taken and arrived.done() and arrived.exception() is None:
                arrived.result().fail("nobody waits for it any more")

    def order(self, host: NodeHost, node: str, token: str, slot: Slot, placed: Placed | None) -> None:
        """Have ``host`` start the process that is to live in ``slot``, with what was reserved for it."""
        assert self._directory is not None
        environment = {} if placed is None else placed.environment
        host.order(wire.Order(node, str(self._directory.socket), token, self.system.heartbeat, environment))

    def process_of(self, link: Link) -> NodeProcess:
        """The process on the other side of a new link."""
        return OwnProcess(self.system.loop, link.pid)

    async def host_for(self, placed: Placed | None) -> NodeHost:
        """What starts the process of a child that was so placed. Raises OSError and NodeError."""
        if self._closing:
            raise NodeError("the system stops")
        if self._host is not None and not self._host.is_gone:
            return self._host
        if self._opening is None:
            # A task of its own: it serves all who wait, and a starter that is cancelled must not lose a process.
            self._opening = self.system.loop.create_task(self._open())
            self._opening.add_done_callback(lambda task: task.cancelled() or task.exception())
        opening = self._opening
        try:
            return await asyncio.shield(opening)
        finally:
            if opening.done() and self._opening is opening:
                self._opening = None

    async def _open(self) -> NodeHost:
        self._host = host = await self.open_host()
        self._hosts[host] = None
        return host

    async def open_host(self) -> NodeHost:
        """Start a host, and what it needs of the head. Raises OSError."""
        if self._directory is None:
            self._directory = await asyncio.to_thread(Directory)
        if self._server is None:
            self._server = await self.system.loop.create_unix_server(self.accept, str(self._directory.socket))
        host = Host(self.host_gone)
        await host.start(self._directory.path)
        return host

    def host_gone(self, host: NodeHost, why: str) -> None:
        """A host has ended, and its processes with it."""
        self._hosts.pop(host, None)
        for expected in self._expected.values():
            if expected.host is host and not expected.arrived.done():
                expected.arrived.set_exception(NodeError(f"{why} before it had started its process; see its stderr"))

    # --- links ---------------------------------------------------------------------------------------------------

    def accept(self) -> Link:
        """The head's end of a new connection, from whomever."""
        link = Link(self.system, self._on_frame, self._on_lost, trusting=False)
        if len(self._strangers) >= MAX_STRANGERS:
            next(iter(self._strangers)).fail("it said nothing, and others want its place")
        self._links[link] = None
        self._strangers[link] = self.system.loop.call_later(GREETING_SECONDS, link.fail, "it did not say who it is")
        return link

    def _on_frame(self, link: Link, frame: wire.Frame) -> None:
        if link in self._strangers:
            self._greet(link, frame)
            return
        hosted = self._hosted.get(link.node)
        match frame:
            case wire.Started() if hosted is not None:
                hosted.started()
            case wire.NotStarted(_, child, reason) if hosted is not None:
                hosted.parting(child, reason)
            case wire.Ended(path, reason) if hosted is not None:
                hosted.parting(path, reason)
            case wire.Exited(record) if hosted is not None and record.path.startswith(f"{hosted.path}/"):
                self.system.adopt_exit(record)
            case wire.Logged() if hosted is not None:
                _log(hosted, frame)
            case _:
                if not serve(self.system, link, frame):
                    link.fail(f"it sent a {type(frame).__name__} out of turn")

    def _greet(self, link: Link, frame: wire.Frame) -> None:
        expected = self._expected.get(frame.node) if isinstance(frame, wire.Hello | wire.Stillborn) else None
        if (
            not isinstance(frame, wire.Hello | wire.Stillborn)
            or expected is None
            or expected.arrived.done()
            or not hmac.compare_digest(expected.token.encode(), frame.token.encode())
        ):
            link.fail("it did not introduce itself properly")
        elif isinstance(frame, wire.Stillborn):
            expected.arrived.set_exception(NodeError("its process ended before it had called back; see its stderr"))
            link.fail("it has said what it had to say")
        else:
            try:
                check_build(frame.build)
            except NodeError as error:
                expected.arrived.set_exception(error)
                link.fail(str(error))
                return
            self._strangers.pop(link).cancel()
            link.trust(frame.node, frame.pid)
            expected.arrived.set_result(link)

    def _on_lost(self, link: Link, why: str) -> None:
        self._links.pop(link, None)
        timer = self._strangers.pop(link, None)
        if timer is not None:
            timer.cancel()
        hosted = self._hosted.get(link.node)
        if hosted is not None:
            hosted.ended().add_done_callback(lambda _: self._hosted.pop(link.node, None))
            hosted.lost(why)  # releases the link when the process is gone
        else:
            link.release(Killed(why))

    # --- what lives below a node's actor -------------------------------------------------------------------------

    def below(self, path: str) -> Inner | None:
        """A stand-in for an actor that lives (or may) below the actor of one of these nodes."""
        above = path.rpartition("/")[0]
        while above:
            place = self._places.get(above)
            if place is not None:
                return Inner(self.system, place, path)
            above = above.rpartition("/")[0]
        return None

    # --- the end ---------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """End all nodes and the host; nothing of them is left when this returns, cancelled or not."""
        self._closing = True
        await settle([self.system.loop.create_task(self._close())])

    async def _close(self) -> None:
        if self._opening is not None:
            await settle([self._opening])
        left = list(self._hosted.values())
        for hosted in left:
            hosted.kill(Killed("the system stops"))
        for link in list(self._links):
            link.fail("the system stops")
        await settle([hosted.ended() for hosted in left], timeout=2 * self.system.kill_grace)
        if self._server is not None:
            self._server.close()
        for host in list(self._hosts):
            await host.close()
        if self._directory is not None:
            await asyncio.to_thread(self._directory.remove)


def _log(hosted: Hosted, record: wire.Logged) -> None:
    """Give a node's log record to the logger of the same name here."""
    logger = logging.getLogger(record.logger)
    if logger.isEnabledFor(record.level):
        here = logger.makeRecord(record.logger, record.level, hosted.path, 0, "%s", (record.text,), None)
        here.created, here.process, here.processName = record.at, hosted.pid, hosted.path
        logger.handle(here)
