"""Whether the other side of a connection lives, and what it died of.

paramiko has no notion of a dead peer (its keepalive wants no answer). So: whenever nothing was heard for :data:`QUIET`
seconds the server is asked something, and then has :data:`DEAF` seconds to say anything at all. If it does not, the
wire is cut here, which releases everybody who waits on the connection. Any bytes count as a sign of life: an answer may
stand behind megabytes on a slow line.

A connection that ended by itself is not yet an explanation. Who asks has the host's sshd knocked at, which tells a
killed session process from a server that is gone or frozen.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from palmette.machines.errors import ImageUnusable, MachineError, MachineLost
from palmette.machines.evidence import Cause, Evidence
from palmette.machines.ssh.address import Address
from palmette.machines.ssh.login import Wire, boundary, lost
from palmette.machines.ssh.threads import Lane, in_thread

if TYPE_CHECKING:
    import paramiko

    from palmette.machines.ssh.connection import Connection

QUIET = 1.0
DEAF = 2.5
REACH = 4.0
"""Seconds for a TCP connection to come about."""
KNOCK = 1.0
"""Seconds for the host to show that its sshd lives."""
_LAST_ACK = 56
"""Offset of ``tcpi_last_ack_recv`` (u32, milliseconds ago) in Linux's ``struct tcp_info``."""


class Pulse:
    """Watches one connection, from its making until :meth:`stop`."""

    def __init__(self, address: Address, transport: paramiko.Transport, wire: Wire, through: Connection | None) -> None:
        self._address = address
        self._transport = transport
        self._wire = wire
        self._through = through
        self._fault: Evidence | None = None
        self._inquest: asyncio.Task[Evidence] | None = None
        self._asker = Lane("asker")
        self._asked: float | None = None
        self._loop = asyncio.get_running_loop()
        self._due = 0.0
        self._timer = self._loop.call_soon(self._look)

    @property
    def beats(self) -> bool:
        """As far as is known without asking."""
        return self._fault is None and self._transport.is_active()

    async def examine(self) -> Evidence | None:
        """Ask the server; ``None``: it answers. Otherwise what happened. At most 4 seconds."""
        if self.beats:
            begun = time.monotonic()
            self._ask()
            pause = 0.001
            while self.beats and self._wire.heard < begun:
                if time.monotonic() > begun + DEAF:
                    self._give_up()
                # What paramiko's thread hears is told to nobody.
                await asyncio.sleep(pause)
                pause = min(2 * pause, 0.02)
        if self.beats:
            return None
        if self._fault is not None:
            return self._fault
        if self._inquest is None:  # one for all: every machine on the connection wants to know at the same time
            self._inquest = asyncio.create_task(self._hold_inquest(), name=f"inquest on {self._address}")
        return await asyncio.shield(self._inquest)

    async def round_trip(self) -> None:
        """Return once the server has answered a question asked now, or the connection is dead."""
        asked = self._asker.submit(self._question)
        asked.add_done_callback(_forget)
        await asyncio.wait([asked], timeout=DEAF + QUIET)

    async def stop(self) -> None:
        """Look no more."""
        self._timer.cancel()
        self._asker.close()
        if self._inquest is not None and not self._inquest.done():
            self._inquest.cancel()
            await asyncio.wait([self._inquest])

    def _look(self) -> None:
        now = time.monotonic()
        if self._asked is not None and now > self._due + QUIET:
            self._asked = now  # this process was away (stopped, asleep): what was said meanwhile is not read yet
        if not self.beats:
            return
        if self._asked is None and now - self._wire.heard >= QUIET:
            self._ask()
        if self._asked is None:
            self._due = self._wire.heard + QUIET
        elif (last := max(self._asked, self._wire.heard)) + DEAF > now:
            self._due = last + DEAF
        else:
            self._give_up()
            return
        self._timer = self._loop.call_later(max(self._due - now, 0.01), self._look)

    def _ask(self) -> None:
        if self._asked is None:
            self._asked = time.monotonic()
            self._asker.submit(self._question).add_done_callback(self._answered)

    def _question(self) -> None:
        # Any answer will do; OpenSSH's is a refusal.
        self._transport.global_request("keepalive@openssh.com", wait=True)

    def _answered(self, future: asyncio.Future[None]) -> None:
        _forget(future)
        self._asked = None
        if self.beats:
            self._timer.cancel()
            self._look()

    def _give_up(self) -> None:
        """The other side is deaf: say so, and release everybody."""
        now = time.monotonic()
        cause: Cause = "connection_lost"
        if self._through is not None:
            why = "what is beyond the jump host cannot be seen" if self._through.alive else "its jump host died"
        elif self._acknowledged(now - (self._asked or now)):
            cause, why = "daemon_frozen", "the host takes our bytes, so it is its sshd that hangs"
        else:
            why = "the host does not even acknowledge our bytes"
        said = f"{self._address} said nothing for {now - self._wire.heard:.1f} s and does not answer; {why}"
        self._fault = Evidence(cause=cause, detail=said)
        cut_beside(self._wire)

    def _acknowledged(self, seconds: float) -> bool:
        """Whether the other kernel has taken what we sent, or at least said within ``seconds`` that it cannot now."""
        wire = self._wire.inner
        if not isinstance(wire, socket.socket):
            return False
        try:
            waiting = struct.unpack("i", fcntl.ioctl(wire, termios.TIOCOUTQ, b"\0" * 4))[0]
            information = wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        except OSError:
            return False
        return not waiting or struct.unpack_from("I", information, _LAST_ACK)[0] < seconds * 1000

    async def _hold_inquest(self) -> Evidence:
        error = self._transport.get_exception()
        seen = "the other side closed it" if self._wire.ended or error is None else f"{error or type(error).__name__}"
        cause, more = await self._knock()
        self._fault = Evidence(cause=cause, detail=f"the connection to {self._address} ended: {seen}; {more}")
        return self._fault

    async def _knock(self) -> tuple[Cause, str]:
        """See how the host's sshd takes a new connection."""
        reached = False
        try:
            async with asyncio.timeout(KNOCK):
                if self._through is not None:
                    channel = await self._through.forward(self._address)
                    reached = True
                    channel.settimeout(KNOCK)
                    try:
                        heard = await in_thread(partial(channel.recv, 4), seconds=KNOCK)
                    finally:
                        cut_beside(Wire(channel))
                else:
                    knocking = await connect(self._address)
                    reached = True
                    try:
                        heard = await self._loop.sock_recv(knocking, 4)
                    finally:
                        knocking.close()
        except TimeoutError:
            if reached:
                return "daemon_frozen", f"the host's sshd says nothing to a new one for {KNOCK:g} s"
            return "connection_lost", f"the host cannot be reached within {KNOCK:g} s"
        except (OSError, MachineError) as error:
            evidence = error.evidence if isinstance(error, MachineLost) else None
            return "connection_lost" if evidence is None else evidence.cause, f"there is no new one: {error}"
        if heard:
            return "connection_lost", "the host's sshd takes new ones, so it was its process for ours, or the way there"
        return "daemon_gone", "the host closes a new one at once"


