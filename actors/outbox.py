"""What a link has to send: small frames at once, and large ones in pieces between them.

A large frame must not hold up what is said beside it, and memory for one is all that it may cost. So it is cut, and the
link asks for as many pieces as its connection takes. Order is kept where somebody could see it: frames to one addressee
go in order, so that one behind a large frame waits for it, and news of an end (``Fell``, ``Ended``, ``NotStarted``,
``ExitSignal``) waits for all that was there to be sent before it, as the dead may have said it. Replies belong to their
calls, and wait for nobody. Several large frames, to several addressees, take turns.

Nothing here knows of a connection: :meth:`Outbox.put` frames, and :meth:`Outbox.take` bytes.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from palmette.actors import wire
from palmette.actors.name_frames import NameFrame

LARGE: Final = 64 << 10
"""Bytes from which on a frame goes in pieces."""
PIECE: Final = 32 << 10
"""Bytes of a piece."""

_NEWS_OF_AN_END: Final = (wire.Fell, wire.Ended, wire.NotStarted, wire.ExitSignal)
_WITH_ID: Final = (wire.Reply, wire.CallFailed, wire.TreeIs)
_FOR_THE_LINK: Final = (
    wire.Beat, wire.Taken, wire.GivenUp, wire.Exited, wire.Logged, wire.Started, *wire.GREETINGS,
)  # fmt: skip


class _Waiting:
    """A frame that cannot be sent at once."""

    __slots__ = ("body", "number", "sent", "stream")

    def __init__(self, number: int, body: bytes) -> None:
        self.number = number
        """The order in which frames were put."""
        self.body = body
        self.sent = 0
        """Bytes of it."""
        self.stream: int | None = None
        """What its pieces are marked with, once there is one."""


class Outbox:
    """See the module's text. ``written``: how many frames went out on the connection before."""

    def __init__(self, written: int = 0) -> None:
        self._written = written
        self._put = 0
        self._streams = 0
        self._ready: list[bytes | memoryview] = []
        """What may be sent, headers included, in order."""
        self._ready_size = 0
        self._lanes: dict[object, deque[_Waiting]] = {}
        """By addressee; the first of each is large. Their order is that of their turns."""
        self._ends: deque[_Waiting] = deque()
        """News that waits for what was put before it."""
        self._open = 0
        """Bytes of large frames that were begun."""
        self.size = 0
        """Bytes that wait."""

    def put(self, frame: wire.Frame) -> None:
        """Have ``frame`` sent."""
        body = wire.encode_body(frame)
        self.size += len(body)
        if not self._lanes and len(body) < LARGE:
            self._send(body)
            return
        self._put += 1
        waiting = _Waiting(self._put, body)
        if isinstance(frame, _NEWS_OF_AN_END):
            self._ends.append(waiting)
            self._release_ends()
        elif isinstance(frame, _WITH_ID):
            self._queue(frame.id, waiting)
        elif isinstance(frame, _FOR_THE_LINK):
            self._queue(type(frame), waiting)
        elif isinstance(frame, NameFrame):
            self._queue(NameFrame, waiting)  # one after the other, whatever they are about
        elif isinstance(frame, wire.StartActor) or wire.StartActor in self._lanes:
            self._queue(wire.StartActor, waiting)  # before the actor is there, nobody below it gets anything
        else:
            self._queue(frame.path, waiting)

    def _queue(self, lane: object, waiting: _Waiting) -> None:
        if lane in self._lanes:
            self._lanes[lane].append(waiting)
        elif len(waiting.body) < LARGE:
            self._send(waiting.body)
        else:
            self._lanes[lane] = deque([waiting])

    def _send(self, body: bytes) -> None:
        self._ready += (wire.HEADER.pack(len(body), self._number()), body)
        self._ready_size += len(body)

    def _number(self) -> int:
        number = self._written % wire.NUMBERS
        self._written += 1
        return number

    # --- taking --------------------------------------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to be taken."""
        return not self._ready and not self._lanes

    @property
    def has_small(self) -> bool:
        """Whether there is something that is not a piece."""
        return bool(self._ready)

    def take(self, pieces: int) -> tuple[bytes, int]:
        """All small frames that may go, and up to ``pieces`` pieces of large ones; and how many pieces these are."""
        cut = 0
        while cut < pieces and self._lanes:
            self._cut(self._next_lane())
            cut += 1
        ready, self._ready = self._ready, []
        self.size -= self._ready_size
        self._ready_size = 0
        return b"".join(ready), cut

    def _next_lane(self) -> object:
        """Whose turn it is. What is begun stays below MAX_FRAME in all; one that must wait for that is not passed."""
        may_begin = True
        for lane, (first, *_) in self._lanes.items():
            if first.stream is not None:
                return lane
            if may_begin and (not self._open or self._open + len(first.body) <= wire.MAX_FRAME):
                return lane
            may_begin = False
        raise AssertionError("what is begun may always go on")

    def _cut(self, lane: object) -> None:
        """Send a piece of the first frame in ``lane``, and, after a last one, what has waited for it."""
        queue = self._lanes.pop(lane)
        frame = queue[0]
        if frame.stream is None:
            frame.stream = self._streams % wire.NUMBERS
            self._streams += 1
            self._open += len(frame.body)
        piece = memoryview(frame.body)[frame.sent : frame.sent + PIECE]
        frame.sent += len(piece)
        is_last = frame.sent == len(frame.body)
        length = (wire.STREAM.size + len(piece)) | (wire.LAST_MARK if is_last else wire.PIECE_MARK)
        self._ready += (wire.HEADER.pack(length, self._number()), wire.STREAM.pack(frame.stream), piece)
        self._ready_size += len(piece)
        if is_last:
            self._open -= len(frame.body)
            queue.popleft()
            while queue and len(queue[0].body) < LARGE:
                self._send(queue.popleft().body)
        if queue:
            self._lanes[lane] = queue  # behind the others: they take turns
        if is_last:
            self._release_ends()

    def _release_ends(self) -> None:
        """Send the news that has nothing left to wait for."""
        while self._ends and all(queue[0].number > self._ends[0].number for queue in self._lanes.values()):
            news = self._ends.popleft()
            self._queue(news, news)
