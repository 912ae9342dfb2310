"""Keep the beginning and the end of a stream of unknown length.

A command may print gigabytes. The beginning says what it set out to do and the end says how it failed, so both are
kept and the middle is counted.

>>> capture = Capture(8)
>>> capture.feed(b"abcdefgh-middle-12345678")
>>> capture.value(), capture.left_out
(b'abcd5678', 16)

This file also runs inside machines (see :mod:`palmette.machines.runner`): Python 3.6, standard library only.
"""


class Tail:
    """The last ``room`` bytes of a stream."""

    __slots__ = ("_kept", "_room", "_total")

    def __init__(self, room: int) -> None:
        self._room = room
        self._kept = bytearray()
        self._total = 0

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the stream."""
        self._total += len(chunk)
        self._kept += chunk[-self._room :] if self._room else b""
        # Trimmed only at twice the size, so that a byte is moved once on average and not at every chunk.
        if len(self._kept) > 2 * self._room:
            del self._kept[: -self._room]

    def __len__(self) -> int:
        """Bytes in memory, at most twice ``room`` and what was fed last."""
        return len(self._kept)

    @property
    def left_out(self) -> int:
        """Bytes that were fed and are not kept."""
        return max(0, self._total - self._room)

    def value(self) -> bytes:
        """What is kept."""
        return bytes(self._kept[-self._room :]) if self._room else b""


class Capture:
    """At most ``limit`` bytes of a stream: the first half of the limit is the head, the other half the tail.

    The cut, if there was one (:attr:`left_out` > 0), is after the first ``limit // 2`` bytes of :meth:`value`.
    """

    __slots__ = ("_head", "_head_room", "_tail")

    def __init__(self, limit: int) -> None:
        if limit < 0:
            raise ValueError(f"an output limit is a number of bytes >= 0, got {limit}")
        self._head = bytearray()
        self._head_room = limit // 2
        self._tail = Tail(limit - limit // 2)

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the stream."""
        room = self._head_room - len(self._head)
        if room > 0:
            self._head += chunk[:room]
            chunk = chunk[room:]
        if chunk:
            self._tail.feed(chunk)

    @property
    def left_out(self) -> int:
        """Bytes that were fed and are in neither head nor tail."""
        return self._tail.left_out

    def value(self) -> bytes:
        """Head and tail, one after the other."""
        return bytes(self._head) + self._tail.value()
