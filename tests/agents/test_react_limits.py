"""The harness's limits truncate, and nothing waits without a deadline. Minutes pass here in no time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from support.virtual_time import run_virtually

from palmette.agents import (
    Completion,
    ContextFull,
    Message,
    ModelUnavailable,
    ReactLimits,
    ScriptedSession,
    ToolCall,
    ToolSchema,
    Transcript,
    Usage,
    react,
    tool,
)


class Slow:
    """A model that thinks for ``seconds``, keeps its deadline like a real one, and remembers ``max_tokens``."""

    def __init__(self, seconds: float, text: str = "look", *, tokens: int = 0) -> None:
        self.seconds = seconds
        self.reply = Completion(message=Message(role="assistant", content=text), usage=Usage(output_tokens=tokens))
        self.asked_for: list[int | None] = []

    async def complete(
        self,
        conversation: Sequence[Message],
        *,
        tools: Sequence[ToolSchema] = (),
        max_tokens: int | None = None,
        timeout: float,
    ) -> Completion:
        self.asked_for.append(max_tokens)
        try:
            async with asyncio.timeout(timeout):
                await asyncio.sleep(self.seconds)
        except TimeoutError:
            raise ModelUnavailable(f"no answer within {timeout:g} s") from None
        return self.reply


async def look() -> str:
    return "nothing"


async def hang() -> str:
    await asyncio.Event().wait()
    return "never"


def call(*names: str) -> Completion:
    calls = tuple(ToolCall(id=f"c{at}", name=name, arguments="{}") for at, name in enumerate(names))
    return Completion(message=Message(role="assistant", content="", tool_calls=calls), stop="tool_calls")


def truncated(transcript: Transcript, reason: str, *, turns: int) -> bool:
    assert (transcript.answer, transcript.stop, transcript.reason) == (None, "truncated", reason)
    assert len(transcript.turns) == turns
    return True


def test_the_time_limit_cuts_a_thinking_model() -> None:
    async def scene() -> float:
        transcript = await react("x", Slow(40), [tool(look)], dialect="line", limits=ReactLimits(seconds=100))
        assert truncated(transcript, "seconds: 100", turns=2)
        assert [turn.seconds for turn in transcript.turns] == [40, 40]
        return asyncio.get_running_loop().time()

    assert run_virtually(scene()) == 100


def test_the_time_limit_cuts_a_hanging_tool() -> None:
    async def scene() -> float:
        limits = ReactLimits(seconds=100, tool_seconds=1000)
        transcript = await react("x", ScriptedSession([call("hang")]), [tool(hang)], limits=limits)
        assert truncated(transcript, "seconds: 100", turns=1)
        return asyncio.get_running_loop().time()

    assert run_virtually(scene()) == 100


def test_the_time_limit_cuts_a_loop_that_never_waits() -> None:
    async def busy(turn: object) -> None:
        await asyncio.sleep(60)  # the journal is slow; it is waited for all the same

    async def scene() -> None:
        limits = ReactLimits(seconds=100)
        transcript = await react("x", ScriptedSession([]), dialect="line", limits=limits, on_turn=busy)
        assert truncated(transcript, "seconds: 100", turns=2)

    run_virtually(scene())


def test_a_model_that_misses_its_own_deadline_is_unavailable_and_nothing_is_truncated() -> None:
    async def scene() -> None:
        with pytest.raises(ModelUnavailable, match="no answer within 30 s"):
            await react("x", Slow(1000), limits=ReactLimits(seconds=100, reply_seconds=30))
        assert asyncio.get_running_loop().time() == 30

    run_virtually(scene())


def test_each_call_has_its_own_deadline_and_the_model_is_told() -> None:
    async def scene() -> float:
        session = ScriptedSession([call("hang", "look"), "fine"])
        transcript = await react("x", session, [tool(hang), tool(look)], limits=ReactLimits(tool_seconds=20))
        assert transcript.answer == "fine"
        assert [message.content for message in transcript.turns[1].heard] == [
            "hang did not finish within 20 s and was stopped",
            "nothing",
        ]
        return asyncio.get_running_loop().time()

    assert run_virtually(scene()) == 20


def test_a_timeout_of_the_tools_own_is_a_crash() -> None:
    async def impatient() -> None:
        async with asyncio.timeout(5):
            await asyncio.Event().wait()

    async def scene() -> None:
        with pytest.raises(TimeoutError):
            await react("x", ScriptedSession([call("impatient")]), [tool(impatient)])
        assert asyncio.get_running_loop().time() == 5

    run_virtually(scene())


async def test_the_harnesss_turns_truncate() -> None:
    limits = ReactLimits(max_turns=3)
    transcript = await react("x", ScriptedSession([]), dialect="line", limits=limits)
    assert truncated(transcript, "max_turns: 3", turns=3)


async def test_where_both_allowances_end_at_once_the_tasks_comes_first() -> None:
    transcript = await react("x", ScriptedSession([]), dialect="line", turns=3, limits=ReactLimits(max_turns=3))
    assert transcript.stop == "turns"


async def test_output_tokens_are_a_budget_for_all_replies() -> None:
    model = Slow(0, tokens=40)
    limits = ReactLimits(max_output_tokens=100, reply_tokens=50)
    transcript = await react("x", model, [tool(look)], dialect="line", limits=limits)
    assert truncated(transcript, "max_output_tokens: 100", turns=3)
    assert model.asked_for == [50, 50, 20]


async def test_a_native_reply_that_was_cut_is_no_answer() -> None:
    cut = Completion(message=Message(role="assistant", content="The ans"), stop="length", usage=Usage(output_tokens=9))
    transcript = await react("x", ScriptedSession([cut]), limits=ReactLimits(reply_tokens=9))
    assert truncated(transcript, "reply_tokens: the reply was cut after 9 tokens", turns=1)


async def test_a_full_context_window_truncates() -> None:
    transcript = await react("x", ScriptedSession([call("look"), ContextFull("too long")]), [tool(look)])
    assert truncated(transcript, "context window: too long", turns=1)


@pytest.mark.parametrize("name", ["max_turns", "seconds", "reply_tokens", "tool_seconds", "max_output_tokens"])
def test_a_limit_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be greater than 0, got 0"):
        ReactLimits(**{name: 0})