def _forget(future: asyncio.Future[None]) -> None:
    future.exception()  # that of a dead connection is told by those who use it


async def connect(address: Address) -> socket.socket:
    """A TCP connection to the host, not blocking, that says at once what is written and notices that nobody listens.

    Raises:
        MachineLost: it cannot be reached.
        ImageUnusable: there is no such host.
    """
    doing = f"reach {address}"
    with boundary(doing):
        try:
            look_up = partial(socket.getaddrinfo, address.host, address.port, type=socket.SOCK_STREAM)
            found = await in_thread(look_up, seconds=REACH)
        except socket.gaierror as error:
            if error.errno == socket.EAI_AGAIN:
                raise lost(doing, "connection_lost", f"its name cannot be looked up now: {error.strerror}") from error
            raise ImageUnusable(f"there is no host {address.host!r} ({error.strerror}); is it spelt right?") from error
        failure: OSError | None = None
        async with asyncio.timeout(REACH):
            for family, kind, protocol, _, place in found:
                made = socket.socket(family, kind, protocol)
                try:
                    made.setblocking(False)
                    # Without it each small write waits 40 ms for an acknowledgement.
                    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    # The kernel's own word, for the case that this process is too busy to ask.
                    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * (DEAF + QUIET)))
                    await asyncio.get_running_loop().sock_connect(made, place)
                except OSError as error:
                    made.close()
                    failure = error
                except BaseException:
                    made.close()
                    raise
                else:
                    return made
        raise failure or OSError(f"{address.host} has no address")


def cut_beside(wire: Wire) -> None:
    """Cut without waiting: what runs through a jump host says goodbye to it, and that may hang."""
    threading.Thread(target=wire.cut, name="palmette-ssh-cut", daemon=True).start()
