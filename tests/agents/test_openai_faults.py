"""Each way in which an endpoint can fail becomes the right error, in one sentence that helps, without the key."""

from __future__ import annotations

import asyncio
import email.utils
import socket
import time
import traceback

import pytest
from support.openai_server import Drip, Hang, HangUp, Http, OpenAIServer, Reaction, answers, says, status

from palmette.agents import (
    ContextFull,
    Message,
    ModelError,
    ModelRefused,
    ModelUnavailable,
    OpenAIClient,
    RequestRefused,
)
from palmette.agents.boundary import boundary, public_url

KEY = "sk-very-secret-0123456789"
HELLO = [Message(role="user", content="hello")]


@pytest.fixture(autouse=True)
def key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


async def failure(base_url: str, *, timeout: float = 10) -> ModelError:
    """The error of one request; it is checked that none of its texts holds the key."""
    client = OpenAIClient("m", base_url=base_url)
    try:
        with pytest.raises(ModelError) as caught:
            await client.session("task", seed=0).complete(HELLO, timeout=timeout)
    finally:
        await client.close()
    error = caught.value
    for text in (str(error), repr(error), repr(client), "".join(traceback.format_exception(error))):
        assert KEY not in text
    assert "\n" not in str(error)
    return error


@pytest.mark.parametrize(
    ("reaction", "kind", "told"),
    [
        (
            status(429, "slow down", retry_after="2"),
            ModelUnavailable,
            "is overloaded (429: slow down); it asks to wait 2 s",
        ),
        (status(503, ""), ModelUnavailable, "is overloaded (503)"),
        (status(500, "oh\n no"), ModelUnavailable, "failed (500: oh no)"),
        (status(408, "late"), ModelUnavailable, "failed (408: late)"),
        (
            status(429, "You exceeded your quota", error_code="insufficient_quota"),
            ModelRefused,
            "the quota is used up (429: You exceeded your quota); add credit or use another key",
        ),
        (
            status(403, "no"),
            ModelRefused,
            "refuses the API key (403: no); check the environment variable OPENAI_API_KEY",
        ),
        (status(404, "no such model"), ModelRefused, "knows no model 'm' (404: no such model); check --model"),
        (status(400, f"bad {KEY} bad"), RequestRefused, "refuses the request (400: bad [key] bad)"),
        (status(422, "x" * 9999), RequestRefused, "xxx…"),
        (status(400, "too long", error_code="context_length_exceeded"), ContextFull, "context window of 'm' (400: too"),
        (status(400, "This model's maximum context length is 9"), ContextFull, "maximum context length is 9"),
        (Http(502, b"<html>bad gateway</html>"), ModelUnavailable, "failed (502: <html>bad gateway</html>)"),
        (
            Http(200, b"<html>hi</html>", {"content-type": "text/html"}),
            ModelRefused,
            "text/html instead of JSON; check that",
        ),
        (Http(200, b"hi"), ModelRefused, "no content type instead of JSON"),
        (Http(200, b'{"choices"', {"content-type": "application/json"}), ModelUnavailable, "broke off in the middle"),
        (answers({"choices": [{"message": 1}]}), ModelRefused, "does not answer as chat completions do: Expected"),
        (answers([]), ModelRefused, "does not answer as chat completions do"),
        (answers({"choices": []}), ModelUnavailable, "sent an answer without a choice"),
        (answers({"error": {"message": f"upstream {KEY}", "code": 429}}), ModelUnavailable, "(429: upstream [key])"),
        (answers({"error": {"message": "gone"}}), ModelUnavailable, "failed (502: gone)"),
        (says("x", tokens=([1], [2, 3], [-1.0])), ModelRefused, "2 token ids came with 1 log-probabilities"),
        (HangUp(), ModelUnavailable, "cannot reach the model endpoint"),
        (HangUp(b'{"choices"'), ModelUnavailable, "cannot reach the model endpoint"),
    ],
)
async def test_what_the_endpoint_does_becomes_the_right_error(
    openai_server: OpenAIServer, reaction: Reaction, kind: type[ModelError], told: str
) -> None:
    openai_server.plan(reaction, says("a retry would get this"))
    error = await failure(openai_server.base_url)
    assert type(error) is kind
    assert error.retryable is (kind is ModelUnavailable)
    assert told in str(error)
    assert "127.0.0.1" in str(error) or kind is ContextFull
    assert len(str(error)) < 500
    assert len(openai_server.requests) == 1  # nobody retries


async def test_a_bad_key_is_refused_and_never_shown_even_if_the_server_repeats_it() -> None:
    async with OpenAIServer(key="another") as server:
        error = await failure(server.base_url)
    assert isinstance(error, ModelRefused)
    assert str(error) == (
        f"the model endpoint {server_url(error)} refuses the API key (401: Incorrect API key provided: Bearer [key]); "
        f"check the environment variable OPENAI_API_KEY"
    )


def server_url(error: Exception) -> str:
    return str(error).split()[3]


async def test_an_endpoint_that_is_not_there_is_named_with_the_remedy() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        error = await failure(url)
    assert isinstance(error, ModelUnavailable)
    assert str(error) == (
        f"cannot reach the model endpoint {url}: connection refused; start the server or pass another --base-url"
    )


@pytest.mark.parametrize("reaction", [Hang(), Drip()])
async def test_the_deadline_is_one_for_the_whole_request_and_the_connection_is_closed(
    openai_server: OpenAIServer, reaction: Reaction
) -> None:
    openai_server.plan(reaction)
    error = await failure(openai_server.base_url, timeout=0.1)
    assert isinstance(error, ModelUnavailable)
    assert str(error) == f"the model endpoint {openai_server.base_url} did not answer within 0.1 s"
    await openai_server.idle()


async def test_cancelling_a_request_closes_its_connection(openai_server: OpenAIServer) -> None:
    openai_server.plan(Hang())
    client = OpenAIClient("m", base_url=openai_server.base_url)
    asking = asyncio.create_task(client.session("task", seed=0).complete(HELLO, timeout=60))
    async with asyncio.timeout(10):
        while not openai_server.requests:  # noqa: ASYNC110 (the server has no event for it)
            await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await openai_server.idle()
    await client.close()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("nan", None), ("inf", None), ("soon", None), ("", None)],
)
async def test_retry_after_is_read_in_seconds(openai_server: OpenAIServer, header: str, seconds: float | None) -> None:
    openai_server.plan(status(429, "slow down", retry_after=header))
    error = await failure(openai_server.base_url)
    assert error.retry_after == seconds


@pytest.mark.parametrize(("ahead", "least", "most"), [(3600, 3500, 3600), (-3600, 0, 0)])
async def test_retry_after_may_be_a_date(openai_server: OpenAIServer, ahead: int, least: float, most: float) -> None:
    openai_server.plan(status(503, "later", retry_after=email.utils.formatdate(time.time() + ahead, usegmt=True)))
    error = await failure(openai_server.base_url)
    assert error.retry_after is not None
    assert least <= error.retry_after <= most


def test_what_is_no_error_of_the_model_passes_the_boundary() -> None:
    with (
        pytest.raises(ZeroDivisionError),
        boundary(endpoint="http://h/v1", model="m", seconds=1, key_env="K", secrets=()),
    ):
        raise ZeroDivisionError


def test_an_address_is_shown_without_its_credentials() -> None:
    assert public_url("https://me:pw@[::1]:8/v1?api_key=x#y") == "https://[::1]:8/v1"
