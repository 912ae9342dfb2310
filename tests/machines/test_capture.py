"""Head and tail of a stream, whatever way it was cut into chunks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palmette.machines.capture import Capture


@given(st.lists(st.binary(max_size=40), max_size=30), st.integers(0, 60))
def test_what_is_kept_is_the_beginning_and_the_end_and_the_rest_is_counted(chunks: list[bytes], limit: int) -> None:
    capture = Capture(limit)
    for chunk in chunks:
        capture.feed(chunk)
    whole = b"".join(chunks)
    kept = capture.value()
    assert len(kept) == min(limit, len(whole))
    assert capture.left_out == len(whole) - len(kept)
    head = min(limit // 2, len(whole))
    assert kept[:head] == whole[:head]
    assert kept[head:] == whole[len(whole) - (len(kept) - head) :]


def test_memory_does_not_grow_with_the_stream() -> None:
    capture = Capture(100)
    sizes: set[bool] = set()
    for _ in range(10_000):
        capture.feed(b"x" * 37)
        sizes.add(len(capture._tail) <= 2 * 50 + 37)  # pyright: ignore[reportPrivateUsage]
    assert sizes == {True}
    assert capture.left_out == 370_000 - 100


def test_a_negative_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        Capture(-1)
