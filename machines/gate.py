"""How fast machines may be made: so many at the same time, so many a second, and fewer while the provider says no.

Providers limit creation (five a second, a quota of sandboxes), and a daemon that is asked for two hundred containers at
once serves none of them in time. Whoever makes a machine goes through the gate of its pool first. The number at the
same time follows additive increase, multiplicative decrease: each maker that crashes before its machine is up halves
it, each machine made adds a little, up to what was configured. (One that is lost with its host says nothing of the
provider.)
"""

from __future__ import annotations

from collections import deque

import msgspec

from palmette.actors import Actor, Down, Killed, Ref, Refused, ReplyToken, Unreachable, endpoint


class GateStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A gate at a glance."""

    inside: int
    """Machines that are being made."""
    waiting: int
    width: float
    """How many may be made at the same time, at present."""
    made: int
    refused: int


class Opening(msgspec.Struct, frozen=True):
    """Time to look whether the next may come in."""


class Gate(Actor):
    """Lets makers of machines in, in the order of their coming. A maker that dies inside leaves by that.

    Args:
        at_once: how many may be inside at the same time.
        per_second: how many may come in per second, evenly spaced; ``None`` has no such limit.
    """

    def __init__(self, at_once: int = 8, per_second: float | None = None) -> None:
        if at_once < 1 or (per_second is not None and not per_second > 0):
            raise ValueError(
                f"a gate lets at least one in, at a rate above 0; got {at_once} and {per_second} per second"
            )
        self._most = at_once
        self._width = float(at_once)
        self._interval = 0.0 if per_second is None else 1.0 / per_second
        self._next = 0.0
        self._is_waiting = False
        self._queue: deque[tuple[Ref[Actor], ReplyToken[object]]] = deque()
        self._inside: dict[str, int] = {}
        """Monitors, by the maker's path."""
        self._made = 0
        self._refused = 0

    @endpoint
    async def enter(self, maker: Ref[Actor]) -> None:
        """Wait for one's turn; no longer than the deadline in force.

        Raises:
            Refused: it is inside already.
        """
        if maker.path in self._inside:
            raise Refused(f"{maker.path} is making a machine already; it leaves before it enters again")
        self._queue.append((maker, self.reply_later()))
        self._admit()

    @endpoint
    async def leave(self, maker: Ref[Actor]) -> None:
        """Say that the machine is up. Who is not inside may say so, too."""
        monitor = self._inside.pop(maker.path, None)
        if monitor is not None:
            self.demonitor(monitor)
            self._made += 1
            self._width = min(float(self._most), self._width + 1.0 / self._width)
            self._admit()

    @endpoint
    async def statistics(self) -> GateStatistics:
        """At a glance."""
        return GateStatistics(
            inside=len(self._inside),
            waiting=len(self._queue),
            width=self._width,
            made=self._made,
            refused=self._refused,
        )

    async def receive(self, message: object) -> None:
        match message:
            case Opening():
                self._is_waiting = False
                self._admit()
            case Down(ref, reason):
                if self._inside.pop(ref.path, None) is not None:
                    if not isinstance(reason, Killed | Unreachable):
                        self._refused += 1
                        self._width = max(1.0, self._width / 2)
                    self._admit()
            case _:
                await super().receive(message)

    def _admit(self) -> None:
        now = self.system.loop.time()
        while self._queue and len(self._inside) < int(self._width):
            maker, token = self._queue[0]
            if not token.is_wanted():  # it gave up, or is gone
                self._queue.popleft()
                continue
            if now < self._next:
                if not self._is_waiting:
                    self._is_waiting = True
                    self.send_after(self._next - now, Opening())
                return
            self._queue.popleft()
            self._next = max(now, self._next) + self._interval
            self._inside[maker.path] = self.monitor(maker)
            token.reply(None)
