"""Streams: ordered, bounded, replayable; a reader that keeps up loses nothing, and one that does not is told."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import pytest
from hypothesis import given
from hypothesis import strategies as st
from program_support import root, told
from support.worlds import everywhere, here, took, turns

from palmette.actors import Actor, DeadlineExceeded, System, endpoint
from palmette.agents.programs import Dropped, Event, EventStream, StreamEnded, bubble, emit, spawn
from palmette.supervisors import Supervisor, child


def stream_of(*data: object, capacity: int = 100) -> EventStream:
    stream = EventStream(capacity=capacity)
    for one in data:
        stream.append("n", one)
    return stream


async def read(stream: EventStream) -> list[object]:
    return [event.data if isinstance(event, Event) else event async for event in stream]


@everywhere
async def test_a_reader_sees_what_was_and_what_comes_until_the_stream_is_closed() -> None:
    stream = stream_of(1, 2)
    reading = asyncio.create_task(read(stream))
    await turns()
    stream.append("n", 3)
    await turns()
    stream.append("n", 4)
    stream.close()
    assert await reading == [1, 2, 3, 4]
    assert await read(stream) == [1, 2, 3, 4]


@everywhere
async def test_readers_do_not_disturb_each_other() -> None:
    stream = stream_of(1)
    readings = [asyncio.create_task(read(stream)) for _ in range(3)]
    await turns()
    readings[0].cancel()
    stream.append("n", 2)
    stream.close()
    assert [await each for each in readings[1:]] == [[1, 2], [1, 2]]


def test_events_are_numbered_from_one_without_gaps() -> None:
    assert [e.number for e in stream_of("a", "b", "c").snapshot() if isinstance(e, Event)] == [1, 2, 3]


def test_what_is_told_after_the_end_is_ignored() -> None:
    stream = stream_of(1)
    stream.close()
    stream.close()
    assert stream.append("n", 2) is None
    assert told(stream) == [("n", 1)]
    assert stream.closed


@everywhere
async def test_a_reader_may_begin_after_a_number() -> None:
    stream = stream_of("a", "b", "c")
    stream.close()
    assert [event.data async for event in stream.read(after=2) if isinstance(event, Event)] == ["c"]


@everywhere
async def test_a_reader_that_comes_too_late_is_told_how_much_it_missed() -> None:
    stream = stream_of(*range(10), capacity=4)
    stream.close()
    assert await read(stream) == [Dropped(6), 6, 7, 8, 9]
    assert len(stream) == 10


@everywhere
async def test_a_reader_that_falls_behind_is_told_and_goes_on() -> None:
    stream = stream_of(0, capacity=2)
    reader = stream.read()
    assert (await anext(reader)) == Event(1, "n", 0)
    for n in range(1, 6):
        stream.append("n", n)
    stream.close()
    assert [event async for event in reader] == [Dropped(3), Event(5, "n", 4), Event(6, "n", 5)]


@pytest.mark.worlds("real", "simulated", drawn=True)
@given(st.integers(1, 5), st.lists(st.sampled_from(["append", "read"]), max_size=40))
def test_whatever_the_order_every_event_is_seen_once_or_counted_as_dropped(capacity: int, steps: list[str]) -> None:
    @here()
    async def play() -> None:
        stream, written, seen = EventStream(capacity=capacity), 0, 0
        reader = stream.read()
        for step in steps:
            if step == "append":
                stream.append("n", written)
                written += 1
            elif seen < written:
                entry = await anext(reader)
                behind = written - seen
                if behind > capacity:
                    assert entry == Dropped(behind - capacity)
                    seen += behind - capacity
                else:
                    assert isinstance(entry, Event)
                    assert entry.data == seen
                    seen += 1
        stream.close()
        async for entry in reader:
            seen += entry.count if isinstance(entry, Dropped) else 1
        assert seen == written

    play()


# --- waiting for one event ----------------------------------------------------------------------------------------


@everywhere
async def test_wait_for_finds_what_has_happened_already() -> None:
    stream = stream_of(1, 2)
    stream.append("other", 3)
    assert (await stream.wait_for("other")).data == 3
    assert (await stream.wait_for(where=lambda event: event.data == 2)).number == 2


@everywhere
async def test_wait_for_without_replay_skips_what_has_happened() -> None:
    stream = stream_of(1)
    waiting = asyncio.create_task(stream.wait_for("n", replay=False))
    await turns()
    assert not waiting.done()
    stream.append("n", 2)
    assert (await waiting).data == 2


@everywhere
async def test_wait_for_sees_an_event_that_comes_between_the_call_and_its_await() -> None:
    """There this failed: the place was taken only when the wait had begun."""
    stream = stream_of(1)
    waiting: Coroutine[object, object, Event] = stream.wait_for("n", replay=False)
    stream.append("n", 2)
    assert (await waiting).data == 2


@everywhere
async def test_wait_for_has_a_deadline_and_says_what_came_instead() -> None:
    with pytest.raises(DeadlineExceeded, match="'x' did not come within 3 s; the last events are: n, n"):
        await stream_of(1, 2).wait_for("x", timeout=3.0)
    assert took(3.0)


@everywhere
async def test_wait_for_ends_with_the_stream() -> None:
    stream = stream_of(1)
    waiting = asyncio.create_task(stream.wait_for("x"))
    await turns()
    stream.close()
    with pytest.raises(StreamEnded, match="'x' will not come any more"):
        await waiting


# --- mailboxes ----------------------------------------------------------------------------------------------------


class Observer(Actor):
    def __init__(self) -> None:
        self.seen: list[object] = []

    async def receive(self, message: object) -> None:
        assert isinstance(message, Event)
        self.seen.append(message.data)

    @endpoint
    async def all(self) -> list[object]:
        return self.seen


@everywhere
async def test_an_actor_is_sent_what_was_and_what_comes_until_it_wants_no_more() -> None:
    async with System.start(Supervisor.spec(children=[child(Observer, name="observer")])) as system:
        observer = system.whereis("observer", Observer)
        stream = stream_of(1)
        end = stream.send_to(observer)
        stream.append("n", 2)
        end()
        end()
        stream.append("n", 3)
        assert await observer.call(Observer.all) == [1, 2]
        stream.send_to(observer, replay=False)
        stream.append("n", 4)
        assert await observer.call(Observer.all) == [1, 2, 4]


# --- bubbling -----------------------------------------------------------------------------------------------------


@root
async def child_program(word: object) -> object:
    emit("word", word)
    return word


@everywhere
async def test_bubble_without_a_source_passes_on_all_that_a_child_tells() -> None:
    @root
    async def middle() -> None:
        handle = spawn(child_program, {"a": [1]})
        bubble(handle)
        await handle.result()

    @root
    async def main() -> None:
        handle = spawn(middle)
        await handle.result()
        assert told(handle.events) == [("word", {"a": [1]}), ("done", {"a": [1]}), ("done", None)]
        assert [e.source for e in handle.events.snapshot() if isinstance(e, Event)] == [None, None, None]

    await main()


@everywhere
async def test_bubble_marks_the_source_and_the_deepest_mark_stays() -> None:
    @root
    async def middle() -> None:
        handle = spawn(child_program, 1)
        await handle.result()
        bubble(handle, source="leaf")
        emit("own")

    @root
    async def main() -> None:
        handle = spawn(middle)
        top = EventStream()
        handle.events.copy_to(top, source="middle")
        await handle.result()
        sources = [(e.type, e.source) for e in top.snapshot() if isinstance(e, Event)]
        assert sources == [("word", "leaf"), ("done", "leaf"), ("own", "middle"), ("done", "middle")]

    await main()


@everywhere
async def test_several_children_bubble_under_their_own_names() -> None:
    @root
    async def main() -> None:
        handles = [spawn(child_program, n) for n in range(3)]
        top = EventStream()
        for n, handle in enumerate(handles):
            handle.events.copy_to(top, source=f"child {n}")
        for handle in handles:
            await handle.result()
        for n in range(3):
            mine = [(e.type, e.data) for e in top.snapshot() if isinstance(e, Event) and e.source == f"child {n}"]
            assert mine == [("word", n), ("done", n)]

    await main()


def test_a_bubble_ends_when_it_is_told_to_and_twice_is_fine() -> None:
    below, above = stream_of(1), EventStream()
    end = below.copy_to(above)
    below.append("n", 2)
    end()
    end()
    below.append("n", 3)
    assert told(above) == [("n", 1), ("n", 2)]


def test_a_bubble_that_begins_late_tells_of_what_was_forgotten() -> None:
    above = EventStream()
    stream_of(1, 2, 3, capacity=1).copy_to(above)
    assert told(above) == [("dropped", 2), ("n", 3)]


def test_streams_are_not_copied_in_a_circle() -> None:
    first, second, third = EventStream(), EventStream(), EventStream()
    first.copy_to(second)
    second.copy_to(third)
    with pytest.raises(ValueError, match="go round for ever"):
        third.copy_to(first)


def test_a_stream_keeps_at_least_one_event() -> None:
    with pytest.raises(ValueError, match="capacity=0"):
        EventStream(capacity=0)
