"""One connection to a host, and the programs over it.

Every call of paramiko that may wait is made in a thread with a deadline; a connection that turns out to be dead
meanwhile (:mod:`palmette.machines.ssh.pulse`) is closed, which ends them all. Programs are opened one after another:
paramiko keeps the reason of a refusal in one place for all who wait.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from palmette.machines.errors import ImageUnusable, MachineLost
from palmette.machines.evidence import Evidence
from palmette.machines.ssh.address import Address
from palmette.machines.ssh.channel import SshChannel
from palmette.machines.ssh.login import PATIENCE, Wire, boundary, log_in, lost, shut
from palmette.machines.ssh.pulse import REACH, Pulse, connect, cut_beside
from palmette.machines.ssh.threads import Lane, in_thread

if TYPE_CHECKING:
    import paramiko

OPEN = 10.0
"""Seconds for a program to be started on a host that answers: it may be busy, or the login shell's files slow."""
_CLOSE = 3.0
_CONNECT_FAILED = 2
"""SSH_OPEN_CONNECT_FAILED (RFC 4254, 5.1): OpenSSH's word for MaxSessions, and for a destination out of reach."""


class SessionsExhausted(Exception):
    """The server starts no further program over this connection (MaxSessions): no more than ``allowed``."""

    def __init__(self, allowed: int) -> None:
        super().__init__(allowed)
        self.allowed = allowed


class Answer(msgspec.Struct, frozen=True):
    """How a short program on the host ended."""

    status: int | None
    stdout: str
    complaint: str


