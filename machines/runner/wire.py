"""What controller and runner say to each other: frames on one byte stream.

A frame is a header of twelve bytes (two of magic, the kind, a number, the payload's length) and at most
:data:`MAX_PAYLOAD` bytes. The number names a job or a call; the controller gives numbers out, each once.

The magic and the bound are there because a command may write rubbish into the stream (``/proc/PID/fd/1`` of the
runner): whoever reads it notices, and never allocates what a forged length asks for.
"""

import json
import struct
from typing import cast

MAGIC = b"\x9fp"
HEADER = struct.Struct(">2sBxII")
MAX_PAYLOAD = 1 << 20

# From the controller. "Packed" is JSON and bytes, see pack().
CONFIGURE = 1  # JSON: the first frame, once
START = 2  # packed: what to run, and its input if that is short
STDIN = 3
CLOSE_STDIN = 4
KILL = 5
RESIZE = 6  # JSON: [rows, columns]
CREDIT = 7  # JSON: bytes of output that were taken
CALL = 8  # packed: a request that is answered at once
PING = 9
END_ALL = 10  # kill everything, tidy up, end

# From the runner.
HELLO = 32  # JSON: the first frame
OUT = 33
ERR = 34
STARTED = 35
ENDED = 36  # JSON; of a job nothing comes after it
STDIN_TAKEN = 37  # JSON: bytes
STDIN_GONE = 38
REPLY = 39  # packed
PONG = 40
OUTPUT_ENDED = 41
EXPIRED = 42  # its last frame: the controller said nothing for a lease

FROM_CONTROLLER = frozenset(range(CONFIGURE, END_ALL + 1))
FROM_RUNNER = frozenset(range(HELLO, EXPIRED + 1))

OUTPUT_WINDOW = 1 << 20
"""Bytes of a job's output that may be under way, or wait for their reader, where output goes by credit."""
INPUT_WINDOW = 1 << 20
"""Bytes of a job's input that may wait in the runner."""
INLINE = 1 << 16
"""Bytes up to which input and files travel inside a request."""
PIECE = 1 << 16
"""Bytes of one frame of input or output."""


class ProtocolError(Exception):
    """The stream does not hold what the other side would say."""


def frame(kind: int, number: int, payload: bytes = b"") -> bytes:
    """One frame."""
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"a frame holds {MAX_PAYLOAD} bytes, got {len(payload)}")
    return HEADER.pack(MAGIC, kind, number, len(payload)) + payload


def json_frame(kind: int, number: int, value: object) -> bytes:
    """A frame that holds JSON."""
    return frame(kind, number, json.dumps(value).encode("ascii"))


def pack(head: object, data: bytes = b"") -> bytes:
    """JSON and bytes in one payload."""
    text = json.dumps(head).encode("ascii")
    return struct.pack(">I", len(text)) + text + data


def unpack(payload: bytes) -> "tuple[dict[str, object], bytes]":
    """The counterpart of :func:`pack`."""
    if len(payload) < 4:
        raise ProtocolError("a packed payload is cut off")
    (size,) = struct.unpack_from(">I", payload)
    return parse_object(payload[4 : 4 + size]), payload[4 + size :]


def parse(payload: bytes) -> object:
    """JSON of the other side."""
    try:
        return json.loads(payload.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"no JSON: {error}") from None


def parse_object(payload: bytes) -> "dict[str, object]":
    """A JSON object of the other side."""
    value = parse(payload)
    if not isinstance(value, dict):
        raise ProtocolError("a JSON object was due")
    return cast("dict[str, object]", value)


class Decoder:
    """Cuts a stream into frames. ``kinds`` are those that the other side may send."""

    def __init__(self, kinds: "frozenset[int]") -> None:
        self._kinds = kinds
        self._buffer = bytearray()

    def feed(self, data: bytes) -> "list[tuple[int, int, bytes]]":
        """The frames (kind, number, payload) that ``data`` completes.

        Raises:
            ProtocolError: this is not a stream of frames; nothing that comes after it can be understood.
        """
        buffer = self._buffer
        buffer += data
        frames: list[tuple[int, int, bytes]] = []
        at, size = 0, len(buffer)
        while size - at >= HEADER.size:
            magic, kind, number, length = HEADER.unpack_from(buffer, at)
            if magic != MAGIC or kind not in self._kinds or length > MAX_PAYLOAD:
                raise ProtocolError(f"not a frame: {bytes(buffer[at : at + 40])!r}")
            end = at + HEADER.size + length
            if end > size:
                break
            frames.append((kind, number, bytes(buffer[at + HEADER.size : end])))
            at = end
        if at:
            del buffer[:at]
        return frames
