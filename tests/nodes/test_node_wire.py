"""Frames in a stream of bytes: however the stream is cut, the frames are the same; and nonsense is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palmette.actors import Crashed, Killed, NoProcess, Normal, Shutdown, wire
from palmette.actors.errors import BadCall, MailboxFull, NodeError, Refused
from palmette.actors.refusals import failed, refusal
from palmette.actors.starting import StartOptions

REASONS = st.one_of(
    st.builds(Normal),
    st.builds(Shutdown, detail=st.text(max_size=5)),
    st.builds(Killed, detail=st.text(max_size=5)),
    st.builds(NoProcess, address=st.text(max_size=5)),
    st.builds(Crashed, error=st.text(max_size=5), text=st.text(max_size=5), retry_after=st.none() | st.just(1.5)),
)
FRAMES = st.one_of(
    st.builds(wire.Call, st.integers(0, 2**40), st.text(max_size=9), st.text(max_size=9), st.binary(), st.just(2.5)),
    st.builds(wire.Reply, st.integers(0, 2**40), st.binary(max_size=3000)),
    st.builds(wire.Ended, st.text(max_size=9), REASONS),
    st.builds(wire.CallFailed, st.integers(0, 9), st.just("died"), st.text(max_size=9), st.just("/x"), REASONS),
    st.builds(wire.StartActor, st.just("/x"), st.just(1), st.just("m:C"), st.binary(), st.just(StartOptions())),
)


def stream_of(frames: list[wire.Frame]) -> bytes:
    return b"".join(part for number, frame in enumerate(frames) for part in wire.encode_frame(frame, number))


@given(st.lists(FRAMES, max_size=6), st.data())
def test_the_frames_are_the_same_however_the_stream_is_cut(frames: list[wire.Frame], data: st.DataObject) -> None:
    stream = stream_of(frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    reader = wire.FrameReader(trusting=True)
    found: list[wire.Frame] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += reader.feed(stream[start:end])
    assert found == frames


@given(st.binary(min_size=1, max_size=200))
def test_a_frame_of_nonsense_is_a_value_error_or_waits_for_more(data: bytes) -> None:
    reader = wire.FrameReader(trusting=True)
    whole = wire.HEADER.pack(len(data), 0) + data
    try:
        frames = list(reader.feed(whole))
    except ValueError:
        return
    # What can be read is what was written: a frame that arrives decodes to itself.
    assert list(wire.FrameReader(trusting=True).feed(stream_of(frames))) == frames


@given(FRAMES)
def test_before_trust_nothing_but_a_greeting_is_read(frame: wire.Frame) -> None:
    reader = wire.FrameReader(trusting=False)
    with pytest.raises(ValueError, match=r".+"):
        list(reader.feed(stream_of([frame])))


def test_trust_begins_with_the_next_frame() -> None:
    reader = wire.FrameReader(trusting=False)
    frames: list[wire.Frame] = []
    for frame in reader.feed(stream_of([wire.Hello("n", "t", 1), wire.Started("/x")])):
        frames.append(frame)
        reader.trust()
    assert frames == [wire.Hello("n", "t", 1), wire.Started("/x")]


def test_frames_before_the_nonsense_are_delivered() -> None:
    reader = wire.FrameReader(trusting=True)
    feed = reader.feed(stream_of([wire.Started("/x")]) + wire.HEADER.pack(wire.MAX_FRAME + 1, 1))
    assert next(feed) == wire.Started("/x")
    with pytest.raises(ValueError, match="more than"):
        next(feed)


@given(st.lists(FRAMES, min_size=1, max_size=5), st.data())
def test_a_frame_that_is_missing_or_comes_twice_or_early_is_never_passed_over(
    frames: list[wire.Frame], data: st.DataObject
) -> None:
    whole = [b"".join(wire.encode_frame(frame, number)) for number, frame in enumerate(frames)]
    order = data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=8))
    right = 0  # how many come as they should
    while right < len(order) and order[right] == right:
        right += 1
    reader = wire.FrameReader(trusting=True)
    found: list[wire.Frame] = []
    try:
        for index in order:
            found += reader.feed(whole[index])
        assert right == len(order)
    except wire.OutOfStep:
        assert right < len(order)
    assert found == frames[:right]


def test_the_count_of_frames_begins_again_at_its_end() -> None:
    reader = wire.FrameReader(trusting=True)
    reader._due = wire.NUMBERS - 1  # pyright: ignore[reportPrivateUsage]
    for number in (wire.NUMBERS - 1, 0, 1):
        assert list(reader.feed(b"".join(wire.encode_frame(wire.Beat(), number)))) == [wire.Beat()]


@pytest.mark.parametrize("error", [BadCall("b"), MailboxFull("m"), NodeError("n"), Refused("r")], ids=repr)
def test_a_refusal_comes_back_as_its_own_class(error: Exception) -> None:
    frame = failed(1, "/x", error)
    back = refusal(frame.kind, frame.text)
    assert type(back) is type(error)
    assert str(back) == str(error)


@pytest.mark.parametrize(
    "kind", ["", "os:system", "builtins:SystemExit", "no.such:Thing", "palmette.actors:Actor", ":::"]
)
def test_a_class_that_is_no_refusal_comes_back_as_a_plain_one(kind: str) -> None:
    assert type(refusal(kind, "text")) is Refused


def test_an_exception_that_is_no_refusal_is_named_in_the_text() -> None:
    frame = failed(1, "/x", ZeroDivisionError("by zero"))
    assert str(refusal(frame.kind, frame.text)) == "ZeroDivisionError: by zero"
