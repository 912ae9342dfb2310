"""A link: one connection between two processes of a system, and the questions under way on it.

Frames written in one turn of the loop leave together; a large one leaves in pieces, as the connection takes them, and
holds up nobody but those behind it (:mod:`palmette.actors.outbox`).

A lost connection is a death signal: everything that waits on the link learns of it in the same turn. So is a frame that
is missing or comes twice, and silence where there should be heartbeats: nothing is lost without a word, and nothing is
delivered twice. A link that was given up stays so: what the other side says afterwards is not read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, cast

import msgspec

from palmette.actors import wire
from palmette.actors.arguments import decode_result
from palmette.actors.errors import ActorDied, ActorError
from palmette.actors.exits import Killed, Reason, Unreachable
from palmette.actors.heartbeat import Heartbeat, Lease, Pulse
from palmette.actors.messages import Request
from palmette.actors.outbox import Outbox
from palmette.actors.refusals import failure
from palmette.actors.ties import Ties
from palmette.actors.window import Window

if TYPE_CHECKING:
    from palmette.actors.serving import Served
    from palmette.actors.system import System

HIGH_WATER: Final = 8 << 20
"""Bytes that may wait in a link before casts are refused. Calls wait with their callers, and are not."""
BUFFERED: Final = 128 << 10
"""Bytes that the connection may keep before it is given no more: a small frame has to wait for no more than these."""
PIECES_AT_ONCE: Final = 2
"""Pieces of large frames that are written in one turn of the loop."""


class Transport(Protocol):
    """What a link needs of a connection: a part of asyncio's transports, uvloop's, and simulated ones."""

    def write(self, data: bytes) -> None:
        """Send, or keep until there is room; see asyncio's protocols for ``pause_writing`` and ``resume_writing``."""
        ...

    def get_write_buffer_size(self) -> int:
        """Bytes that are kept."""
        ...

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def abort(self) -> None:
        """End the connection; what is kept is not sent. The other side sees the end."""
        ...


