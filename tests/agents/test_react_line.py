"""The react loop with one-line commands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.listening import Listening

from palmette.agents import Message, ScriptedSession, ToolFailed, Transcript, react, tool
from palmette.agents.conversation import Completion

TRAIL = {"3": "goto 7", "7": "goto 1", "1": "code 4"}


async def read(name: str) -> str:
    if name not in TRAIL:
        raise ToolFailed("oops 1")
    return TRAIL[name]


def heard(transcript: Transcript) -> list[str]:
    return [message.content for turn in transcript.turns for message in turn.heard]


async def test_a_trail_is_followed_to_its_end() -> None:
    session = ScriptedSession(["read 3", "read 7", "read 1", "done 4"])
    transcript = await react("find 3", session, [tool(read)], dialect="line", turns=5)
    assert (transcript.answer, transcript.stop) == ("4", "answered")
    assert heard(transcript) == ["find 3", "goto 7", "goto 1", "code 4"]
    assert transcript.turns[1].heard == (Message(role="tool", content="goto 7"),)
    assert transcript.turns[1].said == Message(role="assistant", content="read 7")


async def test_an_unreadable_reply_gets_six_characters_and_the_loop_goes_on() -> None:
    session = ScriptedSession(["raed 3", "read", "read 9", "", "done 4"])
    transcript = await react("find 3", session, [tool(read)], dialect="line")
    assert heard(transcript) == ["find 3", "oops 0", "oops 0", "oops 1", "oops 0"]
    assert transcript.answer == "4"


async def test_what_is_said_to_the_unreadable_can_be_chosen() -> None:
    transcript = await react("x", ScriptedSession(["?", "done 1"]), dialect="line", oops="say `done X`")
    assert heard(transcript) == ["x", "say `done X`"]


@given(st.lists(st.sampled_from(["read 3", "read 7", "read", "nonsense"]), min_size=5))
async def test_the_tasks_allowance_ends_the_loop_without_truncating_it(replies: list[str]) -> None:
    transcript = await react("find 3", ScriptedSession(replies), [tool(read)], dialect="line", turns=5)
    assert (transcript.answer, transcript.stop, transcript.reason) == (None, "turns", "5 turns")
    assert len(transcript.turns) == 5


async def test_the_last_allowed_reply_still_runs_its_tool() -> None:
    written: list[str] = []

    async def write(text: str) -> str:
        written.append(text)
        return "ok"

    transcript = await react("write", ScriptedSession(["write a", "write b"]), [tool(write)], dialect="line", turns=2)
    assert (transcript.stop, written) == ("turns", ["a", "b"])


async def test_an_answer_in_the_last_allowed_turn_counts() -> None:
    transcript = await react("x", ScriptedSession(["done 1"]), dialect="line", turns=1)
    assert (transcript.stop, transcript.answer) == ("answered", "1")


async def test_a_reply_that_was_cut_is_read_as_it_stands() -> None:
    cut = Completion(message=Message(role="assistant", content="read 3"), stop="length")
    transcript = await react("find 3", ScriptedSession([cut, "done 4"]), [tool(read)], dialect="line")
    assert heard(transcript) == ["find 3", "goto 7"]


async def test_a_crash_in_a_tool_crashes_the_agent() -> None:
    async def crash(name: str) -> str:
        raise ZeroDivisionError(name)

    with pytest.raises(ZeroDivisionError):
        await react("x", ScriptedSession(["crash 1"]), [tool(crash)], dialect="line")


async def test_the_model_is_not_told_of_native_tools() -> None:
    session = Listening("done 1")
    await react("x", session, [tool(read)], dialect="line")
    assert session.tools == [[]]


async def test_a_tool_that_no_line_can_call_is_refused_at_the_start() -> None:
    async def add(x: int) -> int:
        return x

    with pytest.raises(ValueError, match="tool 'add' cannot be called by a line"):
        await react("x", ScriptedSession([]), [tool(add)], dialect="line")


async def test_a_task_without_turns_is_refused() -> None:
    with pytest.raises(ValueError, match="got turns=0"):
        await react("x", ScriptedSession([]), turns=0)
