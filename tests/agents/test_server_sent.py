"""Streams of events, however they are cut into pieces."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palmette.agents import ModelUnavailable, server_sent
from palmette.agents.openai_stream import ChatStream
from palmette.agents.server_sent import EventReader


@given(
    texts=st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), min_size=1), max_size=5),
    cuts=st.lists(st.integers(0, 200), max_size=8),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_events_do_not_depend_on_where_a_stream_is_cut(texts: list[str], cuts: list[int], end: str) -> None:
    stream = "".join(f": comment{end}data: {text}{end}{end}" for text in texts).encode()
    reader, at = EventReader(), 0
    seen: list[str] = []
    for cut in [*sorted(cuts), len(stream)]:
        seen += reader.feed(stream[at:cut])
        at = max(at, cut)
    assert seen == texts


def test_data_of_several_lines_is_one_event() -> None:
    assert EventReader().feed(b"event: x\ndata: a\ndata:b\nid: 7\n\n") == ["a\nb"]


def test_a_line_without_an_end_is_no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_sent, "MAX_EVENT", 10)
    with pytest.raises(ModelUnavailable, match="longer than 10 bytes"):
        EventReader().feed(b"data: " + b"x" * 20)


@given(cuts=st.lists(st.integers(0, 12), min_size=1, max_size=6))
def test_arguments_of_a_tool_call_are_put_together_again(cuts: list[int]) -> None:
    arguments, stream, at = '{"path":"a"}', ChatStream(), 0
    for cut in [*sorted(cuts), len(arguments)]:
        piece = {"index": 0, "function": {"arguments": arguments[at:cut]}}
        stream.add(msgspec.json.encode({"choices": [{"delta": {"tool_calls": [piece]}}]}).decode())
        at = max(at, cut)
    (call,) = stream.response().choices[0].message.tool_calls or []
    assert call.function.arguments == arguments
