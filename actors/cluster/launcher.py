"""What starts a program's processes on a member, and ends them when the program is gone.

A program that has a place here is called up (:meth:`Launcher.attend`): that connection is its *lifeline*. Over it the
program gives its orders, and as long as it holds, this side vouches for the processes: one that blocks for minutes is
not taken for lost. When it is lost, by a broken connection or by silence, everything of that program is killed: by then
the program takes it for dead, and may have started its successors on other members.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import msgspec

from palmette.actors import wire
from palmette.actors.actor import Actor
from palmette.actors.cluster.channel import Address
from palmette.actors.cluster.credentials import Credentials
from palmette.actors.cluster.output import Line, OutputReaders
from palmette.actors.cluster.peers import Peer, connect
from palmette.actors.cluster.records import PROGRAM, Launch, Lease, Running
from palmette.actors.endpoints import endpoint
from palmette.actors.errors import Refused
from palmette.actors.exits import Reason
from palmette.actors.housing import Directory, Host
from palmette.actors.node_process import OwnProcess

if TYPE_CHECKING:
    from palmette.actors.cluster.membership import Member

_log: Final = logging.getLogger(__name__)

LAST_WORDS_SECONDS: Final = 10.0
BOOT_SECONDS: Final = 60.0
"""For a new process to call here."""


class _Node:
    """A process of a program's: ordered, or up."""

    def __init__(self, order: wire.Order, lease: Lease) -> None:
        self.order = order
        self.lease = lease
        self.process: OwnProcess | None = None
        self.pid = 0
        self.killed = False
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Launcher(Actor):
    """See the module's text."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._nodes: dict[str, _Node] = {}
        self._lifelines: dict[str, Peer] = {}
        self._calling: dict[str, asyncio.Lock] = {}
        self._host: Host | None = None
        self._hosts: dict[Host, None] = {}
        self._opening: asyncio.Lock = asyncio.Lock()
        self._directory: Directory | None = None
        self._server: asyncio.Server | None = None
        self._credentials: Credentials | None = None
        self._output = OutputReaders(self._printed)
        self._printing: dict[str, _Node] = {}
        """Those whose output is still read."""

    async def started(self) -> None:
        self._credentials = await asyncio.to_thread(Credentials.load, Path(self._member.credentials))
        self._directory = await asyncio.to_thread(Directory)
        await self._output.open(self._output_path)
        socket = str(self._directory.socket)
        self._server = await asyncio.get_running_loop().create_unix_server(lambda: _Doorbell(self), socket)

    async def stopping(self, reason: Reason) -> None:
        for host in list(self._hosts):
            await host.close()  # and all that it started
        for lifeline in self._lifelines.values():
            lifeline.close()
        if self._server is not None:
            self._server.close()
        await self._output.close()
        if self._directory is not None:
            await asyncio.to_thread(self._directory.remove)

    async def receive(self, message: object) -> None:
        pass  # tasks that are done

    # --- programs --------------------------------------------------------------------------------------------------

    @endpoint
    async def running(self) -> tuple[Running, ...]:
        """The processes that are here."""
        return tuple(Running(name, node.lease, node.pid) for name, node in self._nodes.items())

    @endpoint
    async def attend(self, program: str, address: str) -> None:
        """Have a lifeline to a program.

        Raises:
            Refused: it does not answer.
        """
        return self.answer_later(self._attend(program, Address.parse(address)))

    async def _attend(self, program: str, address: Address) -> None:
        async with self._calling.setdefault(program, asyncio.Lock()):
            if program in self._lifelines:
                return
            assert self._credentials is not None
            who = wire.Enter("lifeline", self._member.name, self._member.incarnation)
            cut = partial(self._cut, program)
            try:
                peer = await connect(self.system, address, self._credentials, who, cut, lease=True)
            except OSError as error:
                raise Refused(f"member {self._member.name} cannot reach the program: {error}") from None
            if peer.link.lease is not None:
                # Also where this process's own loop should be held up.
                peer.link.lease.guard(partial(self._fence, program))
            self._lifelines[program] = peer

    def _cut(self, program: str, why: str) -> None:
        """A lifeline is lost."""
        if left := self._of(program):
            _log.warning("program %s is gone (%s); killing %d processes of it", program, why, len(left))
        self._lifelines.pop(program, None)
        self._calling.pop(program, None)
        for node in self._of(program):
            self._kill(node)

    def _fence(self, program: str) -> None:
        """From a thread: the lease is over."""
        for node in self._of(program):
            if node.process is not None:
                node.process.kill()

    def _of(self, program: str) -> list[_Node]:
        return [node for node in list(self._nodes.values()) if node.lease.program == program]

    @endpoint
    async def forget(self, program: str) -> None:
        """Kill what a program has here, and return when it is gone."""
        nodes = self._of(program)
        for node in nodes:
            self._kill(node)
        if nodes:
            self.answer_later(self._all_gone(nodes))

    async def _all_gone(self, nodes: list[_Node]) -> None:
        await asyncio.wait([node.gone for node in nodes])

    # --- processes -------------------------------------------------------------------------------------------------

    @endpoint
    async def launch(self, launch: Launch) -> None:
        """Start a process; it calls the program when it is up, and ``Cluster.gone`` tells of its end.

        Raises:
            Refused: the program has no lifeline here.
        """
        order, lease = launch.order, launch.lease
        if lease.program not in self._lifelines:
            raise Refused(f"member {self._member.name} has no connection to program {lease.program}")
        assert self._directory is not None
        order = msgspec.structs.replace(
            order,
            socket=str(self._directory.socket),
            output=str(self._output_path),
            credentials=self._member.credentials,
            environment=lease.placed.environment,
        )
        self._nodes[order.node] = node = _Node(order, lease)
        self._printing[order.node] = node
        self._output.expect(order.node, order.token)
        _log.info("starts a process for %s of %s", lease.path, lease.program)
        self.start_task(self._start(node), tag="launch")

    async def _start(self, node: _Node) -> None:
        try:
            async with self._opening:
                if self._host is None or self._host.is_gone:
                    self._host = await self._open()
        except OSError as error:
            self._over(node, f"member {self._member.name} cannot start processes: {error}")
            return
        self._host.order(node.order)
        await asyncio.wait([node.gone], timeout=BOOT_SECONDS)
        if node.process is None:
            self._over(node, f"its process did not call within {BOOT_SECONDS:g} s")

    async def _open(self) -> Host:
        assert self._directory is not None
        host = Host(self._host_gone)
        await host.start(self._directory.path)
        self._hosts[host] = None
        return host

    def _host_gone(self, host: Host, why: str) -> None:
        self._hosts.pop(host, None)
        if host is self._host:
            for node in list(self._nodes.values()):
                if node.process is None:
                    self._over(node, f"{why} before it had started its process")

    @endpoint
    async def kill(self, node: str) -> None:
        """Kill a process, with all that it started. One that is gone stays gone."""
        if node in self._nodes:
            self._kill(self._nodes[node])

    def _kill(self, node: _Node) -> None:
        node.killed = True
        if node.process is not None:
            node.process.kill()

    def greet(self, frame: wire.Hello | wire.Stillborn) -> bool:
        """For the doorbell: a process is up, or will never be. False if it is none of ours."""
        node = self._nodes.get(frame.node)
        if node is None or not hmac.compare_digest(node.order.token.encode(), frame.token.encode()):
            return False
        if isinstance(frame, wire.Stillborn):
            self._over(node, "its process ended before it had called; see its stderr")
        elif node.process is None:
            node.pid = frame.pid
            node.process = OwnProcess(asyncio.get_running_loop(), frame.pid)
            node.process.when_gone(lambda: self._over(node, f"process {frame.pid} has ended"))
            if node.killed:
                node.process.kill()
        return True

    @property
    def _output_path(self) -> Path:
        assert self._directory is not None
        return self._directory.path / "output"

    def _printed(self, name: str, lines: list[Line]) -> None:
        """What a node's process has printed goes to its program; here it is only said where nobody listens."""
        from palmette.actors.cluster.program import Cluster

        node = self._printing.get(name)
        lifeline = None if node is None else self._lifelines.get(node.lease.program)
        if node is not None and lifeline is not None and not lifeline.link.is_congested():
            lifeline.ref(PROGRAM, Cluster).cast(Cluster.printed, node.lease.path, node.pid, lines)

    def _over(self, node: _Node, why: str) -> None:
        from palmette.actors.cluster.program import Cluster

        if self._nodes.pop(node.order.node, None) is None:
            return
        self._output.forget(node.order.node)
        # Its last words may still be on the way.
        self.system.loop.call_later(LAST_WORDS_SECONDS, self._printing.pop, node.order.node, None)
        _log.info("%s of %s: %s", node.lease.path, node.lease.program, why)
        if node.process is not None:
            node.process.kill()  # what it has left behind in its group
        if not node.gone.done():
            node.gone.set_result(None)
        lifeline = self._lifelines.get(node.lease.program)
        if lifeline is not None:
            lifeline.ref(PROGRAM, Cluster).cast(Cluster.gone, node.order.node, why)


class _Doorbell(asyncio.Protocol):
    """A process that has just been started says who it is, over a socket that only this user can open.

    It keeps the connection: should this host's node end, the process sees that at once.
    """

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._reader = wire.FrameReader(trusting=False)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        try:
            for frame in self._reader.feed(data):
                if not isinstance(frame, wire.Hello | wire.Stillborn) or not self._launcher.greet(frame):
                    self._transport.abort()
                    return
        except ValueError:
            self._transport.abort()
