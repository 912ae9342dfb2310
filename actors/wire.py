"""Frames: what two processes of a system say to each other.

A frame is its length and its number, 4 bytes each and big-endian, and a MessagePack array that begins with the frame's
tag. Each direction of a link counts its frames from 0 (modulo 2**32), so that one that is missing, comes twice or comes
too early is noticed when the next one arrives: a stream does not do that, but what carries it across hosts, or a
simulated network, may. ``id`` numbers pair a question with its answer within one link and one direction. ``path`` is
always the addressee.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import msgspec

from palmette.actors.exits import Reason
from palmette.actors.fingerprint import Build
from palmette.actors.heartbeat import Heartbeat
from palmette.actors.introspection import ExitRecord, TreeNode
from palmette.actors.name_frames import NameFrame
from palmette.actors.starting import StartOptions

HEADER: Final = struct.Struct(">II")
"""Length of the body in bytes, and number of the frame."""
NUMBERS: Final = 1 << 32
"""Frames are counted modulo this."""
MAX_FRAME: Final = 256 << 20
"""Bytes. A frame that claims more ends the link: it is a bug or an attack, and would exhaust memory."""
MAX_GREETING: Final = 4096
"""Bytes of a first frame, from somebody who has not shown a token yet."""


class OutOfStep(ValueError):
    """A frame is not the one that was due: what came before it was lost, or it comes again."""


class Order(msgspec.Struct, frozen=True):
    """What the head tells the host, the host the keeper, and the keeper a new node: whom to call, and how."""

    node: str
    socket: str
    token: str
    heartbeat: Heartbeat

    def __repr__(self) -> str:
        return f"<order for {self.node}>"  # the token is nobody's business


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="hello"):
    """A node's first frame. Never to be changed but at its end: it is how other versions are told from this one."""

    node: str
    token: str
    pid: int
    build: Build | None = None

    def __repr__(self) -> str:
        return f"<hello from {self.node}>"


class Stillborn(msgspec.Struct, frozen=True, array_like=True, tag="stillborn"):
    """The keeper's one frame: the node's process has ended. News only if it never said hello."""

    node: str
    token: str

    def __repr__(self) -> str:
        return f"<{self.node} is stillborn>"


class StartActor(msgspec.Struct, frozen=True, array_like=True, tag="start"):
    path: str
    incarnation: int
    actor: str
    """The class, as ``module:QualifiedName``."""
    arguments: bytes
    options: StartOptions
    dynamic: bool = False
    """Whether a dynamic supervisor is above it, so that names below it are not registered by themselves."""
    names: list[tuple[str, str, bool]] = []
    """Who is called what, and whether somebody lives there; later changes follow as frames."""
    interface: dict[str, str] = {}
    """What the class is like, as the program knows it; see :mod:`palmette.actors.fingerprint`."""


class Started(msgspec.Struct, frozen=True, array_like=True, tag="started"):
    path: str


class NotStarted(msgspec.Struct, frozen=True, array_like=True, tag="not_started"):
    """The node goes; ``child`` is the one at the bottom of the failure, which may live below ``path``."""

    path: str
    child: str
    reason: Reason


class Ended(msgspec.Struct, frozen=True, array_like=True, tag="ended"):
    """The node's actor has ended; the node goes too."""

    path: str
    reason: Reason


class Call(msgspec.Struct, frozen=True, array_like=True, tag="call"):
    id: int
    path: str
    endpoint: str
    arguments: bytes
    seconds: float
    """Time left for the answer. Clocks of two processes need not agree."""

    def __repr__(self) -> str:
        return f"<call {self.endpoint}>"


class Reply(msgspec.Struct, frozen=True, array_like=True, tag="reply"):
    id: int
    result: bytes


class CallFailed(msgspec.Struct, frozen=True, array_like=True, tag="failed"):
    """``kind`` says what to raise: ``died`` (with ``reason``), ``deadline``, or a refusal's class name."""

    id: int
    kind: str
    text: str
    path: str
    reason: Reason | None = None


class Cast(msgspec.Struct, frozen=True, array_like=True, tag="cast"):
    path: str
    endpoint: str
    arguments: bytes

    def __repr__(self) -> str:
        return f"<cast {self.endpoint}>"


class Send(msgspec.Struct, frozen=True, array_like=True, tag="send"):
    path: str
    struct: str
    """The message's class, as ``module:QualifiedName``."""
    message: bytes

    def __repr__(self) -> str:
        return f"<send {self.struct}>"


