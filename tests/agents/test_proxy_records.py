"""What the proxy passes on, and what it keeps of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from openai import AsyncOpenAI
from proxy_support import KEY, KEY_ENV, next_call, program, proxy_of, proxy_system
from support.openai_server import OpenAIServer, Stream, answers, chunk, events, says, sse, usage_chunk

from palmette.agents import Message, Tokens, ToolCall
from palmette.agents.proxy import CallEnded, ProxyLine, Upstream

Calls = AsyncIterator[CallEnded]
HELLO = {"role": "user", "content": "hello"}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setenv(KEY_ENV, KEY)


@pytest.fixture
def upstream(openai_server: OpenAIServer) -> Upstream:
    openai_server.key = KEY
    return Upstream(openai_server.base_url, KEY_ENV, return_token_ids=True, prices=(1.0, 2.0))


@pytest.fixture
async def line(upstream: Upstream) -> AsyncIterator[ProxyLine]:
    async with proxy_system(upstream) as system, ProxyLine.open(proxy_of(system), "worker") as one:
        yield one


@pytest.fixture
async def client(line: ProxyLine) -> AsyncIterator[AsyncOpenAI]:
    async with program(line) as one:
        yield one


async def test_a_call_goes_out_with_the_real_key_and_is_kept_with_its_tokens(
    line: ProxyLine, client: AsyncOpenAI, openai_server: OpenAIServer
) -> None:
    openai_server.plan(says("hi", tokens=([1, 2], [3], [-0.5])))
    answer = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hello"}])
    assert answer.choices[0].message.content == "hi"
    (request,) = openai_server.requests
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.body["return_token_ids"] is True
    call = await next_call(line.calls())
    assert call.turn is not None
    assert (call.api, call.status, call.is_fresh) == ("chat", 200, True)
    assert call.turn.heard == (Message(role="user", content="hello"),)
    assert call.turn.said == Message(role="assistant", content="hi")
    assert call.turn.tokens == Tokens(prompt_ids=(1, 2), output_ids=(3,), logprobs=(-0.5,), policy_version=0)
    assert call.turn.usage.cost == (7 * 1.0 + 3 * 2.0) / 1e6


async def test_a_conversation_that_goes_on_is_kept_as_what_is_new_in_it(
    line: ProxyLine, client: AsyncOpenAI, openai_server: OpenAIServer
) -> None:
    """Though the program writes the model's own words in another form."""
    openai_server.plan(says(None, calls=[("look", '{"at":1}')]), says("done"), says("else"))
    first = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hello"}])
    assert first.choices[0].message.tool_calls is not None
    conversation = [
        HELLO,
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "id0", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}],
        },
        {"role": "tool", "tool_call_id": "id0", "content": [{"type": "text", "text": "a door"}]},
    ]
    await client.chat.completions.create(model="m", messages=conversation)  # pyright: ignore
    await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "another"}])
    calls = line.calls()
    one, two, three = [await next_call(calls) for _ in range(3)]
    assert one.turn is not None
    assert two.turn is not None
    assert three.turn is not None
    assert one.turn.said.tool_calls == (ToolCall(id="id0", name="look", arguments='{"at":1}'),)
    assert two.turn.heard == (Message(role="tool", content="a door", tool_call_id="id0"),)
    assert (one.is_fresh, two.is_fresh, three.is_fresh) == (True, False, True)
    assert [call.turn.index for call in (one, two, three) if call.turn] == [0, 1, 2]


async def test_a_stream_is_passed_on_piece_by_piece_and_kept_as_a_whole(
    line: ProxyLine, client: AsyncOpenAI, openai_server: OpenAIServer
) -> None:
    """The event with the usage, which the program did not ask for, is kept and not passed on."""
    go_on = asyncio.Semaphore(1)
    logprobs = {"content": [{"token": "t", "logprob": -1.0}]}
    calling = [{"index": 0, "id": "c1", "function": {"name": "look", "arguments": ""}}]
    more = [{"index": 0, "function": {"arguments": "{}"}}]
    first = {**chunk("he", token_ids=[5], logprobs=logprobs), "prompt_token_ids": [1, 2]}
    pieces = (
        sse(first),
        sse(chunk("y", token_ids=[6], logprobs=logprobs, calls=calling)),
        sse(chunk(calls=more, finish="tool_calls"), usage_chunk(), "[DONE]"),
    )
    openai_server.plan(Stream(pieces, go_on))
    stream = await client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "hello"}], stream=True
    )
    seen: list[str] = []
    async for piece in stream:
        seen.append(piece.choices[0].delta.content or "")
        go_on.release()  # the next is sent only now that this one has come through
    assert seen == ["he", "y", ""]
    assert openai_server.requests[0].body["stream_options"] == {"include_usage": True}
    call = await next_call(line.calls())
    assert call.turn is not None
    assert call.turn.said.content == "hey"
    assert call.turn.said.tool_calls == (ToolCall(id="c1", name="look", arguments="{}"),)
    assert call.turn.usage.input_tokens == 7
    assert call.turn.tokens == Tokens(prompt_ids=(1, 2), output_ids=(5, 6), logprobs=(-1.0, -1.0), policy_version=0)


