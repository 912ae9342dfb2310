"""A member, and its processes, as a program sees them."""

from __future__ import annotations

from collections.abc import Callable

from palmette.actors import wire
from palmette.actors.cluster.launcher import Launcher
from palmette.actors.cluster.peers import Peer
from palmette.actors.cluster.records import LAUNCHER, Launch, Lease


class FarProcess:
    """A process on a member: a :class:`~palmette.actors.node_process.NodeProcess`."""

    def __init__(self, host: FarHost, node: str) -> None:
        self._host = host
        self._node = node
        self._over = False
        self._tell: dict[Callable[[], None], None] = {}

    @property
    def patience(self) -> float:
        """While its member is there, that says when it has ended; and if not, its lease does."""
        return self._host.lease

    def kill(self) -> None:
        if not self._over:
            self._host.kill(self._node)

    def when_gone(self, tell: Callable[[], None]) -> Callable[[], None]:
        if self._over:
            return self._host.system.loop.call_soon(tell).cancel
        self._tell[tell] = None
        return lambda: self._tell.pop(tell, None) and None

    def may_be_gone(self) -> bool:
        """Not as long as its member vouches for it: it may be busy, and say nothing for minutes."""
        return self._host.is_gone

    def is_over(self) -> None:
        """It has ended."""
        self._over = True
        told, self._tell = self._tell, {}
        for tell in told:
            tell()


class FarHost:
    """A member that has called: a :class:`~palmette.actors.nodes.NodeHost` whose orders go over its lifeline."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.system = peer.system
        self.name = peer.name
        self.incarnation = peer.who.incarnation
        self.lease = peer.system.heartbeat.loss
        """Seconds after which nothing runs there any more that was cut off."""
        self._processes: dict[str, FarProcess] = {}

    @property
    def is_gone(self) -> bool:
        return not self._peer.is_connected()

    def launch(self, lease: Lease, order: wire.Order) -> None:
        """Have a node started; it calls the program."""
        self._peer.ref(LAUNCHER, Launcher).cast(Launcher.launch, Launch(lease, order))

    def order(self, order: wire.Order) -> None:
        raise AssertionError("a member is given orders with a lease")

    def process(self, node: str) -> FarProcess:
        """The process of ``node``."""
        return self._processes.setdefault(node, FarProcess(self, node))

    def kill(self, node: str) -> None:
        if not self.is_gone:
            self._peer.ref(LAUNCHER, Launcher).cast(Launcher.kill, node)

    def over(self, node: str) -> None:
        """A process has ended."""
        process = self._processes.pop(node, None)
        if process is not None:
            process.is_over()

    def lost(self, *, at_once: bool) -> None:
        """Its lifeline is; its launcher kills what it had of ours, now or when the lease runs out."""
        self.system.loop.call_later(0.0 if at_once else self.lease, self._all_over)

    def _all_over(self) -> None:
        for node in list(self._processes):
            self.over(node)

    async def close(self) -> None:
        """Let go of it."""
        self._peer.close()
