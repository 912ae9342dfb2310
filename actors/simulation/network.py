"""The network of a simulation: connections between a head and its nodes, whose ends are transports for real links.

Bytes go in at one end and come out at the other, in order, after a latency that is drawn from the seed; some frames
come out in two pieces. At most WINDOW bytes are under way, as in the buffers of a socket; what is beyond that waits at
the sender's end, counts as its write buffer, and is lost if the sender ends. What was under way still arrives, and
after it the end of the connection.

Faults strike *frames*, as they enter the network, because a stream by itself neither loses nor repeats anything: a
frame that is dropped or duplicated stands for a middle box or a bug that does. The link's own numbers must find it out.
A partition holds back everything, the end of the connection included, until it heals.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import TYPE_CHECKING, Final, cast

import msgspec

from palmette.actors import wire
from palmette.actors.simulation.faults import Fault
from palmette.actors.simulation.loop import SimulatedLoop, VirtualLoop, quietly

if TYPE_CHECKING:
    from palmette.actors.link import Link

LATENCY: Final = (50e-6, 500e-6)
"""Seconds that a frame takes: what was measured on unix sockets, and a slow machine."""
WINDOW: Final = 208 << 10
"""Bytes under way in one direction: Linux's default for a socket."""
SPLIT: Final = 0.125
"""How often a frame arrives in two pieces."""


class Connection:
    """One connection. ``faults`` are those that strike on it; ``strike`` is called for those that strike the node."""

    def __init__(
        self,
        world: SimulatedLoop,
        name: str,
        node: VirtualLoop,
        head: VirtualLoop,
        faults: Sequence[Fault] = (),
        strike: Callable[[Fault], None] | None = None,
    ) -> None:
        self.world = world
        self.name = name
        self.rng = random.Random(f"connection/{world.seed}/{name}")
        self.node, self.head = End(self, node), End(self, head)
        self.node.other, self.head.other = self.head, self.node
        self._faults = faults
        self._strike = strike
        self._frames = 0
        """That were sent so far, in both directions."""
        self._slow = 0.0
        self._cuts = 0
        self._at_heal: list[Callable[[], None]] = []

    def begin(self) -> None:
        """Both ends are there: let strike what strikes at once."""
        self._strike_all(0, b"")

    def carry(self, sender: End, frame: bytes) -> None:
        """Send one frame on its way."""
        self._frames += 1
        low, high = LATENCY
        seconds, piece = self.rng.uniform(low, high), self.rng.random()
        split = self.rng.randrange(1, len(frame)) if piece < SPLIT else len(frame)
        seconds += self.rng.random() * self._slow
        struck = self._strike_all(self._frames, frame)
        seconds += sum(fault.seconds for fault in struck if fault.kind == "delay")
        kinds = {fault.kind for fault in struck}
        for _ in range(0 if "drop" in kinds else 2 if "duplicate" in kinds else 1):
            sender.other.expect(frame[:split], seconds)
            if split < len(frame):
                sender.other.expect(frame[split:], seconds)

    def _strike_all(self, number: int, frame: bytes) -> list[Fault]:
        struck = [fault for fault in self._faults if fault.message == number]
        for fault in struck:
            at = "" if not frame else f" at frame {number} ({_tag(frame)})"
            self.world.log.write("fault", self.name, f"{fault.kind}{at}")
            if fault.kind == "slow_link":
                self._slow = fault.seconds
            elif fault.kind == "partition":
                self._cuts += 1
                self.world.call_later(fault.seconds, self._heal)
            elif self._strike is not None:
                self._strike(fault)
        return struck

    # --- partitions ------------------------------------------------------------------------------------------------

    @property
    def is_cut(self) -> bool:
        """Whether nothing gets through at present."""
        return self._cuts > 0

    def when_whole(self, act: Callable[[], None]) -> None:
        """Call ``act`` now, or when the partition has healed."""
        if self.is_cut:
            self._at_heal.append(act)
        else:
            act()

    def _heal(self) -> None:
        self._cuts -= 1
        if not self.is_cut:
            self.world.log.write("healed", self.name)
            self.node.go_on()
            self.head.go_on()
            acts, self._at_heal = self._at_heal, []
            for act in acts:
                act()


