"""The client's other ways to ask: streamed, through the responses interface, and from token ids."""

from __future__ import annotations

import asyncio

import pytest
from support.openai_server import (
    Hang,
    HangUp,
    Http,
    OpenAIServer,
    Stream,
    answers,
    chunk,
    events,
    sse,
    status,
    usage_chunk,
)

from palmette.agents import (
    Completion,
    Message,
    ModelRefused,
    ModelUnavailable,
    OpenAIClient,
    Tokens,
    ToolCall,
    ToolSchema,
)

QUESTION = [Message(role="user", content="hello")]
LOOK = ToolSchema(name="look", description="Look.", parameters={"type": "object", "properties": {}})


async def _streamed(client: OpenAIClient, *, timeout: float = 20.0) -> tuple[list[str], Completion | None]:
    pieces: list[str] = []
    last: Completion | None = None
    try:
        async for piece in client.session("t", seed=1).stream(QUESTION, tools=[LOOK], max_tokens=9, timeout=timeout):
            if isinstance(piece, Completion):
                last = piece
            else:
                pieces.append(piece)
    finally:
        await client.close()
    return pieces, last


async def test_a_streamed_reply_comes_piece_by_piece_and_then_as_a_whole(openai_server: OpenAIServer) -> None:
    go_on = asyncio.Semaphore(1)
    calling = [{"index": 0, "id": "c1", "function": {"name": "look", "arguments": "{}"}}]
    pieces = (sse(chunk("he")), sse(chunk("y", calls=calling, finish="tool_calls"), usage_chunk(11, 2), "[DONE]"))
    openai_server.plan(Stream(pieces, go_on))
    client = OpenAIClient("m", base_url=openai_server.base_url, prices=(1.0, 1.0))
    seen: list[str] = []
    last: Completion | None = None
    async for piece in client.session("t", seed=1).stream(QUESTION, tools=[LOOK], max_tokens=9, timeout=20):
        if isinstance(piece, Completion):
            last = piece
        else:
            seen.append(piece)
            go_on.release()
    await client.close()
    assert seen == ["he", "y"]
    assert last is not None
    assert last.message.content == "hey"
    assert last.message.tool_calls == (ToolCall(id="c1", name="look", arguments="{}"),)
    assert (last.usage.input_tokens, last.usage.cost) == (11, 13e-6)
    body = openai_server.requests[0].body
    assert (body["stream"], body["stream_options"], body["max_tokens"]) == (True, {"include_usage": True}, 9)


@pytest.mark.parametrize(
    ("reaction", "error"),
    [
        (status(429, "slow down"), ModelUnavailable),
        (status(401, "no"), ModelRefused),
        (HangUp(), ModelUnavailable),
        (Http(200, sse(chunk("he")), {"content-type": "text/event-stream"}), ModelUnavailable),
        (events({"error": {"message": "the model fell over", "code": 503}}), ModelUnavailable),
        (events({"choices": 7}), ModelRefused),
        (Hang(), ModelUnavailable),
    ],
)
async def test_a_stream_that_fails_is_the_same_error_as_any_failed_request(
    openai_server: OpenAIServer, reaction: Http, error: type[Exception]
) -> None:
    openai_server.plan(reaction)
    with pytest.raises(error):
        await _streamed(OpenAIClient("m", base_url=openai_server.base_url), timeout=1.0)


async def test_the_responses_interface_takes_the_same_conversations(openai_server: OpenAIServer) -> None:
    """And keeps nothing at the server."""
    output = [
        {"type": "message", "content": [{"type": "output_text", "text": "let me see"}]},
        {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
    ]
    usage = {"input_tokens": 4, "output_tokens": 2}
    openai_server.plan(answers({"model": "m", "status": "completed", "output": output, "usage": usage}))
    client = OpenAIClient("m", base_url=openai_server.base_url, interface="responses", prices=(1.0, 1.0))
    conversation = [
        Message(role="system", content="be brief"),
        *QUESTION,
        Message(role="assistant", content="", tool_calls=(ToolCall(id="a", name="look", arguments="{}"),)),
        Message(role="tool", content="a door", tool_call_id="a"),
    ]
    completion = await client.session("t", seed=1).complete(conversation, tools=[LOOK], max_tokens=9, timeout=20)
    await client.close()
    (request,) = openai_server.requests
    assert request.path.endswith("/v1/responses")
    assert (request.body["store"], request.body["max_output_tokens"]) == (False, 9)
    assert [item.get("type", item.get("role")) for item in request.body["input"]] == [
        "system", "user", "function_call", "function_call_output",
    ]  # fmt: skip
    assert request.body["tools"][0]["name"] == "look"
    assert completion.message.content == "let me see"
    assert completion.message.tool_calls == (ToolCall(id="c", name="look", arguments="{}"),)
    assert (completion.stop, completion.usage.cost) == ("tool_calls", 6e-6)


async def test_token_ids_go_in_and_come_out_as_they_were_sampled(openai_server: OpenAIServer) -> None:
    logprobs = {"token_logprobs": [-0.5, -1.5]}
    choice = {
        "text": "ab", "finish_reason": "length", "token_ids": [7, 8], "prompt_token_ids": [1, 2, 3],
        "logprobs": logprobs,
    }  # fmt: skip
    openai_server.plan(answers({"choices": [choice], "policy_version": 4}))
    client = OpenAIClient("m", base_url=openai_server.base_url)
    completion = await client.complete_tokens([1, 2, 3], max_tokens=2, seed=5, timeout=20)
    await client.close()
    body = openai_server.requests[0].body
    assert (body["prompt"], body["return_token_ids"], body["max_tokens"]) == ([1, 2, 3], True, 2)
    assert completion.stop == "length"
    assert completion.tokens == Tokens(prompt_ids=(1, 2, 3), output_ids=(7, 8), logprobs=(-0.5, -1.5), policy_version=4)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"choices": [{"text": "ab"}]}, "tells no token ids"),
        (
            {"choices": [{"token_ids": [7], "prompt_token_ids": [1], "logprobs": {"token_logprobs": [-0.5, -1.5]}}]},
            "1 token ids came with 2 log-probabilities",
        ),
        ({"choices": 3}, "does not answer as"),
    ],
)
async def test_token_ids_that_cannot_be_trusted_are_refused(
    openai_server: OpenAIServer, body: object, told: str
) -> None:
    openai_server.plan(answers(body))
    client = OpenAIClient("m", base_url=openai_server.base_url)
    with pytest.raises(ModelRefused, match=told):
        await client.complete_tokens([1], max_tokens=2, seed=5, timeout=20)
    await client.close()
