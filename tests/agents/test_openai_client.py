"""The openai SDK, really, against an endpoint on loopback."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.openai_server import OpenAIServer, says

from palmette.agents import (
    Completion,
    ConfigurationError,
    Message,
    NoApiKey,
    OpenAIClient,
    ToolCall,
    react,
    tool,
)
from palmette.agents.conversation import Tokens, Usage
from palmette.agents.openai_wire import request_messages

HELLO = [Message(role="user", content="hello")]


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_CUSTOM_HEADERS"):
        monkeypatch.delenv(name, raising=False)


async def ask(client: OpenAIClient, conversation: list[Message] = HELLO, **more: Any) -> Completion:
    try:
        return await client.session("task", seed=1).complete(conversation, timeout=10, **more)
    finally:
        await client.close()


async def test_a_conversation_goes_out_and_a_completion_comes_back(openai_server: OpenAIServer) -> None:
    openai_server.plan(says("hi", usage=(11, 4)))
    completion = await ask(OpenAIClient("m", base_url=openai_server.base_url))
    assert completion == Completion(
        message=Message(role="assistant", content="hi"),
        usage=Usage(input_tokens=11, output_tokens=4),
        model="served-model",
    )
    (request,) = openai_server.requests
    assert request.path == "/v1/chat/completions"
    assert request.body.pop("seed") in range(2**31)
    assert request.body == {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


async def test_options_are_sent_only_when_they_are_set(openai_server: OpenAIServer) -> None:
    openai_server.plan(says("hi", finish="length"))
    client = OpenAIClient("m", base_url=openai_server.base_url, temperature=0.0, return_token_ids=True)
    completion = await ask(client, max_tokens=5)
    assert completion.stop == "length"
    assert completion.tokens is None  # this server does not tell
    body = openai_server.requests[0].body
    assert (body["temperature"], body["max_tokens"], body["logprobs"], body["return_token_ids"]) == (0.0, 5, True, True)


async def test_token_ids_and_log_probabilities_are_kept(openai_server: OpenAIServer) -> None:
    tokens = ([1, 2, 3], [4, 5], [-0.25, -1.5])
    openai_server.plan(says("a", tokens=tokens), says("b", tokens=tokens, policy_version=12))
    client = OpenAIClient("m", base_url=openai_server.base_url, return_token_ids=True, policy_version=3)
    session = client.session("task", seed=0)
    first = await session.complete(HELLO, timeout=10)
    second = await session.complete(HELLO, timeout=10)
    await client.close()
    assert first.tokens == Tokens(prompt_ids=(1, 2, 3), output_ids=(4, 5), logprobs=(-0.25, -1.5), policy_version=3)
    assert second.tokens is not None
    assert second.tokens.policy_version == 12


async def test_cost_comes_from_the_prices_or_from_the_server(openai_server: OpenAIServer) -> None:
    openai_server.plan(says("a", usage=(2_000_000, 100_000)), says("b"), says("c", cost=0.5))
    client = OpenAIClient("m", base_url=openai_server.base_url, prices=(1.0, 10.0))
    session = client.session("task", seed=0)
    costs = [(await session.complete(HELLO, timeout=10)).usage.cost for _ in range(3)]
    await client.close()
    assert costs == [3.0, pytest.approx(37e-6), 0.5]


async def test_seeds_differ_from_turn_to_turn_and_not_from_run_to_run(openai_server: OpenAIServer) -> None:
    replied = [*HELLO, Message(role="assistant", content="hi"), Message(role="user", content="go on")]
    client = OpenAIClient("m", base_url=openai_server.base_url)
    for seed, conversation in ((1, HELLO), (1, replied), (1, HELLO), (2, HELLO)):
        openai_server.plan(says("x"))
        await client.session("task", seed=seed).complete(conversation, timeout=10)
    await client.close()
    first, later, again, other = (request.body["seed"] for request in openai_server.requests)
    assert first == again
    assert len({first, later, other}) == 3


async def test_a_whole_episode_with_tools_runs_over_http(openai_server: OpenAIServer) -> None:
    async def add(x: int, y: int) -> int:
        """Add two numbers."""
        return x + y

    openai_server.plan(
        says(None, calls=[("add", '{"x": 1, "y": 2}'), ("add", '{"x": 1, ')], finish="stop"),
        says("3"),
    )
    client = OpenAIClient("m", base_url=openai_server.base_url)
    transcript = await react("1 + 2?", client.session("task", seed=0), [tool(add)])
    await client.close()
    assert transcript.answer == "3"
    first, second = (request.body for request in openai_server.requests)
    assert first["tools"][0]["type"] == "function"
    assert first["tools"][0]["function"]["name"] == "add"
    assert first["tools"][0]["function"]["parameters"]["required"] == ["x", "y"]
    assistant, good, bad = second["messages"][1:]
    assert [call["id"] for call in assistant["tool_calls"]] == ["id0", "id1"]
    # The malformed arguments stay in the transcript as written; on the wire they would be refused for ever after.
    assert transcript.turns[0].said.tool_calls[1].arguments == '{"x": 1, '
    assert msgspec.json.decode(assistant["tool_calls"][1]["function"]["arguments"]) == {"malformed": '{"x": 1, '}
    assert good == {"role": "tool", "tool_call_id": "id0", "content": "3"}
    assert bad["content"].startswith("bad arguments for add: ")


@pytest.mark.parametrize("role", ["user", "tool"])
async def test_observations_of_the_line_dialect_are_the_users_unless_told_otherwise(
    openai_server: OpenAIServer, role: Any
) -> None:
    openai_server.plan(says("look"), says("done 1"))

    async def look() -> str:
        return "code 1"

    client = OpenAIClient("m", base_url=openai_server.base_url, observations=role)
    transcript = await react("find", client.session("task", seed=0), [tool(look)], dialect="line")
    await client.close()
    assert transcript.answer == "1"
    assert openai_server.requests[1].body["messages"][-1] == {"role": role, "content": "code 1"}


@given(arguments=st.text() | st.sampled_from(["{}", '{"a": [1, {"b": null}]}', "[1]", "[" * 5000]))
def test_arguments_go_out_as_a_json_object_whatever_the_model_wrote(arguments: str) -> None:
    said = Message(role="assistant", content="", tool_calls=(ToolCall(id="i", name="n", arguments=arguments),))
    (sent,) = request_messages([said], observations="user")
    decoded = msgspec.json.decode(sent["tool_calls"][0]["function"]["arguments"])  # pyright: ignore
    assert isinstance(decoded, dict)
    assert not arguments.strip() or decoded in ({"malformed": arguments}, *_as_object(arguments))


def _as_object(text: str) -> list[object]:
    try:
        return [msgspec.json.decode(text)]
    except (msgspec.DecodeError, RecursionError):
        return []


async def test_the_key_from_the_environment_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", " sk-secret-123\n")
    async with OpenAIServer(key="sk-secret-123") as server:
        server.plan(says("hi"))
        client = OpenAIClient("m", base_url=server.base_url, api_key_env="MY_KEY")
        assert (await ask(client)).message.content == "hi"
    assert "sk-secret" not in repr(client)


async def test_a_proxy_in_the_environment_does_not_stand_before_loopback(
    openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    openai_server.plan(says("hi"))
    assert (await ask(OpenAIClient("m", base_url=openai_server.base_url))).message.content == "hi"


def test_a_remote_endpoint_without_a_key_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoApiKey) as caught:
        OpenAIClient("gpt-5")
    assert str(caught.value) == (
        "no API key for the model endpoint https://api.openai.com/v1: set the environment variable OPENAI_API_KEY, "
        "or name a local endpoint with --base-url"
    )
    monkeypatch.setenv("OPENAI_BASE_URL", "https://models.example/v1")
    with pytest.raises(NoApiKey, match=r"https://models\.example/v1: set the environment variable MY_KEY"):
        OpenAIClient("m", api_key_env="MY_KEY")


def test_a_key_that_cannot_be_one_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-sécret")
    with pytest.raises(ConfigurationError) as caught:
        OpenAIClient("gpt-5")
    assert "OPENAI_API_KEY" in str(caught.value)
    assert "cret" not in repr(caught.value)


@pytest.mark.parametrize("url", ["127.0.0.1:80/v1", "ftp://host/v1", "http:///v1", "http://user:pw@"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="is no model endpoint; write it like http://") as caught:
        OpenAIClient("m", base_url=url)
    assert "pw" not in str(caught.value)


async def test_closing_twice_is_fine(openai_server: OpenAIServer) -> None:
    client = OpenAIClient("m", base_url=openai_server.base_url)
    await client.close()
    await client.close()


def test_the_door_does_not_import_the_sdk() -> None:
    script = "import sys, palmette.agents; print([n for n in sys.modules if n.split('.')[0] in ('openai', 'httpx')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