class Connection:
    """Authenticated; :meth:`open` makes one, whoever called closes it. For one event loop."""

    def __init__(self, address: Address, transport: paramiko.Transport, wire: Wire, through: Connection | None) -> None:
        self.address = address
        self.directories: dict[str, str] = {}
        """Those that were found fit for machines on this host, with their real paths."""
        self._transport = transport
        self._wire = wire
        self._pulse = Pulse(address, transport, wire, through)
        self._sender = Lane("sender")
        self._opening, self._errand = asyncio.Lock(), asyncio.Lock()
        self._programs, self._ended_lately = 0, False
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, address: Address, through: Connection | None) -> Connection:
        """Log in, by way of ``through`` where ``address`` has a jump host.

        Raises:
            MachineLost: the host cannot be reached, or its sshd failed.
            ImageUnusable: it is not who known_hosts says, or does not let us in.
        """
        wire = Wire(await connect(address) if through is None else await through.forward(address))
        try:
            with boundary(f"log in at {address}"):
                transport = await in_thread(
                    partial(log_in, address, wire), seconds=4 * PATIENCE, late=partial(shut, wire=wire)
                )
        except BaseException:
            cut_beside(wire)  # a cancellation too: the thread that logs in ends with its wire
            raise
        return cls(address, transport, wire, through)

    @property
    def alive(self) -> bool:
        """As far as is known without asking."""
        return self._closing is None and self._pulse.beats

    async def examine(self) -> Evidence | None:
        """Ask the server; ``None``: it answers. Otherwise what happened. At most 4 seconds."""
        return Evidence(cause="stopped") if self._closing is not None else await self._pulse.examine()

    async def session(self, argv: Sequence[str], *, mark: bytes = b"") -> SshChannel:
        """Start a program, through the login shell.

        Raises:
            SessionsExhausted: the server allows no more over this connection.
            MachineLost: the connection is dead, or the host too busy.
            ImageUnusable: the account may not run programs.
        """
        doing = f"start {argv[0]} on {self.address}"
        work = partial(self._open_session, f"exec {shlex.join(argv)}")
        async with self._opening:
            try:
                channel = await self._ask(doing, work, OPEN)
            except SessionsExhausted:
                if not self._ended_lately:
                    raise
                # The server counts a program until it has seen our side of its end, and has tidied up after that: which
                # it has done when it answers twice.
                self._ended_lately = False
                await self._pulse.round_trip()
                await self._pulse.round_trip()
                channel = await self._ask(doing, work, OPEN)
            self._programs += 1
            return SshChannel(channel, self._sender, mark=mark, on_end=self._one_less)

    async def run(self, argv: Sequence[str], *, stdin: bytes = b"", seconds: float) -> Answer:
        """Run a short program to its end. One at a time, so that one session suffices for all.

        Raises:
            As :meth:`session`; ``MachineLost`` also when it has not ended after ``seconds``.
        """
        doing = f"run {argv[0]} on {self.address}"
        try:
            async with asyncio.timeout(seconds), self._errand:
                channel = await self.session(argv)
                try:
                    return await _talk(channel, stdin)
                finally:
                    await channel.close()
        except TimeoutError as error:
            await self._check(doing)
            raise lost(doing, "unknown", f"the host answers, but it did not end within {seconds:g} s") from error
        except ConnectionError as error:
            await self._check(doing)
            raise lost(doing, "unknown", f"the host answers, but it ended early: {error}") from error

    async def forward(self, address: Address) -> paramiko.Channel:
        """A stream from this host to the sshd of another one.

        Raises:
            MachineLost: it cannot be reached from here.
            ImageUnusable: this host does not forward.
        """
        async with self._opening:
            return await self._ask(
                f"reach {address} through {self.address}", partial(self._open_forward, address), REACH
            )

    async def close(self) -> None:
        """Close it with everything on it. At most 3 seconds; twice is fine."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name=f"close {self.address}")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await self._pulse.stop()
        try:
            await in_thread(partial(shut, self._transport, self._wire), seconds=_CLOSE)
        except TimeoutError:
            return  # it leads through a host that hangs, and ends with the connection to that
        finally:
            self._sender.close()

    async def _check(self, doing: str) -> None:
        if not self.alive:
            raise MachineLost(f"could not {doing}", await self.examine())

    async def _ask(self, doing: str, work: partial[paramiko.Channel], seconds: float) -> paramiko.Channel:
        await self._check(doing)
        try:
            with boundary(doing):
                return await in_thread(work, seconds=seconds, late=lambda channel: channel.close())
        except MachineLost as error:
            await self._check(doing)
            if isinstance(error.__cause__, TimeoutError):
                raise lost(doing, "unknown", f"the host answers, but did not do it within {seconds:g} s") from error
            raise

    def _one_less(self) -> None:
        self._programs -= 1
        self._ended_lately = True

    def _open_session(self, command: str) -> paramiko.Channel:
        from paramiko import ChannelException, SSHException

        try:
            channel = self._transport.open_session(timeout=OPEN)
        except ChannelException as error:
            if error.code == _CONNECT_FAILED:
                raise SessionsExhausted(self._programs) from error
            raise ImageUnusable(f"{self.address} refuses to open a session: {error.text}") from error
        try:
            channel.exec_command(command)
        except SSHException as error:
            if self._transport.is_active():
                raise ImageUnusable(
                    f"{self.address} runs no commands for this account; is its key in authorized_keys restricted?"
                ) from error
            raise
        return channel

    def _open_forward(self, address: Address) -> paramiko.Channel:
        from paramiko import ChannelException

        place, origin = (address.host, address.port), ("127.0.0.1", 0)
        try:
            return self._transport.open_channel("direct-tcpip", place, origin, timeout=REACH)
        except ChannelException as error:
            if error.code == _CONNECT_FAILED:
                raise lost(f"reach {address} through {self.address}", "daemon_gone", error.text) from error
            raise ImageUnusable(
                f"the jump host {self.address} does not forward to {address} ({error.text}); its sshd needs "
                "AllowTcpForwarding yes"
            ) from error


async def _talk(channel: SshChannel, stdin: bytes) -> Answer:
    output = bytearray()
    if stdin:
        await channel.write(stdin)
    await channel.end_input()
    while piece := await channel.read():
        output += piece
    await channel.ended()
    return Answer(channel.exit_status, output.decode("utf-8", "replace"), channel.complaint)