class End(asyncio.Transport):
    """One end of a connection: the transport of the link that was attached to it."""

    other: End

    def __init__(self, connection: Connection, loop: VirtualLoop) -> None:
        super().__init__()
        self._connection = connection
        self._loop = loop
        self._link: Link | None = None
        self._closed = False
        self._part = bytearray()
        """Of a frame that is being written."""
        self._kept: deque[bytes] = deque()
        self._kept_size = 0
        self._high = self._low = 0
        self._paused = False
        self._arriving: deque[tuple[float, bytes | None, bool]] = deque()
        """When, what (``None`` is the end), and whether it is but a heartbeat."""
        self._under_way = 0
        """Bytes of these."""
        self._last = 0.0
        """When the last of them arrives: nothing overtakes."""
        self._timer: asyncio.TimerHandle | None = None

    def attach(self, link: Link) -> None:
        """From now on ``link`` is at this end. To be called on its own loop."""
        self._link = link
        link.connection_made(self)

    # --- sending: what a link asks of its transport ------------------------------------------------------------------

    def write(self, data: bytes) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        if self._closed:
            return
        self._part += data
        size = wire.HEADER.size
        while len(self._part) >= size:
            whole = size + wire.length_of(wire.HEADER.unpack_from(self._part)[0])
            if len(self._part) < whole:
                break
            self._kept.append(bytes(self._part[:whole]))
            self._kept_size += whole
            del self._part[:whole]
        self.push()

    def push(self) -> None:
        """Send what there is room for."""
        while self._kept and self.other._under_way < WINDOW:
            frame = self._kept.popleft()
            self._kept_size -= len(frame)
            self._connection.carry(self, frame)
        size = self.get_write_buffer_size()
        if self._link is not None and (size > self._high if not self._paused else size <= self._low):
            self._paused = not self._paused
            self._loop.call_soon(self._link.pause_writing if self._paused else self._link.resume_writing)

    def get_write_buffer_size(self) -> int:
        return self._kept_size + len(self._part)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = 64 << 10 if high is None else high
        self._low = self._high // 4 if low is None else low
        self.push()

    def is_closing(self) -> bool:
        return self._closed

    def abort(self) -> None:
        """Also what the operating system does to the connections of a process that has ended."""
        if self._closed:
            return
        self._closed = True
        self._kept.clear()
        self._kept_size = 0
        self._part.clear()
        self.other.expect(None, LATENCY[1])
        if self._link is not None:
            self._loop.call_soon(self._link.connection_lost, None)

    # --- receiving ---------------------------------------------------------------------------------------------------

    def expect(self, data: bytes | None, seconds: float) -> None:
        """``data``, or the end of the connection, arrives in ``seconds``, behind what is under way already."""
        self._last = max(self._last, self._loop.time() + seconds)
        self._arriving.append((self._last, data, quietly()))
        self._under_way += len(data or b"")
        self.go_on()

    def go_on(self) -> None:
        """Wait for the next arrival, if one may come."""
        if self._timer is None and self._arriving and not self._connection.is_cut:
            when, _, quiet = self._arriving[0]
            self._timer = self._loop.call_at(when, self._arrive, context=quietly.context if quiet else Context())

    def _arrive(self) -> None:
        self._timer = None
        if self._connection.is_cut:
            return  # it came apart while this was under way
        _, data, _ = self._arriving.popleft()
        self._under_way -= len(data or b"")
        self.go_on()
        self.other.push()
        if self._closed or self._link is None:
            return
        if data is not None:
            self._link.data_received(data)
        else:
            self._closed = True
            self._kept.clear()
            self._kept_size = 0
            self._link.connection_lost(None)


def _tag(frame: bytes) -> str:
    if wire.HEADER.unpack_from(frame)[0] > wire.MAX_FRAME:
        return "piece"
    return cast("list[str]", msgspec.msgpack.decode(frame[wire.HEADER.size :]))[0]
