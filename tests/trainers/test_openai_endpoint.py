"""The policy behind the OpenAI interface, asked by the real SDK."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from palmette.agents.conversation import Message
from palmette.trainers.batching import Batcher, EngineCrashed, QueueFull
from palmette.trainers.engine import PolicyEngine
from palmette.trainers.openai_endpoint import OpenAIEndpoint
from palmette.trainers.sampling import Sample, SampleRequest

HELLO: Any = [{"role": "user", "content": "find 3"}]


@pytest.fixture
async def endpoint(engine: PolicyEngine) -> AsyncIterator[OpenAIEndpoint]:
    async with Batcher(engine.generate, check=engine.check) as batcher:

        async def generate(request: SampleRequest) -> Sample:
            return await batcher.submit(request, timeout=30.0)

        async with OpenAIEndpoint(generate, engine.codec, model="tiny", token="s3cret") as started:
            yield started


@pytest.fixture
async def client(endpoint: OpenAIEndpoint) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=endpoint.base_url, api_key=endpoint.token, max_retries=0) as made:
        yield made


async def test_a_chat_answers_with_text_ids_and_log_probabilities(
    client: openai.AsyncOpenAI, engine: PolicyEngine
) -> None:
    assert [model.id async for model in client.models.list()] == ["tiny"]
    answer = await client.chat.completions.create(
        model="tiny", messages=HELLO, seed=5, max_tokens=12, logprobs=True, extra_body={"return_token_ids": True}
    )
    prompt_ids = engine.codec.render([Message(role="user", content="find 3")])
    expected = engine.generate([SampleRequest(prompt_ids=prompt_ids, seed=5, max_tokens=12)])[0]
    extra: Any = answer.model_extra
    choice: Any = answer.choices[0]
    assert tuple(extra["prompt_token_ids"]) == prompt_ids
    assert tuple(choice.model_extra["token_ids"]) == expected.output_ids
    assert choice.message.content == engine.codec.decode(expected.output_ids)
    assert choice.finish_reason == expected.stop
    assert [entry.logprob for entry in choice.logprobs.content] == pytest.approx(expected.logprobs, abs=1e-5)
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(prompt_ids), len(expected.output_ids))


async def test_token_ids_in_are_sampled_from_as_they_are(client: openai.AsyncOpenAI, engine: PolicyEngine) -> None:
    prompt = [3, 100, 101, 1, 4]
    answer = await client.completions.create(
        model="tiny", prompt=prompt, seed=7, max_tokens=9, logprobs=0, temperature=0.5,
        extra_body={"return_token_ids": True},
    )  # fmt: skip
    request = SampleRequest(prompt_ids=tuple(prompt), seed=7, max_tokens=9, temperature=0.5)
    expected = engine.generate([request])[0]
    choice: Any = answer.choices[0]
    assert choice.model_extra["prompt_token_ids"] == prompt
    assert tuple(choice.model_extra["token_ids"]) == expected.output_ids
    assert choice.logprobs.token_logprobs == pytest.approx(expected.logprobs, abs=1e-5)
    assert choice.text == engine.codec.decode(expected.output_ids)


async def test_a_stop_string_ends_the_text_and_is_not_part_of_it(
    client: openai.AsyncOpenAI, engine: PolicyEngine
) -> None:
    whole = (await client.completions.create(model="tiny", prompt="hello", seed=11, max_tokens=40)).choices[0].text
    at = next(index for index in range(3, 30) if whole[index].isascii() and whole[index].isprintable())
    stopped = await client.completions.create(
        model="tiny", prompt="hello", seed=11, max_tokens=40, stop=["no such text", whole[at]]
    )
    assert stopped.choices[0].text == whole[: whole.index(whole[at])]
    assert stopped.choices[0].finish_reason == "stop"


async def test_requests_at_the_same_time_are_batched_and_keep_their_seeds(client: openai.AsyncOpenAI) -> None:
    async def ask(seed: int) -> str:
        answer = await client.chat.completions.create(model="tiny", messages=HELLO, seed=seed, max_tokens=8)
        return answer.choices[0].message.content or ""

    alone = [await ask(seed) for seed in range(6)]
    assert list(await asyncio.gather(*(ask(seed) for seed in range(6)))) == alone
    assert len(set(alone)) > 3


async def test_without_the_token_nothing_is_answered(endpoint: OpenAIEndpoint) -> None:
    async with openai.AsyncOpenAI(base_url=endpoint.base_url, api_key="guess", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError, match="bearer token"):
            await stranger.models.list()
    async with httpx.AsyncClient() as bare:
        for path in ("/models", "/chat/completions", "/completions"):
            method = "GET" if path == "/models" else "POST"
            assert (await bare.request(method, endpoint.base_url + path)).status_code == 401
    assert "s3cret" not in repr(endpoint)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({"messages": HELLO, "stream": True}, "stream"),
        ({"messages": HELLO, "n": 2}, "n"),
        ({"messages": HELLO, "top_p": 0.5}, "top_p"),
        ({"messages": HELLO, "tools": []}, "tools"),
        ({"messages": HELLO, "max_tokens": 0}, "max_tokens"),
        ({"messages": HELLO, "max_tokens": 5000}, "window of 1024"),
        ({"messages": HELLO, "temperature": -1}, "temperature"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "wizard"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "image_url|content"),
        ({}, "messages"),
    ],
)
async def test_what_would_be_ignored_or_cannot_be_done_is_refused_by_name(
    client: openai.AsyncOpenAI, body: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=complaint):
        await client.post("/chat/completions", body={"model": "tiny", **body}, cast_to=object)


async def test_an_unknown_model_and_a_broken_body_are_refused(endpoint: OpenAIEndpoint) -> None:
    headers = {"authorization": "Bearer s3cret"}
    async with httpx.AsyncClient(headers=headers, base_url=endpoint.base_url) as bare:
        unknown = await bare.post("/completions", json={"model": "gpt", "prompt": "x"})
        broken = await bare.post("/completions", content=b"{")
        empty = await bare.post("/completions", json={"model": "tiny", "prompt": []})
        large = await bare.post("/completions", content=b"x" * (9 << 20))
    assert (unknown.status_code, broken.status_code, empty.status_code, large.status_code) == (404, 400, 400, 413)
    assert "'gpt'" in unknown.json()["error"]["message"]


@pytest.mark.parametrize(
    ("raised", "status"), [(QueueFull("full"), 429), (EngineCrashed("crash"), 503), (TimeoutError("late"), 504)]
)
async def test_failures_of_the_engine_have_their_status(engine: PolicyEngine, raised: Exception, status: int) -> None:
    async def generate(request: SampleRequest) -> Sample:
        raise raised

    async with (
        OpenAIEndpoint(generate, engine.codec) as endpoint,
        openai.AsyncOpenAI(base_url=endpoint.base_url, api_key=endpoint.token, max_retries=0) as client,
    ):
        with pytest.raises(openai.APIStatusError, match=str(raised)) as caught:
            await client.completions.create(model="policy", prompt="x")
        assert caught.value.status_code == status


async def test_it_listens_on_loopback_only_leaves_signals_alone_and_stops_clean(engine: PolicyEngine) -> None:
    async def generate(request: SampleRequest) -> Sample:
        raise AssertionError

    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    endpoint = OpenAIEndpoint(generate, engine.codec)
    with pytest.raises(RuntimeError, match="start"):
        _ = endpoint.port
    async with endpoint:
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
        port = endpoint.port
        assert endpoint.base_url == f"http://127.0.0.1:{port}/v1"
        with pytest.raises(RuntimeError, match="runs already"):
            await endpoint.start()
        with pytest.raises(OSError, match="in use"):
            await OpenAIEndpoint(generate, engine.codec, port=port).start()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    await endpoint.stop()
    async with endpoint:  # and may be started again
        assert endpoint.port
