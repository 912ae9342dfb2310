"""Frames between controller and runner: whole whatever the stream's pieces, and rubbish is noticed, cheaply."""

from __future__ import annotations

import asyncio
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palmette.machines.backend import Place
from palmette.machines.runner import wire
from palmette.machines.runner_records import Reply, Specification
from palmette.machines.session import Session, SessionEnded

FRAMES = st.lists(
    st.tuples(st.sampled_from(sorted(wire.FROM_RUNNER)), st.integers(0, 2**32 - 1), st.binary(max_size=200)),
    max_size=20,
)


@given(FRAMES, st.randoms(use_true_random=False))
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(
    frames: list[tuple[int, int, bytes]], cuts: random.Random
) -> None:
    stream = b"".join(wire.frame(*each) for each in frames)
    decoder = wire.Decoder(wire.FROM_RUNNER)
    seen: list[tuple[int, int, bytes]] = []
    while stream:
        size = cuts.randint(1, len(stream))
        seen += decoder.feed(stream[:size])
        stream = stream[size:]
    assert seen == frames


@given(st.binary(max_size=4000))
def test_what_is_no_stream_of_frames_is_noticed_at_its_first_header(rubbish: bytes) -> None:
    decoder = wire.Decoder(wire.FROM_RUNNER)
    if len(rubbish) >= wire.HEADER.size and not rubbish.startswith(wire.MAGIC):
        with pytest.raises(wire.ProtocolError):
            decoder.feed(rubbish)


def test_a_forged_length_is_refused_before_anything_is_kept_for_it() -> None:
    header = wire.HEADER.pack(wire.MAGIC, wire.OUT, 1, wire.MAX_PAYLOAD + 1)
    with pytest.raises(wire.ProtocolError):
        wire.Decoder(wire.FROM_RUNNER).feed(header)


def test_a_frame_of_the_other_side_is_none_of_ours() -> None:
    with pytest.raises(wire.ProtocolError):
        wire.Decoder(wire.FROM_RUNNER).feed(wire.frame(wire.KILL, 1))


class Tape:
    """A channel that says what is on it, and then nothing."""

    complaint = ""

    def __init__(self) -> None:
        self.pieces: asyncio.Queue[bytes] = asyncio.Queue()
        self.written = 0

    async def read(self) -> bytes:
        return await self.pieces.get()

    async def write(self, data: bytes) -> None:
        self.written += len(data)

    async def close(self) -> None:
        return


GREETING = {"python": "3.6", "platform": "Linux", "subreaper": True, "shell": True, "left": 0, "pid": 1}
NOISE = st.one_of(
    st.binary(max_size=60),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["code", "signal", "left", "error", "failed", "names"]), inner, max_size=4
            )
        ),
        max_leaves=6,
    ).map(lambda value: json.dumps(value).encode()),
)


@given(
    st.lists(st.tuples(st.sampled_from(sorted(wire.FROM_RUNNER)), st.integers(0, 4), NOISE, st.booleans()), max_size=12)
)
def test_a_session_with_a_hostile_runner_ends_or_goes_on_and_never_breaks(
    frames: list[tuple[int, int, bytes, bool]],
) -> None:
    async def run() -> None:
        tape = Tape()
        tape.pieces.put_nowait(wire.json_frame(wire.HELLO, 0, GREETING))
        session, greeting = await Session.open(tape, b"source", "id", Place(workdir="/work"))
        assert greeting.pid == 1
        kept = 0

        def keep(stream: str, data: bytes) -> None:
            nonlocal kept
            kept += len(data)

        jobs = [session.start(Specification(argv=["x"], timeout=1.0), keep) for _ in range(2)]
        calls = [asyncio.ensure_future(session.call({"name": "list"})) for _ in range(2)]
        await asyncio.sleep(0)
        for kind, number, payload, packed in frames:
            tape.pieces.put_nowait(wire.frame(kind, number, wire.pack({}, payload) if packed else payload))
        tape.pieces.put_nowait(b"")
        async with asyncio.timeout(20):
            end = await session.ended
            assert end.forged or end.expired or "ended" in end.seen
            for job in jobs:
                try:
                    await job.ended
                except SessionEnded:
                    continue
            for outcome in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(outcome, Reply | SessionEnded)
            await session.close()
        assert kept <= sum(len(payload) + 10 for _, _, payload, _ in frames)

    asyncio.run(run())
