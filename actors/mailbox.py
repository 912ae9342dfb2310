"""A mailbox, unbounded or bounded with a stated overflow policy.

What a full mailbox does with one more *request*:

=============  ==============================================================================================
``block``      a call waits for room, up to its deadline; a cast, which never waits, raises ``MailboxFull``
``reject``     calls and casts raise ``MailboxFull`` at once
``drop_oldest``  the oldest request goes to dead letters (its caller gets ``MailboxFull``), the new one comes in
=============  ==============================================================================================

Messages of the kernel (``Down``, ``Exit``, timer ticks) and plain ``send``\\ s are never refused: a death notice that
did not fit would be a hang.

Beside it lies the stash (:mod:`palmette.actors.stash`): messages that were taken and put aside. They do not count
against the bound; when they come back they do, and new requests wait until there is room again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal

from palmette.actors.errors import MailboxFull
from palmette.actors.messages import Request

Overflow = Literal["block", "reject", "drop_oldest"]


class Mailbox:
    """The messages that wait for one actor."""

    __slots__ = ("capacity", "overflow", "queue", "stashed", "waiting")

    def __init__(self, capacity: int | None = None, overflow: Overflow = "block") -> None:
        if capacity is not None and capacity < 1:
            raise ValueError(f"a mailbox holds at least one message, got capacity={capacity}")
        self.capacity = capacity
        self.overflow = overflow
        self.queue: deque[object] = deque()
        self.waiting: deque[Request] | None = None
        """Calls that wait for room, in order (policy ``block``)."""
        self.stashed: deque[object] | None = None
        """What was put aside, in order."""

    def __len__(self) -> int:
        return len(self.queue)

    def put(self, request: Request, path: str) -> Request | None:
        """Take a request; returns one that had to make room for it.

        Raises:
            MailboxFull: a cast that does not fit. A call that is refused fails through its future instead.
        """
        if self._has_room():
            self.queue.append(request)
            return None
        if self.overflow == "drop_oldest":
            for index, oldest in enumerate(self.queue):
                if isinstance(oldest, Request):
                    del self.queue[index]
                    self.queue.append(request)
                    if oldest.reply is not None and not oldest.reply.done():
                        oldest.reply.set_exception(MailboxFull(f"{path} dropped {oldest!r}: its mailbox overflowed"))
                    return oldest
        error = MailboxFull(f"the mailbox of {path} is full ({self.capacity}); slow down, or raise `mailbox=`")
        if request.reply is None:
            raise error
        if self.overflow == "block":
            if self.waiting is None:
                self.waiting = deque()
            self.waiting.append(request)
        else:
            request.reply.set_exception(error)
        return None

    def take(self) -> object:
        """The next message; a call that waited for room moves up."""
        message = self.queue.popleft()
        self._move_up()
        return message

    def has_stash_room(self, capacity: int) -> bool:
        """Whether one more message may be put aside; calls whose callers have given up make room."""
        if self.stashed is not None and len(self.stashed) >= capacity:
            self.stashed = deque(message for message in self.stashed if not _is_unwanted(message))
        return self.stashed is None or len(self.stashed) < capacity

    def stash(self, message: object) -> None:
        """Put a message that was taken aside."""
        if self.stashed is None:
            self.stashed = deque()
        self.stashed.append(message)

    def unstash_all(self) -> None:
        """Put everything back in front, in its old order."""
        if self.stashed:
            self.queue.extendleft(message for message in reversed(self.stashed) if not _is_unwanted(message))
            self.stashed = None

    def remove(self, unwanted: Callable[[object], bool]) -> None:
        """Take out the messages that are ``unwanted``, stashed ones included."""
        if self.stashed:
            self.stashed = deque(message for message in self.stashed if not unwanted(message))
        kept = [message for message in self.queue if not unwanted(message)]
        if len(kept) < len(self.queue):
            # The same deque: the engine holds on to it.
            self.queue.clear()
            self.queue.extend(kept)
            self._move_up()

    def drain(self) -> list[object]:
        """Everything that waits, the stash first, in order; the mailbox is empty afterwards."""
        messages = [*(self.stashed or ()), *self.queue, *(self.waiting or ())]
        self.queue.clear()
        self.waiting = self.stashed = None
        return messages

    def _has_room(self) -> bool:
        return self.capacity is None or len(self.queue) < self.capacity

    def _move_up(self) -> None:
        # Nobody may wait for room while there is some: an empty queue wakes no one.
        while self.waiting and self._has_room():
            request = self.waiting.popleft()
            if request.reply is not None and not request.reply.done():
                self.queue.append(request)


def _is_unwanted(message: object) -> bool:
    """Whether it is a call whose caller has given up."""
    return isinstance(message, Request) and message.reply is not None and message.reply.done()