class Monitor(msgspec.Struct, frozen=True, array_like=True, tag="monitor"):
    id: int
    path: str


class Demonitor(msgspec.Struct, frozen=True, array_like=True, tag="demonitor"):
    id: int


class Fell(msgspec.Struct, frozen=True, array_like=True, tag="fell"):
    """The answer to :class:`Monitor`, when it is time."""

    id: int
    reason: Reason


class Tie(msgspec.Struct, frozen=True, array_like=True, tag="tie"):
    """The sender's actor at ``source`` and the one at ``path`` are linked: should ``source`` end, tell ``path``."""

    path: str
    source: str
    number: int
    """The link's, given by the sender."""


class Untie(msgspec.Struct, frozen=True, array_like=True, tag="untie"):
    path: str
    source: str
    number: int


class ExitSignal(msgspec.Struct, frozen=True, array_like=True, tag="exit"):
    """A linked actor at ``source`` has ended."""

    path: str
    source: str
    reason: Reason
    number: int
    """The link's."""
    yours: bool
    """Whether it was the addressee's side that made it."""


class Stop(msgspec.Struct, frozen=True, array_like=True, tag="stop"):
    path: str
    reason: Reason


class Kill(msgspec.Struct, frozen=True, array_like=True, tag="kill"):
    path: str
    reason: Reason


class AskTree(msgspec.Struct, frozen=True, array_like=True, tag="ask_tree"):
    id: int
    path: str
    seconds: float


class TreeIs(msgspec.Struct, frozen=True, array_like=True, tag="tree_is"):
    id: int
    tree: TreeNode | None
    """``None`` where nothing lives."""


class Exited(msgspec.Struct, frozen=True, array_like=True, tag="exited"):
    """News from a node: an actor below its own has ended."""

    record: ExitRecord


class Beat(msgspec.Struct, frozen=True, array_like=True, tag="beat"):
    """Nothing to say, and still there."""


class GivenUp(msgspec.Struct, frozen=True, array_like=True, tag="given_up"):
    """The last frame of a side that does not trust the link any more."""

    why: str


class Logged(msgspec.Struct, frozen=True, array_like=True, tag="logged"):
    """News from a node: a record of its Python logging, formatted."""

    logger: str
    level: int
    text: str
    at: float


Greeting = Hello | Stillborn
Frame = (
    Greeting | StartActor | Started | NotStarted | Ended | Call | Reply | CallFailed | Cast | Send | Monitor | Demonitor
    | Fell | Tie | Untie | ExitSignal | Stop | Kill | AskTree | TreeIs | Exited | Logged | Beat | GivenUp | NameFrame
)  # fmt: skip

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)
_greeting_decoder: msgspec.msgpack.Decoder[Greeting] = msgspec.msgpack.Decoder(Greeting)


def encode_frame(frame: Frame, number: int) -> tuple[bytes, bytes]:
    """A frame's header and body; apart, so that a large body need not be copied to be put behind a header."""
    body = _encoder.encode(frame)
    return HEADER.pack(len(body), number), body


class FrameReader:
    """Cuts a byte stream into frames. Until it is told to :meth:`trust` the other side it takes only greetings."""

    def __init__(self, *, trusting: bool) -> None:
        self._buffer = bytearray()
        self._trusting = trusting
        self._due = 0
        """The next frame's number."""

    def trust(self) -> None:
        """Take all kinds of frames from the next one on."""
        self._trusting = True

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that ``data`` completes, decoded one by one.

        Raises:
            OutOfStep: a frame was lost, or comes twice.
            ValueError: the stream is not ours (a length beyond the limit, or a body that is no frame).
        """
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= HEADER.size:
                length, number = HEADER.unpack_from(buffer, start)
                limit = MAX_FRAME if self._trusting else MAX_GREETING
                if length > limit:
                    raise ValueError(f"a frame of {length} bytes: more than {limit}")
                if number != self._due:
                    raise OutOfStep(f"frame {number} came where {self._due} was due")
                begin = start + HEADER.size
                if len(buffer) < begin + length:
                    break
                with memoryview(buffer)[begin : begin + length] as body:
                    frame = (_decoder if self._trusting else _greeting_decoder).decode(body)
                start = begin + length
                self._due = (number + 1) % NUMBERS
                yield frame
        finally:
            del buffer[:start]
