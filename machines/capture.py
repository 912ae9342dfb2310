"""Keep the beginning and the end of a stream of unknown length.

A command may print gigabytes. The beginning says what it set out to do and the end says how it failed, so both are
kept and the middle is counted.

>>> capture = Capture(8)
>>> capture.feed(b"abcdefgh-middle-12345678")
>>> capture.value(), capture.left_out
(b'abcd5678', 16)
"""

from __future__ import annotations


class Capture:
    """At most ``limit`` bytes of a stream: the first half of the limit is the head, the other half the tail.

    The cut, if there was one (:attr:`left_out` > 0), is after the first ``limit // 2`` bytes of :meth:`value`.
    """

    __slots__ = ("_head", "_head_room", "_tail", "_tail_room", "_total")

    def __init__(self, limit: int) -> None:
        if limit < 0:
            raise ValueError(f"an output limit is a number of bytes >= 0, got {limit}")
        self._head = bytearray()
        self._tail = bytearray()
        self._head_room = limit // 2
        self._tail_room = limit - limit // 2
        self._total = 0

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the stream."""
        self._total += len(chunk)
        room = self._head_room - len(self._head)
        if room > 0:
            self._head += chunk[:room]
            chunk = chunk[room:]
        if chunk:
            self._tail += chunk[-self._tail_room :] if self._tail_room else b""
            # Trimmed only at twice the size, so that a byte is moved once on average and not at every chunk.
            if len(self._tail) > 2 * self._tail_room:
                del self._tail[: -self._tail_room]

    @property
    def left_out(self) -> int:
        """Bytes that were fed and are in neither head nor tail."""
        return self._total - len(self._head) - min(len(self._tail), self._tail_room)

    def value(self) -> bytes:
        """Head and tail, one after the other."""
        tail = self._tail[-self._tail_room :] if self._tail_room else b""
        return bytes(self._head + tail)
