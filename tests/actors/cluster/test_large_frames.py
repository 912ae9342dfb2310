"""Large frames beside small ones: all arrive, in order for each addressee, however the stream is cut."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palmette.actors import Normal, outbox, wire
from palmette.actors.outbox import Outbox
from palmette.actors.starting import StartOptions
from palmette.actors.window import LEAST, MOST, Window

LARGE, PIECE, MAX_FRAME = 60, 16, 400


@pytest.fixture(autouse=True, scope="module")
def _small_sizes() -> Iterator[None]:
    """The same with less to carry about."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox, "LARGE", LARGE)
        patch.setattr(outbox, "PIECE", PIECE)
        patch.setattr(wire, "MAX_FRAME", MAX_FRAME)
        yield


PAYLOADS = st.integers(0, 250).map(bytes)
PATHS = st.sampled_from(["/a", "/b", "/c"])
STEPS = st.lists(
    st.one_of(
        st.builds(wire.Cast, PATHS, st.just("e"), PAYLOADS),
        st.builds(wire.Send, PATHS, st.just("m:S"), PAYLOADS),
        st.builds(wire.Stop, PATHS, st.just(Normal())),
        st.builds(wire.Reply, st.integers(1, 9), PAYLOADS),
        st.builds(wire.Fell, st.integers(1, 9), st.just(Normal())),
        st.builds(wire.ExitSignal, PATHS, st.just("/x"), st.just(Normal()), st.integers(1, 9), st.booleans()),
        st.builds(wire.Ended, PATHS, st.just(Normal())),
        st.builds(wire.Logged, st.just("l"), st.just(1), st.integers(0, 100).map("x".__mul__), st.just(1.0)),
        st.just(wire.Beat()),
        st.integers(0, 5),  # take so many pieces
    ),
    max_size=40,
)
NEWS = (wire.Fell, wire.Ended, wire.NotStarted, wire.ExitSignal)


def carried(steps: list[wire.Frame | int]) -> tuple[list[wire.Frame], bytes]:
    """What was put, in order, and the stream that came of it."""
    box, put, stream = Outbox(), list[wire.Frame](), b""
    for step in steps:
        if isinstance(step, int):
            stream += box.take(step)[0]
        else:
            box.put(step)
            put.append(step)
    while not box.is_empty:
        stream += box.take(1)[0]
    assert box.size == 0
    return put, stream


def read(stream: bytes, cuts: list[int]) -> list[wire.Frame]:
    reader, found = wire.FrameReader(trusting=True), list[wire.Frame]()
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += reader.feed(stream[start:end])
    assert not reader._partial  # pyright: ignore[reportPrivateUsage]
    return found


@given(STEPS, st.data())
@settings(max_examples=300)
def test_all_frames_arrive_complete_and_in_order_for_each_addressee(
    steps: list[wire.Frame | int], data: st.DataObject
) -> None:
    put, stream = carried(steps)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    found = read(stream, cuts)
    # The same object put twice is two frames: they are told apart by counting.
    assert sorted(map(repr, map(wire.encode_body, found))) == sorted(map(repr, map(wire.encode_body, put)))
    for path in ("/a", "/b", "/c"):

        def to(frames: list[wire.Frame], path: str = path) -> list[wire.Frame]:
            return [frame for frame in frames if not isinstance(frame, NEWS) and getattr(frame, "path", None) == path]

        assert to(found) == to(put)
    for number in range(1, 10):

        def about(frames: list[wire.Frame], number: int = number) -> list[wire.Frame]:
            return [frame for frame in frames if isinstance(frame, wire.Reply) and frame.id == number]

        assert about(found) == about(put)


@given(STEPS)
@settings(max_examples=300)
def test_news_of_an_end_comes_after_all_that_was_there_before_it(steps: list[wire.Frame | int]) -> None:
    marked: list[wire.Frame | int] = [
        wire.Fell(100 + at, Normal()) if isinstance(step, NEWS) else step for at, step in enumerate(steps)
    ]
    put, stream = carried(marked)
    found = read(stream, [])
    for at, frame in enumerate(put):
        if isinstance(frame, wire.Fell):
            before = found[: found.index(frame)]
            for earlier in put[:at]:
                assert earlier in before


@given(STEPS)
def test_what_small_frames_wait_for_is_never_more_than_what_was_taken(steps: list[wire.Frame | int]) -> None:
    """A beat goes with the very next bytes, whatever else there is."""
    box = Outbox()
    for step in steps:
        if not isinstance(step, int):
            box.put(step)
    ready = len(box.take(0)[0])
    box.put(wire.Beat())
    data, pieces = box.take(3)
    assert wire.encode_body(wire.Beat()) in data[: wire.HEADER.size + len(wire.encode_body(wire.Beat()))]
    assert ready >= 0
    assert pieces <= 3


