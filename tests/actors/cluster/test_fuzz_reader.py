"""Whatever comes after the handshake, from a peer that is of the cluster and broken: a ValueError, or frames."""

from __future__ import annotations

import os
import random
import tracemalloc

import msgspec
import pytest

from palmette.actors import MaxRestarts, Normal, wire
from palmette.actors.outbox import Outbox

STREAMS = max(int(os.environ.get("PALMETTE_STRANGERS", "4000")) // 4, 1)
SEED = int(os.environ.get("PALMETTE_SEED", "1"))


def streams() -> list[bytes]:
    """Valid ones, as they are sent: small frames of most kinds, with large ones in pieces between them."""
    frames: list[wire.Frame] = [
        wire.Hello("n", "t", 1),
        wire.Call(1, "/a", "e", bytes(50), 2.5),
        wire.Cast("/b", "e", bytes(100_000)),
        wire.Reply(7, bytes(70_000)),
        wire.Monitor(3, "/a"),
        wire.Beat(at=1.0, echo=2.0),
        wire.Ended("/a", MaxRestarts("/a/b", Normal(), 3, 5.0)),
        wire.Taken(3),
        wire.Fell(3, Normal()),
    ]
    found = list[bytes]()
    for first in range(len(frames)):
        box, stream = Outbox(), b""
        for frame in frames[first:] + frames[:first]:
            box.put(frame)
            stream += box.take(1)[0]
        while not box.is_empty:
            stream += box.take(1)[0]
        found.append(stream)
    return found


def mutated(stream: bytes, rng: random.Random) -> bytes:
    """``stream`` with something changed, left out, put in or repeated."""
    data = bytearray(stream)
    for _ in range(rng.randrange(1, 4)):
        # Mostly near the beginnings, where the headers and tags are.
        at = rng.randrange(min(len(data), rng.choice((40, 400, len(data)))))
        match rng.randrange(5):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at] = rng.randrange(256)
            case 2:
                del data[at : at + rng.randrange(1, 20)]
            case 3:
                data[at:at] = rng.randbytes(rng.randrange(1, 20))
            case _:
                data[at:at] = data[at : at + rng.randrange(1, 200)]
        if not data:
            break
    return bytes(data)


def feed(reader: wire.FrameReader, data: bytes, rng: random.Random) -> list[wire.Frame]:
    """Give ``data`` in chunks, until it is found out."""
    found, at = list[wire.Frame](), 0
    try:
        while at < len(data):
            size = rng.choice((1, 7, 100, 4096, 1 << 16))
            found += reader.feed(data[at : at + size])
            at += size
    except ValueError:  # which OutOfStep is, too
        pass
    return found


@pytest.mark.parametrize("trusting", [True, False])
def test_mutated_streams_are_frames_or_value_errors(trusting: bool) -> None:
    rng, valid = random.Random(SEED), streams()
    for number in range(STREAMS):
        stream = mutated(valid[number % len(valid)], rng)
        for frame in feed(wire.FrameReader(trusting=trusting), stream, rng):
            wire.encode_body(frame)  # it is whole


@pytest.mark.parametrize("trusting", [True, False])
def test_arbitrary_bytes_are_frames_or_value_errors(trusting: bool) -> None:
    rng = random.Random(SEED)
    for _ in range(STREAMS):
        body = rng.randbytes(rng.randrange(0, 200))
        mark = rng.choice((0, 0, wire.PIECE_MARK, wire.LAST_MARK, 3 << 30))
        header = wire.HEADER.pack((len(body) + rng.randrange(2)) | mark, rng.randrange(2))
        feed(wire.FrameReader(trusting=trusting), rng.choice((b"", header)) + body, rng)


def test_a_reason_with_a_hundred_thousand_causes_is_a_value_error() -> None:
    inner = msgspec.msgpack.encode(Normal())
    before, after = msgspec.msgpack.encode(MaxRestarts("/a", Normal(), 3, 5.0)).split(inner)
    head, tail = wire.encode_body(wire.Ended("/a", Normal())).split(inner)
    body = head + before * 100_000 + inner + after * 100_000 + tail
    with pytest.raises(ValueError, match="nested too deeply"):
        list(wire.FrameReader(trusting=True).feed(wire.HEADER.pack(len(body), 0) + body))


def test_memory_is_bounded_whatever_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_FRAME", 1 << 20)
    piece = bytes(60_000)
    reader = wire.FrameReader(trusting=True)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="more than 1048576 bytes in pieces"):
            begin_a_thousand(reader, piece)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def begin_a_thousand(reader: wire.FrameReader, piece: bytes) -> None:
    """Begin that many large frames, and end none."""
    for number in range(1000):
        header = wire.HEADER.pack((wire.STREAM.size + len(piece)) | wire.PIECE_MARK, number)
        list(reader.feed(header + wire.STREAM.pack(number) + piece))
