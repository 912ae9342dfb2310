"""Token truth: what a session reports is what was sampled, and it is never tokenised again."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest

from palmette.agents.conversation import Completion, Message
from palmette.agents.errors import ContextFull, ModelRefused, ModelUnavailable
from palmette.trainers.batching import BatcherClosed, EngineCrashed, QueueFull
from palmette.trainers.engine import PolicyEngine
from palmette.trainers.sampling import BadRequest, Generate, Sample, SampleRequest, WindowExceeded
from palmette.trainers.session import PolicyClient
from palmette.trainers.tokenizer import Codec, byte_tokenizer

CODEC = Codec(byte_tokenizer())
USER = Message(role="user", content="find 3")


def tool(content: str) -> Message:
    return Message(role="tool", content=content)


def saying(*texts: str, closed: bool = True) -> tuple[Generate, list[SampleRequest]]:
    """A policy that says these texts, and the requests that it got."""
    asked: list[SampleRequest] = []

    async def generate(request: SampleRequest) -> Sample:
        output = CODEC.encode(texts[len(asked)]) + ((CODEC.eos_id,) if closed else ())
        asked.append(request)
        return Sample(
            output_ids=output,
            logprobs=(-0.5,) * len(output),
            stop="stop" if closed else "length",
            policy_version=len(asked),
        )

    return generate, asked


async def converse(client: PolicyClient, *, seed: int = 0, turns: int = 3) -> list[Completion]:
    session = client.session("task", seed=seed)
    conversation = [USER]
    completions: list[Completion] = []
    for turn in range(turns):
        completions.append(await session.complete(conversation, timeout=30.0))
        conversation += [completions[-1].message, tool(f"goto {turn}")]
    return completions


async def test_every_prompt_is_the_sequence_so_far_and_what_was_heard_since() -> None:
    generate, _ = saying("read 3", "read 7", "done 1")
    completions = await converse(PolicyClient(generate, CODEC))
    sequence: tuple[int, ...] = ()
    for completion in completions:
        assert completion.tokens is not None
        assert completion.tokens.prompt_ids[: len(sequence)] == sequence
        sequence = completion.tokens.prompt_ids + completion.tokens.output_ids
    assert CODEC.text(sequence) == (
        "<|user|>find 3<|eos|><|assistant|>read 3<|eos|><|tool|>goto 0<|eos|>"
        "<|assistant|>read 7<|eos|><|tool|>goto 1<|eos|><|assistant|>done 1<|eos|>"
    )
    assert [completion.message.content for completion in completions] == ["read 3", "read 7", "done 1"]
    assert [completion.tokens.policy_version for completion in completions if completion.tokens] == [1, 2, 3]


async def test_output_that_is_no_text_keeps_its_ids(engine: PolicyEngine) -> None:
    """A random policy says bytes that no text has: its words are lossy, its ids are not."""

    async def generate(request: SampleRequest) -> Sample:
        return engine.generate([request])[0]

    completions = await converse(PolicyClient(generate, engine.codec, max_tokens=40))
    assert any("\ufffd" in completion.message.content for completion in completions)
    for earlier, later in itertools.pairwise(completions):
        assert earlier.tokens is not None
        assert later.tokens is not None
        said = earlier.tokens.prompt_ids + earlier.tokens.output_ids
        assert later.tokens.prompt_ids[: len(said)] == said


async def test_a_reply_that_was_cut_off_is_closed_before_anyone_else_speaks() -> None:
    generate, _ = saying("read", "done 1", closed=False)
    first, second = await converse(PolicyClient(generate, CODEC), turns=2)
    assert first.stop == "length"
    assert second.tokens is not None
    assert CODEC.text(second.tokens.prompt_ids).endswith("<|assistant|>read<|eos|><|tool|>goto 0<|eos|><|assistant|>")


async def test_equal_seeds_ask_equally_and_turns_differ() -> None:
    async def seeds(task: str, seed: int) -> list[int]:
        generate, asked = saying("a", "b")
        session = PolicyClient(generate, CODEC).session(task, seed=seed)
        first = await session.complete([USER], timeout=1.0)
        await session.complete([USER, first.message, tool("x")], timeout=1.0)
        return [request.seed for request in asked]

    assert await seeds("t", 1) == await seeds("t", 1)
    drawn = [*(await seeds("t", 1)), *(await seeds("t", 2)), *(await seeds("u", 1))]
    assert len(set(drawn)) == 6


async def test_a_conversation_that_was_rewritten_is_refused() -> None:
    generate, _ = saying("a", "b")
    session = PolicyClient(generate, CODEC).session("t", seed=0)
    reply = (await session.complete([USER], timeout=1.0)).message
    with pytest.raises(ValueError, match=r"message 1 is .*'b'.* but was .*'a'"):
        await session.complete([USER, Message(role="assistant", content="b"), tool("x")], timeout=1.0)
    with pytest.raises(ValueError, match="2 messages and 2 are known"):
        await session.complete([USER, reply], timeout=1.0)


async def test_a_turn_that_failed_can_be_asked_for_again_as_if_nothing_had_been() -> None:
    working, asked = saying("a", "b")
    broken = False

    async def generate(request: SampleRequest) -> Sample:
        if broken:
            raise EngineCrashed("it crashed")
        return await working(request)

    session = PolicyClient(generate, CODEC).session("t", seed=0)
    first = await session.complete([USER], timeout=1.0)
    broken = True
    with pytest.raises(ModelUnavailable, match="it crashed"):
        await session.complete([USER, first.message, tool("x")], timeout=1.0)
    broken = False
    second = await session.complete([USER, first.message, tool("x")], timeout=1.0)
    assert second.message.content == "b"
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (QueueFull("full"), ModelUnavailable),
        (EngineCrashed("crash"), ModelUnavailable),
        (BatcherClosed("closed"), ModelUnavailable),
        (TimeoutError(), ModelUnavailable),
        (WindowExceeded("too long"), ContextFull),
        (BadRequest("bad"), ModelRefused),
        (ZeroDivisionError("a bug"), ZeroDivisionError),
    ],
)
async def test_failures_become_those_of_every_model_client(raised: Exception, expected: type[Exception]) -> None:
    def failing() -> Callable[[SampleRequest], Awaitable[Sample]]:
        async def generate(request: SampleRequest) -> Sample:
            raise raised

        return generate

    with pytest.raises(expected) as caught:
        await PolicyClient(failing(), CODEC).session("t", seed=0).complete([USER], timeout=1.0)
    assert type(caught.value) is expected
    assert caught.value is raised or "'policy'" in str(caught.value)


async def test_a_silent_policy_is_unavailable_after_the_deadline() -> None:
    async def generate(request: SampleRequest) -> Sample:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(ModelUnavailable, match="no answer in time"):
        await PolicyClient(generate, CODEC).session("t", seed=0).complete([USER], timeout=0.001)
