"""Frames: what two processes of a system say to each other.

A frame is its length and its number, 4 bytes each and big-endian, and a MessagePack array that begins with the frame's
tag. A large one travels in pieces, with others between them (:mod:`palmette.actors.outbox` cuts them): a piece has a
header of the same form, in whose length a bit says that it is a piece, or a last piece, and then 4 bytes that tell
large frames apart.

Each direction of a link counts its frames, and pieces, from 0 (modulo 2**32), so that one that is missing, comes twice
or comes too early is noticed when the next one arrives: a stream does not do that, but what carries it across hosts, or
a simulated network, may. ``id`` numbers pair a question with its answer within one link and one direction. ``path`` is
always the addressee.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from palmette.actors.exits import Reason
from palmette.actors.fingerprint import Build
from palmette.actors.heartbeat import Heartbeat
from palmette.actors.introspection import ExitRecord, TreeNode
from palmette.actors.name_frames import NameFrame
from palmette.actors.starting import StartOptions

HEADER: Final = struct.Struct(">II")
"""Length of the body in bytes, and number of the frame."""
STREAM: Final = struct.Struct(">I")
"""What a piece's body begins with: the number of the large frame that it is of."""
PIECE_MARK: Final = 1 << 31
"""Set in the length: a piece, with more to come."""
LAST_MARK: Final = 1 << 30
"""Set in the length: a last piece."""
NUMBERS: Final = 1 << 32
"""Frames are counted modulo this."""
MAX_FRAME: Final = 256 << 20
"""Bytes of a frame, and of all that has come in pieces and is not complete. Who claims more ends the link: it is a bug
or an attack, and would exhaust memory."""
MAX_PIECE: Final = 1 << 20
MAX_GREETING: Final = 4096
"""Bytes of a first frame, from somebody who has not shown a token yet."""


class OutOfStep(ValueError):
    """A frame is not the one that was due: what came before it was lost, or it comes again."""


class Order(msgspec.Struct, frozen=True):
    """What the head tells the host, the host the keeper, and the keeper a new node: whom to call, and how."""

    node: str
    socket: str
    """Where the node says hello on its own host."""
    token: str
    heartbeat: Heartbeat
    environment: dict[str, str] = {}
    """What the node puts into its environment, over what is there, before it imports anything of the user's."""
    address: str = ""
    """``HOST:PORT`` of the program, if that is on another host. The node talks to it over TLS, and says hello twice."""
    credentials: str = ""
    """The directory with the certificates for that."""
    output: str = ""
    """The unix socket of who reads what the node prints; see :mod:`palmette.actors.cluster.output`."""

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


class Enter(msgspec.Struct, frozen=True, array_like=True, tag="enter"):
    """The first frame between two systems of a cluster (see :mod:`palmette.actors.cluster.peers`)."""

    role: Literal["member", "program", "lifeline", "visitor"]
    name: str
    incarnation: int
    """Of the process that calls: a member that comes back has another one."""


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
    path: str


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
    """Nothing to say, and still there. One with a time is answered at once, by a beat that has it as its ``echo``."""

    at: float | None = None
    """The sender's clock, in seconds; means nothing to anybody else."""
    echo: float | None = None


class Taken(msgspec.Struct, frozen=True, array_like=True, tag="taken"):
    """So many pieces of large frames have been taken in since the last of these."""

    pieces: int


class GivenUp(msgspec.Struct, frozen=True, array_like=True, tag="given_up"):
    """The last frame of a side that does not trust the link any more."""

    why: str


class Logged(msgspec.Struct, frozen=True, array_like=True, tag="logged"):
    """News from a node: a record of its Python logging, formatted."""

    logger: str
    level: int
    text: str
    at: float


Greeting = Hello | Stillborn | Enter
GREETINGS: Final = (Hello, Stillborn, Enter)
Frame = (
    Greeting | StartActor | Started | NotStarted | Ended | Call | Reply | CallFailed | Cast | Send | Monitor | Demonitor
    | Fell | Tie | Untie | ExitSignal | Stop | Kill | AskTree | TreeIs | Exited | Logged | Beat | Taken | GivenUp
    | NameFrame
)  # fmt: skip

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)
_greeting_decoder: msgspec.msgpack.Decoder[Greeting] = msgspec.msgpack.Decoder(Greeting)


def encode_body(frame: Frame) -> bytes:
    """A frame without its header."""
    return _encoder.encode(frame)


def encode_frame(frame: Frame, number: int) -> tuple[bytes, bytes]:
    """A frame's header and body."""
    body = _encoder.encode(frame)
    return HEADER.pack(len(body), number), body


def length_of(header: int) -> int:
    """The length in a header, of a frame or a piece. Raises ValueError for one that there cannot be."""
    if header & PIECE_MARK:
        length, limit, what = header & ~PIECE_MARK, MAX_PIECE, "piece"
    elif header & LAST_MARK:
        length, limit, what = header & ~LAST_MARK, MAX_PIECE, "last piece"
    else:
        length, limit, what = header, MAX_FRAME, "frame"
    if length > limit:
        raise ValueError(f"a {what} of {length} bytes: more than {limit}")
    return length


class FrameReader:
    """Cuts a byte stream into frames. Until it is told to :meth:`trust` the other side it takes only greetings."""

    def __init__(self, *, trusting: bool) -> None:
        self._buffer = bytearray()
        self._trusting = trusting
        self._due = 0
        """The next frame's number."""
        self._partial: dict[int, bytearray] = {}
        """What has come of large frames."""
        self._partial_size = 0
        self._pieces = 0

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
                header, number = HEADER.unpack_from(buffer, start)
                length = length_of(header)
                if not self._trusting and header > MAX_GREETING:
                    raise ValueError(f"a frame of {length} bytes: more than {MAX_GREETING}")
                if number != self._due:
                    raise OutOfStep(f"frame {number} came where {self._due} was due")
                begin = start + HEADER.size
                if len(buffer) < begin + length:
                    break
                frame: Frame | None
                with memoryview(buffer)[begin : begin + length] as body:
                    if header > MAX_FRAME:
                        frame = self._piece(body, last=not header & PIECE_MARK)
                    else:
                        frame = (_decoder if self._trusting else _greeting_decoder).decode(body)
                start = begin + length
                self._due = (number + 1) % NUMBERS
                if frame is not None:
                    yield frame
        finally:
            del buffer[:start]

    def new_pieces(self) -> int:
        """How many pieces have come since this was asked last."""
        pieces, self._pieces = self._pieces, 0
        return pieces

    def _piece(self, body: memoryview, *, last: bool) -> Frame | None:
        """Take a piece of a large frame; the frame, if it was the last."""
        if len(body) <= STREAM.size:
            raise ValueError(f"a piece of {len(body)} bytes: it has nothing in it")
        [stream] = STREAM.unpack_from(body)
        self._partial_size += len(body) - STREAM.size
        if self._partial_size > MAX_FRAME:
            raise ValueError(f"more than {MAX_FRAME} bytes in pieces")
        self._pieces += 1
        whole = self._partial.setdefault(stream, bytearray())
        whole += body[STREAM.size :]
        if not last:
            return None
        del self._partial[stream]
        self._partial_size -= len(whole)
        return _decoder.decode(whole)
