"""The react loop with the model's own tool calls."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.listening import Listening
from support.virtual_time import run_virtually

from palmette.agents import Completion, Message, ScriptedSession, ToolCall, ToolFailed, Transcript, Turn, react, tool
from palmette.agents.conversation import Tokens, Usage


def calls(*wanted: tuple[str, str]) -> Completion:
    """A reply that calls tools: (name, arguments)."""
    return Completion(
        message=Message(
            role="assistant",
            content="",
            tool_calls=tuple(
                ToolCall(id=f"c{at}", name=name, arguments=text) for at, (name, text) in enumerate(wanted)
            ),
        ),
        stop="tool_calls",
    )


async def add(x: int, y: int) -> int:
    return x + y


async def open_file(path: str) -> str:
    raise ToolFailed(f"no file {path!r}; there is a.txt")


def results(transcript: Transcript, turn: int) -> list[str]:
    return [message.content for message in transcript.turns[turn].heard]


async def test_a_reply_without_calls_is_the_answer() -> None:
    transcript = await react("6 * 7?", ScriptedSession(["42"]), system_prompt="Be brief.")
    assert (transcript.answer, transcript.stop, transcript.reason) == ("42", "answered", "")
    (turn,) = transcript.turns
    assert turn.heard == (Message(role="system", content="Be brief."), Message(role="user", content="6 * 7?"))
    assert turn.said == Message(role="assistant", content="42")


async def test_a_model_that_says_nothing_has_answered_nothing() -> None:
    assert (await react("?", ScriptedSession([]))).answer == ""


async def test_tools_run_and_the_model_hears_their_results() -> None:
    session = Listening(calls(("add", '{"x": 1, "y": 2}')), "three")
    transcript = await react("1 + 2?", session, [tool(add)])
    assert transcript.answer == "three"
    assert transcript.turns[1].heard == (Message(role="tool", content="3", tool_call_id="c0"),)
    assert session.tools == [["add"], ["add"]]
    assert [message.role for message in session.heard[1]] == ["user", "assistant", "tool"]


@given(st.lists(st.integers(0, 3), max_size=5))
async def test_the_turns_put_together_are_what_the_model_heard(sizes: list[int]) -> None:
    session = Listening(*(calls(*[("add", '{"x": 1, "y": 2}')] * (size + 1)) for size in sizes), "end")
    told: list[Turn] = []
    transcript = await react("go", session, [tool(add)], on_turn=told.append)
    assert told == list(transcript.turns)
    assert [turn.index for turn in told] == list(range(len(sizes) + 1))
    conversation: list[Message] = []
    for turn, heard in zip(transcript.turns, session.heard, strict=True):
        conversation += turn.heard
        assert conversation == heard
        conversation.append(turn.said)


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("add", '{"x": "one", "y": 2}', "bad arguments for add: expected `int`, got `str` - at `$.x`"),
        ("add", '{"x": 1, ', "bad arguments for add: input data was truncated"),
        ("sub", "{}", "there is no tool 'sub'; the tools are: add, open_file"),
        ("open_file", '{"path": "b"}', "no file 'b'; there is a.txt"),
    ],
)
async def test_what_the_model_did_wrong_comes_back_as_the_result(name: str, arguments: str, told: str) -> None:
    session = ScriptedSession([calls((name, arguments)), "sorry"])
    transcript = await react("go", session, [tool(add), tool(open_file)])
    assert transcript.answer == "sorry"
    assert results(transcript, 1)[0].startswith(told)


async def test_a_call_without_any_tools_is_told_so() -> None:
    transcript = await react("go", ScriptedSession([calls(("x", "{}")), "ok"]))
    assert results(transcript, 1) == ["there is no tool 'x'; the tools are: none"]


def test_calls_of_one_reply_run_together_and_keep_their_order() -> None:
    ended: list[float] = []

    async def nap(seconds: float) -> str:
        await asyncio.sleep(seconds)
        ended.append(seconds)
        return f"slept {seconds:g}"

    async def scene() -> float:
        session = ScriptedSession([calls(*(("nap", f'{{"seconds": {seconds}}}') for seconds in (3, 1, 2))), "rested"])
        transcript = await react("rest", session, [tool(nap)])
        assert results(transcript, 1) == ["slept 3", "slept 1", "slept 2"]
        return asyncio.get_running_loop().time()

    assert run_virtually(scene()) == 3
    assert ended == [1, 2, 3]


async def test_a_crash_in_a_tool_crashes_the_agent_and_stops_the_other_calls() -> None:
    stopped = asyncio.Event()
    began = asyncio.Event()

    async def forever() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async def crash() -> None:
        await began.wait()
        try:
            raise KeyError("inner")
        except KeyError:
            raise ZeroDivisionError("boom")  # noqa: B904 (the implicit context has to survive)

    session = ScriptedSession([calls(("forever", ""), ("crash", ""))])
    with pytest.raises(ZeroDivisionError, match="boom") as caught:
        await react("go", session, [tool(forever), tool(crash)])
    assert stopped.is_set()
    assert isinstance(caught.value.__context__, KeyError)


async def test_the_second_crash_of_a_turn_is_a_note_on_the_first() -> None:
    async def crash(name: str) -> None:
        raise RuntimeError(name)

    session = ScriptedSession([calls(("crash", '{"name": "one"}'), ("crash", '{"name": "two"}'))])
    with pytest.raises(RuntimeError, match="one") as caught:
        await react("go", session, [tool(crash)])
    assert caught.value.__notes__ == ["another tool crashed in the same turn: RuntimeError: two"]


async def test_a_tool_that_cancels_itself_is_a_crash_and_no_cancellation() -> None:
    async def quit_early() -> None:
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match="tool 'quit_early' cancelled itself"):
        await react("go", ScriptedSession([calls(("quit_early", ""))]), [tool(quit_early)])


async def test_cancelling_the_agent_cancels_its_tools() -> None:
    began, stopped = asyncio.Event(), asyncio.Event()

    async def forever() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    agent = asyncio.create_task(react("go", ScriptedSession([calls(("forever", ""))]), [tool(forever)]))
    await began.wait()
    agent.cancel()
    with pytest.raises(asyncio.CancelledError):
        await agent
    assert stopped.is_set()


async def test_an_error_of_the_model_is_passed_on() -> None:
    with pytest.raises(ConnectionError, match="gone"):
        await react("go", ScriptedSession([ConnectionError("gone")]))


async def test_each_turn_is_told_before_its_tools_run_and_waited_for() -> None:
    events: list[str] = []

    async def note() -> None:
        events.append("tool")

    async def told(turn: Turn) -> None:
        await asyncio.sleep(0)
        events.append(f"turn {turn.index}")

    await react("go", ScriptedSession([calls(("note", "")), "end"]), [tool(note)], on_turn=told)
    assert events == ["turn 0", "tool", "turn 1"]


async def test_usage_and_tokens_are_kept_as_they_came() -> None:
    tokens = Tokens(prompt_ids=(1, 2), output_ids=(3,), logprobs=(-0.5,), policy_version=7)
    usage = Usage(input_tokens=2, output_tokens=1)
    said = Message(role="assistant", content="x")
    transcript = await react("go", ScriptedSession([Completion(message=said, usage=usage, tokens=tokens)]))
    assert (transcript.turns[0].tokens, transcript.turns[0].usage) == (tokens, usage)


async def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two tools share a name: add, add"):
        await react("go", ScriptedSession([]), [tool(add), tool(add)])