async def test_a_program_that_asks_for_the_usage_of_a_stream_gets_it(
    client: AsyncOpenAI, openai_server: OpenAIServer
) -> None:
    openai_server.plan(events(chunk("hi", finish="stop"), usage_chunk(11, 2)))
    stream = await client.chat.completions.create(
        model="m",
        messages=[{"role": "user", "content": "hello"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    usages = [piece.usage async for piece in stream if piece.usage is not None]
    assert [usage.prompt_tokens for usage in usages] == [11]


async def test_completions_of_the_older_kind_are_kept_with_their_tokens(
    line: ProxyLine, client: AsyncOpenAI, openai_server: OpenAIServer
) -> None:
    """At once and as a stream."""

    def text(said: str, ids: list[int], **more: object) -> dict[str, object]:
        logprobs = {"token_logprobs": [-1.0] * len(ids)}
        choice = {"index": 0, "text": said, "token_ids": ids, "logprobs": logprobs, **more}
        return {"id": "1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}

    openai_server.plan(
        answers(text("four", [9, 8], prompt_token_ids=[7], finish_reason="stop")),
        events(text("fo", [9], prompt_token_ids=[7]), text("ur", [8], finish_reason="stop"), usage_chunk()),
    )
    await client.completions.create(model="m", prompt="two and two is")
    async for _ in await client.completions.create(model="m", prompt="two and two is", stream=True):
        pass
    calls = line.calls()
    for _ in range(2):
        call = await next_call(calls)
        assert call.turn is not None, call
        assert call.turn.heard == (Message(role="user", content="two and two is"),)
        assert call.turn.said.content == "four"
        assert call.turn.tokens == Tokens(prompt_ids=(7,), output_ids=(9, 8), logprobs=(-1.0, -1.0), policy_version=0)


async def test_the_responses_interface_is_kept_too(
    line: ProxyLine, client: AsyncOpenAI, openai_server: OpenAIServer
) -> None:
    """At once and as a stream, whose last event holds all of it."""
    output = [
        {"type": "message", "id": "1", "role": "assistant", "content": [{"type": "output_text", "text": "hi"}]},
        {"type": "function_call", "id": "2", "call_id": "c", "name": "look", "arguments": "{}"},
    ]
    usage = {"input_tokens": 4, "output_tokens": 2, "total_tokens": 6}
    response = {"id": "r", "object": "response", "model": "m", "status": "completed", "output": output, "usage": usage}
    last = {"type": "response.completed", "sequence_number": 1, "response": response}
    openai_server.plan(answers(response), events({"type": "response.output_text.delta", "delta": "hi"}, last))
    await client.responses.create(model="m", instructions="be brief", input="hello")
    kinds = [event.type async for event in await client.responses.create(model="m", input="hello", stream=True)]
    assert kinds == ["response.output_text.delta", "response.completed"]
    calls = line.calls()
    for heard in ([Message(role="system", content="be brief")], []):
        call = await next_call(calls)
        assert call.turn is not None
        assert call.turn.heard == (*heard, Message(role="user", content="hello"))
        assert call.turn.said.content == "hi"
        assert call.turn.said.tool_calls == (ToolCall(id="c", name="look", arguments="{}"),)
        assert (call.turn.usage.input_tokens, call.turn.usage.output_tokens) == (4, 2)


async def test_the_model_of_the_proxy_takes_the_place_of_the_programs(openai_server: OpenAIServer) -> None:
    upstream = Upstream(openai_server.base_url, model="the-real-one")
    openai_server.plan(says("hi"))
    async with (
        proxy_system(upstream) as system,
        ProxyLine.open(proxy_of(system), "worker") as line,
        program(line) as client,
    ):
        await client.chat.completions.create(model="gpt-whatever", messages=[{"role": "user", "content": "hello"}])
    assert openai_server.requests[0].body["model"] == "the-real-one"