class Link(asyncio.Protocol):
    """One end of a connection. ``trusting``: take any frame from the start, not greetings only.

    ``written``: how many frames went out on the connection before the link took it over.
    """

    def __init__(
        self,
        system: System,
        on_frame: Callable[[Link, wire.Frame], None],
        on_lost: Callable[[Link, str], None],
        *,
        trusting: bool,
        written: int = 0,
    ) -> None:
        self.system = system
        self.node = ""
        self.pid = 0
        self.ties = Ties(self)
        """Links of actors that cross this connection."""
        self.served: Served | None = None
        """What local actors owe the other side; kept by :mod:`palmette.actors.serving`."""
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._reader = wire.FrameReader(trusting=trusting)
        self._transport: Transport | None = None
        self._pulse: Pulse | None = None
        self.lease: Lease | None = None
        """What this side goes by, if it does."""
        self._heard = False
        """Whether something came in since the pulse asked last."""
        self._outbox = Outbox(written)
        self._window = Window()
        self._flush_is_due = False
        self._paused = False
        """Whether the connection keeps as much as it may."""
        self._ids = 0
        self._calls: dict[int, tuple[Request, str]] = {}
        self._relays: dict[int, Callable[[wire.Reply | wire.CallFailed], None]] = {}
        self._trees: dict[int, asyncio.Future[wire.TreeNode | None]] = {}
        self._monitors: dict[int, tuple[str, Callable[[Reason], None]]] = {}
        self._drained: asyncio.Future[None] | None = None
        self._last_word: tuple[float, asyncio.Future[None]] | None = None
        """When a beat was sent whose echo is waited for."""
        self.lost: Reason | None = None
        """Why it is no more."""

    # --- asyncio.Protocol --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = connection = cast("Transport", transport)
        if self.lost is not None:
            connection.abort()  # it was given up between its acceptance and this
            return
        connection.set_write_buffer_limits(high=BUFFERED)
        self._flush()

    def data_received(self, data: bytes) -> None:
        if self.lost is not None:
            return  # it was given up, whatever it says now
        if self.lease is not None and self.lease.is_over():
            return  # we were given up, whatever came before
        self._heard = True
        try:
            for frame in self._reader.feed(data):
                self._dispatch(frame)
                if self.lost is not None:
                    return
            if pieces := self._reader.new_pieces():
                self.write(wire.Taken(pieces))
        except wire.OutOfStep as error:
            self.give_up(str(error))
        except ValueError as error:
            self.fail(f"it spoke nonsense: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail("the connection was lost" if exc is None else f"the connection was lost: {exc}")

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    # --- frames ------------------------------------------------------------------------------------------------

    def trust(self, node: str, pid: int) -> None:
        """The other side has shown that it is ``node``."""
        self.node, self.pid = node, pid
        self._reader.trust()

    def write(self, frame: wire.Frame) -> None:
        """Send a frame with the others of this turn of the loop."""
        if self.lost is not None:
            return
        self._outbox.put(frame)
        self._flush_soon()

    def info(self, name: str) -> object:
        """What the connection knows by that name, as asyncio's transports have it; ``None`` for nothing."""
        ask = getattr(self._transport, "get_extra_info", None)
        return None if ask is None else ask(name)

    def is_congested(self) -> bool:
        """Whether more than HIGH_WATER bytes wait to be sent."""
        waiting = 0 if self._transport is None else self._transport.get_write_buffer_size()
        return self._outbox.size + waiting > HIGH_WATER

    def _flush_soon(self) -> None:
        if not self._flush_is_due and not self._paused:
            self._flush_is_due = True
            self.system.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        if self._transport is None or self.lost is not None or self._paused:
            return
        pieces = min(self._window.room(), PIECES_AT_ONCE)
        if self._outbox.has_small or (pieces and not self._outbox.is_empty):
            data, cut = self._outbox.take(pieces)
            if cut:
                self._window.sent(cut, time.monotonic())
            self._transport.write(data)
        if self._outbox.is_empty:
            if self._drained is not None and not self._transport.get_write_buffer_size():
                _resolve(self._drained)
        elif self._window.room():
            self._flush_soon()  # others have a turn between

    # --- signs of life -----------------------------------------------------------------------------------------

    def keep_alive(
        self,
        heartbeat: Heartbeat,
        may_be_gone: Callable[[], bool] | None,
        lapsed: Callable[[], None] | None = None,
    ) -> None:
        """Show signs of life from now on, and watch the other side's, if ``may_be_gone`` says that silence counts.

        With ``lapsed``, this side lives by a lease: see :class:`Lease`.
        """
        if self.lost is not None:
            return
        if self._pulse is not None:
            self._pulse.stop()
        self._pulse = Pulse(self.system.loop, self, heartbeat, may_be_gone)
        if lapsed is not None:
            self.lease = Lease(self.system.loop, heartbeat.lease, lapsed)
            self.beat()

    def beat(self) -> None:
        """For the pulse."""
        self.write(wire.Beat() if self.lease is None else wire.Beat(at=self.system.loop.time()))

    def _beaten(self, beat: wire.Beat) -> None:
        if beat.at is not None:
            self.write(wire.Beat(echo=beat.at))
        if beat.echo is None:
            return
        if self.lease is not None:
            self.lease.echoed(beat.echo)
        if self._last_word is not None and beat.echo >= self._last_word[0]:
            _resolve(self._last_word[1])

    def was_heard(self) -> bool:
        """For the pulse."""
        heard, self._heard = self._heard, False
        return heard

    def gone_silent(self, seconds: float) -> None:
        """For the pulse."""
        self.give_up(f"silent for {seconds:g} s")

    # --- what comes in -----------------------------------------------------------------------------------------

    def _dispatch(self, frame: wire.Frame) -> None:
        if isinstance(frame, wire.Reply | wire.CallFailed):
            answer = self._relays.pop(frame.id, None)
            if answer is not None:
                answer(frame)
            else:
                self._answered(frame)
            return
        match frame:
            case wire.Fell(id, reason):
                _, tell = self._monitors.pop(id, ("", None))
                if tell is not None:
                    tell(reason)
            case wire.TreeIs(id, tree):
                future = self._trees.pop(id, None)
                if future is not None and not future.done():
                    future.set_result(tree)
            case wire.Beat():
                self._beaten(frame)
            case wire.Taken(pieces):
                self._window.taken(pieces, time.monotonic())
                self._flush_soon()
            case wire.GivenUp(why):
                self._end(why, Unreachable(self.node, f"it gave up the link: {why}"))
            case _:
                self._on_frame(self, frame)

    def _answered(self, frame: wire.Reply | wire.CallFailed) -> None:
        request, path = self._calls.pop(frame.id, (None, ""))
        if request is None or request.reply is None or request.reply.done():
            return  # its caller has given up
        if isinstance(frame, wire.CallFailed):
            request.fail(failure(frame))
            return
        try:
            value = decode_result(request.endpoint, frame.result, self.system)
        except ActorError as error:
            request.fail(type(error)(f"{path}: {error}"))
        else:
            request.reply.set_result(value)

    # --- asking ------------------------------------------------------------------------------------------------

    def call(self, path: str, request: Request, arguments: bytes) -> None:
        """Pass a call or a cast on; a call's future is resolved by the answer or by the loss of the link."""
        if self.lost is not None:
            self.system.undeliverable(path, request, self.lost)
            return
        if request.reply is None:
            self.write(wire.Cast(path, request.endpoint.name, arguments))
            return
        self._ids += 1
        number = self._ids
        self._calls[number] = (request, path)
        request.reply.add_done_callback(lambda _: self._calls.pop(number, None))
        assert request.deadline is not None
        seconds = max(0.0, request.deadline - self.system.loop.time())
        self.write(wire.Call(number, path, request.endpoint.name, arguments, seconds))

    def relay(self, frame: wire.Call, answer: Callable[[wire.Reply | wire.CallFailed], None]) -> None:
        """Pass on a call that came in over another link; its answer is passed back undecoded."""
        self._ids += 1
        self._relays[self._ids] = answer
        self.write(msgspec.structs.replace(frame, id=self._ids))

    def monitor(self, path: str, tell: Callable[[Reason], None]) -> int:
        """Have ``tell`` called once when the actor at ``path`` ends; a number for :meth:`demonitor`."""
        self._ids += 1
        if self.lost is not None:
            self.system.loop.call_soon(tell, self.lost)
        else:
            self._monitors[self._ids] = (path, tell)
            self.write(wire.Monitor(self._ids, path))
        return self._ids

    def demonitor(self, number: int) -> None:
        """Undo :meth:`monitor`."""
        path, tell = self._monitors.pop(number, ("", None))
        if tell is not None:
            self.write(wire.Demonitor(number, path))

    async def tree(self, path: str, timeout: float) -> wire.TreeNode | None:
        """The tree below ``path`` as the other side sees it; ``None`` if it does not say in time."""
        if self.lost is not None:
            return None
        self._ids += 1
        number = self._ids
        future = self._trees[number] = self.system.loop.create_future()
        self.write(wire.AskTree(number, path, timeout))
        try:
            await asyncio.wait([future], timeout=timeout)
        finally:
            self._trees.pop(number, None)
        return future.result() if future.done() and not future.cancelled() else None

    # --- the end -----------------------------------------------------------------------------------------------

    def fail(self, why: str) -> None:
        """End the link: close it, and tell its owner once."""
        self._end(why, Killed(why))

    def give_up(self, why: str) -> None:
        """End the link, as one whose other side may live on, and is told why if it still listens."""
        if self.node:  # a stranger learns nothing
            self.write(wire.GivenUp(why))
            self._flush()
        self._end(why, Unreachable(self.node, why))

    def _end(self, why: str, reason: Reason) -> None:
        if self.lost is not None:
            return
        self.lost = reason
        if self._pulse is not None:
            self._pulse.stop()
        if self.lease is not None:
            self.lease.stop()
        if self._transport is not None:
            self._transport.abort()
        if self._drained is not None:
            _resolve(self._drained)
        if self._last_word is not None:
            _resolve(self._last_word[1])
        self._on_lost(self, why)

    async def drain(self, timeout: float, *, until_heard: bool = False) -> None:
        """Wait until all that was written has left, or the link is lost; or ``until_heard`` by the other side: between
        hosts, what has left this process's buffers may be lost with the process."""
        if self.lost is not None or self._transport is None:
            return
        self._drained = self.system.loop.create_future()
        # From now on it resumes when nothing is left. With 0 as the high mark, asyncio's TLS would pause at once.
        self._transport.set_write_buffer_limits(high=1, low=0)
        self._flush()
        await asyncio.wait([self._drained], timeout=timeout)
        if until_heard and self.lost is None:
            now = self.system.loop.time()
            self._last_word = (now, self.system.loop.create_future())
            self.write(wire.Beat(at=now))
            await asyncio.wait([self._last_word[1]], timeout=timeout)

    def release(self, reason: Reason) -> None:
        """For the owner of a lost link: fail what waits on it."""
        self.lost = reason
        calls, self._calls = self._calls, {}
        for request, path in calls.values():
            request.fail(ActorDied(path, reason))
        relays, self._relays = self._relays, {}
        for number, answer in relays.items():
            answer(wire.CallFailed(number, "died", "", "", reason))
        monitors, self._monitors = self._monitors, {}
        for _, tell in monitors.values():
            tell(reason)
        for future in self._trees.values():
            future.cancel()
        self.ties.release(reason)
        if self.served is not None:
            self.served.release()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
