"""What a program or an agent tells, as a stream of messages: in order, bounded, and to be read again.

A stream keeps the last ``capacity`` events. Every reader has a place of its own: it sees all that is kept, then what
comes, and loses nothing while it keeps up. One that falls further behind than the stream remembers is told so: a
:class:`Dropped` stands where the lost events were.

>>> stream = EventStream()
>>> stream.append("progress", 1)
Event(number=1, type='progress', data=1, source=None)
>>> stream.close()
>>> import asyncio
>>> async def read() -> list[object]:
...     return [event async for event in stream]
>>> asyncio.run(read())
[Event(number=1, type='progress', data=1, source=None)]

There are no callbacks. An actor that wants to know is sent each event as a message (:meth:`EventStream.send_to`).
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Final, TypeVar

import msgspec

from palmette.actors import DeadlineExceeded, Ref
from palmette.agents.programs.errors import StreamEnded

T = TypeVar("T")

CAPACITY: Final = 10_000
"""Events that a stream keeps."""
WAIT_SECONDS: Final = 60.0
"""How long :meth:`EventStream.wait_for` waits where nothing else is said."""


class Event(msgspec.Struct, frozen=True):
    """One thing that happened."""

    number: int
    """From 1, without gaps, in the stream that it was read from."""
    type: str
    data: object = None
    source: str | None = None
    """Who told it first, where it came through :func:`~palmette.agents.programs.bubble` with a name."""


class Dropped(msgspec.Struct, frozen=True):
    """``count`` events stood here that the stream does not remember any more."""

    count: int


class EventStream:
    """See the module's text. Whoever it belongs to appends; everybody may read."""

    def __init__(self, *, capacity: int = CAPACITY, earlier: EventStream | None = None) -> None:
        """``earlier``: go on where a closed stream ended, its events included."""
        if capacity < 1:
            raise ValueError(f"a stream keeps at least one event, got capacity={capacity}")
        self._events: deque[Event] = deque(() if earlier is None else earlier._events, maxlen=capacity)
        self._last = 0 if earlier is None else earlier._last
        self._closed = False
        self._waiting: dict[asyncio.Future[None], None] = {}
        self._actors: dict[int, Ref[object]] = {}
        self._followers: dict[int, tuple[EventStream, str | None]] = {}
        self._numbers = itertools.count()

    def __len__(self) -> int:
        """How many events there have been, forgotten ones included."""
        return self._last

    @property
    def closed(self) -> bool:
        """Whether nothing more will come."""
        return self._closed

    def snapshot(self) -> list[Event | Dropped]:
        """What a reader would see right now, from the beginning."""
        gone = self._last - len(self._events)
        return [*((Dropped(gone),) if gone else ()), *self._events]

    # --- writing ----------------------------------------------------------------------------------------------------

    def append(self, type: str, data: object = None, *, source: str | None = None) -> Event | None:
        """Add an event; ``None`` where the stream is closed, and nothing was added."""
        return self._take(type, data, source)

    def _take(self, type: str, data: object, source: str | None) -> Event | None:
        """:meth:`append`, also for what comes from another stream."""
        if self._closed:
            return None
        self._last += 1
        event = Event(self._last, type, data, source)
        self._events.append(event)
        for actor in self._actors.values():
            actor.send(event)
        for follower, name in list(self._followers.values()):
            follower._take(type, data, source if source is not None else name)
        self._wake()
        return event

    def close(self) -> None:
        """Nothing more comes: readers end after what there is. Twice is fine."""
        self._closed = True
        self._followers.clear()
        self._actors.clear()
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    # --- reading ----------------------------------------------------------------------------------------------------

    def __aiter__(self) -> Reader:
        return Reader(self, 0)

    def read(self, *, after: int = 0) -> Reader:
        """All events whose number is above ``after``, then those to come, until the stream is closed."""
        return Reader(self, after)

    def entry_after(self, place: int) -> Event | Dropped | None:
        """What a reader that has seen the events up to number ``place`` is to see next, if it is there."""
        if place >= self._last:
            return None
        oldest = self._last - len(self._events) + 1
        return Dropped(oldest - place - 1) if place + 1 < oldest else self._events[place + 1 - oldest]

    async def more(self) -> None:
        """Wait until there is more, or the stream is closed."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = None
        try:
            await waiter
        finally:
            self._waiting.pop(waiter, None)

    def wait_for(
        self,
        type: str | None = None,
        *,
        where: Callable[[Event], bool] | None = None,
        timeout: float = WAIT_SECONDS,
        replay: bool = True,
    ) -> Coroutine[object, object, Event]:
        """``await`` it: the first event of ``type`` for which ``where`` is true.

        Looks at what there is first; with ``replay=False`` only at what comes after this very call, so that nothing is
        missed between the call and its ``await``.

        Raises:
            DeadlineExceeded: none came within ``timeout`` seconds.
            StreamEnded: the stream was closed, and there is none on it.
        """
        return self._wait_for(type, where, timeout, 0 if replay else self._last)

    async def _wait_for(
        self, type: str | None, where: Callable[[Event], bool] | None, timeout: float, after: int
    ) -> Event:
        what = "an event" if type is None else f"an event {type!r}"
        clock = asyncio.timeout(timeout)
        try:
            async with clock:
                async for event in self.read(after=after):
                    if isinstance(event, Dropped):
                        continue
                    if (type is None or event.type == type) and (where is None or where(event)):
                        return event
        except TimeoutError:
            if not clock.expired():
                raise
            raise DeadlineExceeded(f"{what} did not come within {timeout:g} s; {self._told()}") from None
        raise StreamEnded(f"{what} will not come any more: the stream is closed; {self._told()}")

    def _told(self) -> str:
        types = [event.type for event in self._events]
        return f"the last events are: {', '.join(types[-5:]) or 'none'}"

    def send_to(self, actor: Ref[object], *, replay: bool = True) -> Callable[[], None]:
        """Have each :class:`Event` sent to ``actor``'s mailbox; the returned function ends that. Twice is fine.

        What happened already is sent at once, unless ``replay`` is false.
        """
        if replay:
            for event in self._events:
                actor.send(event)
        return self._registered(self._actors, actor)

    def copy_to(self, stream: EventStream, *, source: str | None = None) -> Callable[[], None]:
        """Have everything, what happened already included, appended to ``stream``, too; see ``bubble``.

        An event that names a source keeps it; others get ``source``. Forgotten ones are told of by an event
        ``dropped`` with their number.

        Raises:
            ValueError: ``stream`` is copied to this one, directly or not.
        """
        if self in stream.followed_by():
            raise ValueError("two streams cannot be copied to each other: every event would go round for ever")
        for event in self.snapshot():
            match event:
                case Dropped(count):
                    stream._take("dropped", count, source)
                case Event(_, type, data, told):
                    stream._take(type, data, told if told is not None else source)
        return self._registered(self._followers, (stream, source))

    def followed_by(self) -> set[EventStream]:
        """This stream, and those that it is copied to, directly or not."""
        found: set[EventStream] = {self}
        for follower, _ in self._followers.values():
            found |= follower.followed_by()
        return found

    def _registered(self, table: dict[int, T], entry: T) -> Callable[[], None]:
        number = next(self._numbers)
        if not self._closed:
            table[number] = entry

        def end() -> None:
            table.pop(number, None)

        return end


class Reader:
    """One reader's place in a stream: an asynchronous iterator. Leaving the iteration needs no clean-up."""

    def __init__(self, stream: EventStream, place: int) -> None:
        self._stream = stream
        self._place = place

    def __aiter__(self) -> Reader:
        return self

    async def __anext__(self) -> Event | Dropped:
        while (entry := self._stream.entry_after(self._place)) is None:
            if self._stream.closed:
                raise StopAsyncIteration
            await self._stream.more()
        self._place += entry.count if isinstance(entry, Dropped) else 1
        return entry