def test_large_frames_to_several_addressees_take_turns() -> None:
    box = Outbox()
    box.put(wire.Cast("/a", "e", bytes(300)))
    box.put(wire.Cast("/b", "e", bytes(61)))
    found = read(drained(box), [])
    assert [frame.path for frame in found if isinstance(frame, wire.Cast)] == ["/b", "/a"]


def test_what_is_behind_a_large_frame_to_the_same_addressee_waits_and_nobody_else() -> None:
    box = Outbox()
    box.put(wire.Cast("/a", "first", bytes(300)))
    for path in ("/a", "/b"):
        box.put(wire.Cast(path, "second", b""))
    found = read(drained(box), [])
    assert [(frame.path, frame.endpoint) for frame in found if isinstance(frame, wire.Cast)] == [
        ("/b", "second"),
        ("/a", "first"),
        ("/a", "second"),
    ]


def test_what_is_under_way_stays_below_the_limit_and_nobody_is_passed_for_ever() -> None:
    box = Outbox()
    for path in ("/a", "/b", "/c"):
        box.put(wire.Cast(path, "e", bytes(300 if path != "/c" else 70)))
    found = read(drained(box), [])  # the reader refuses more than the limit
    assert [frame.path for frame in found if isinstance(frame, wire.Cast)] == ["/a", "/c", "/b"]


def test_nothing_overtakes_the_order_to_start_an_actor() -> None:
    box = Outbox()
    frames = [
        wire.StartActor("/a", 1, "m:C", bytes(100), StartOptions()),
        wire.Cast("/a", "e", b""),
        wire.Cast("/a/below", "e", b""),
        wire.Stop("/a", Normal()),
    ]
    for frame in [*frames, wire.Beat()]:
        box.put(frame)
    assert read(drained(box), []) == [wire.Beat(), *frames]


def drained(box: Outbox) -> bytes:
    stream = b""
    while not box.is_empty:
        stream += box.take(1)[0]
    return stream


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (wire.STREAM.pack(1), "nothing in it"),
        (b"", "nothing in it"),
        (wire.STREAM.pack(1) + bytes(MAX_FRAME + 1), "more than"),
    ],
)
def test_a_piece_that_cannot_be_is_refused(body: bytes, complaint: str) -> None:
    for mark in (wire.PIECE_MARK, wire.LAST_MARK):
        reader = wire.FrameReader(trusting=True)
        with pytest.raises(ValueError, match=complaint):
            list(reader.feed(wire.HEADER.pack(len(body) | mark, 0) + body))


def test_a_piece_from_a_stranger_is_refused_before_it_is_there() -> None:
    reader = wire.FrameReader(trusting=False)
    with pytest.raises(ValueError, match="more than"):
        list(reader.feed(wire.HEADER.pack(10 | wire.PIECE_MARK, 0)))


def test_a_piece_that_is_missing_ends_the_stream() -> None:
    box = Outbox()
    box.put(wire.Cast("/a", "e", bytes(300)))
    first, second, third = (box.take(1)[0] for _ in range(3))
    reader = wire.FrameReader(trusting=True)
    assert list(reader.feed(first)) == []
    with pytest.raises(wire.OutOfStep):
        list(reader.feed(third + second))


# --- how much is under way -------------------------------------------------------------------------------------------


def simulate(latency: float, service: float, pieces: int) -> tuple[float, int]:
    """Send ``pieces`` through a bottleneck that takes ``service`` seconds for each; seconds in all, and the window."""
    window, now, free, under_way, left, done = Window(), 0.0, 0.0, list[float](), pieces, 0
    while done < pieces:
        while left and window.room():
            window.sent(1, now)
            free = max(free, now) + service
            under_way.append(free + latency)
            left -= 1
        now = under_way.pop(0)
        window.taken(1, now)
        done += 1
    return now, window.size


@pytest.mark.parametrize(("latency", "service"), [(1e-4, 1e-4), (1e-3, 1e-4), (0.02, 1e-4), (0.1, 1e-3)])
def test_the_window_fills_the_path_and_does_not_queue(latency: float, service: float) -> None:
    seconds, size = simulate(latency, service, 20_000)
    assert 20_000 * service / seconds > 0.5
    # What is beyond that many would only wait.
    assert size <= 3 * (latency + service) / service + LEAST


def test_the_window_has_bounds() -> None:
    assert simulate(10.0, 1e-6, 20_000)[1] <= MOST
    assert simulate(1e-9, 1.0, 100)[1] >= LEAST


@pytest.mark.parametrize("pieces", [0, -1, 3])
def test_nobody_has_taken_in_more_than_there_was(pieces: int) -> None:
    window = Window()
    window.sent(2, 0.0)
    with pytest.raises(ValueError, match="under way"):
        window.taken(pieces, 1.0)
