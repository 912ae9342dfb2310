"""A model behind any endpoint that speaks OpenAI's chat completions, through the openai SDK.

>>> client = OpenAIClient("qwen3", base_url="http://127.0.0.1:8000/v1")   # a local server needs no key
>>> session = client.session("task-1", seed=7)
>>> completion = await session.complete([Message(role="user", content="hello")], timeout=60)

The SDK's own retries are off: a failed request is a :class:`~palmette.agents.errors.ModelError`, whoever asked
crashes, and its supervisor waits and restarts. The key is read from the environment once, held by the SDK's client
only, and cut out of every message.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal, TypeVar, cast
from urllib.parse import urlsplit

import msgspec

from palmette.agents.boundary import boundary, one_line, public_url, refusal
from palmette.agents.conversation import Completion, Message, ToolSchema
from palmette.agents.endpoint import api_key, is_local
from palmette.agents.errors import MissingExtra, ModelRefused, ModelUnavailable
from palmette.agents.openai_interfaces import Prices, read_response, read_text, response_request
from palmette.agents.openai_stream import ChatStream
from palmette.agents.openai_wire import Object, WireResponse, completion, request_messages, request_tools
from palmette.agents.server_sent import EventReader

if TYPE_CHECKING:
    from openai import AsyncOpenAI, Omit
    from openai.types.chat import ChatCompletionMessageParam

T = TypeVar("T")

OPENAI_URL = "https://api.openai.com/v1"


class OpenAIClient:
    """Sessions with one model. Safe to share between episodes of one event loop.

    Building one imports the SDK, which takes about half a second: do it before the loop runs, or in a thread.

    Args:
        model: As the endpoint calls it.
        base_url: Up to and including ``/v1``; ``OPENAI_BASE_URL`` or OpenAI's own where ``None``.
        api_key_env: The environment variable that holds the key. An endpoint on loopback needs none.
        temperature: The server's default where ``None`` (some models take no other).
        return_token_ids: Ask for token ids and log-probabilities (vLLM, palmette's policy server), so that turns can
            be trained on.
        policy_version: Stamped on the tokens of servers that do not tell which weights they serve.
        prices: US dollars for a million tokens, in and out; ``None`` where not known.
        interface: ``chat`` completions, or ``responses`` (which has no seed and tells no token ids).
        observations: The role in which the line dialect's results are sent; see
            :func:`~palmette.agents.openai_wire.request_messages`.

    Raises:
        NoApiKey: ``api_key_env`` is not set.
        MissingExtra: the openai package is not installed.
        ConfigurationError: ``base_url`` is no http(s) address.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        temperature: float | None = None,
        return_token_ids: bool = False,
        policy_version: int = 0,
        prices: tuple[float, float] | None = None,
        interface: Literal["chat", "responses"] = "chat",
        observations: Literal["user", "tool"] = "user",
    ) -> None:
        self.model = model
        self.base_url = base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
        self.api_key_env = api_key_env
        self.temperature = temperature
        self.return_token_ids = return_token_ids
        self.policy_version = policy_version
        self.prices = prices
        self.interface: Literal["chat", "responses"] = interface
        self.observations: Literal["user", "tool"] = observations
        self.sdk = _sdk(self.base_url, api_key_env)

    def __repr__(self) -> str:
        return f"OpenAIClient({self.model!r}, base_url={public_url(self.base_url)!r})"

    def session(self, task_id: str, *, seed: int) -> OpenAISession:
        """A session whose requests are seeded by ``seed`` and the number of replies before them."""
        return OpenAISession(self, seed)

    async def complete_tokens(
        self, prompt_ids: Sequence[int], *, max_tokens: int, seed: int, timeout: float
    ) -> Completion:
        """Go on from token ids, through the text completions of vLLM or palmette's policy server: nothing is tokenised.

        Args:
            prompt_ids: All ids that the model is conditioned on.
            max_tokens: Of the reply.
            seed: Of the sampling.
            timeout: Seconds, for all of it.

        Raises:
            ModelUnavailable, ModelRefused: as :meth:`OpenAISession.complete`; also refused where the server answers
                without token ids.
        """
        with self.boundary(timeout):
            async with asyncio.timeout(timeout):
                raw = await self.sdk.completions.with_raw_response.create(
                    model=self.model,
                    prompt=list(prompt_ids),
                    max_tokens=max_tokens,
                    seed=_turn_seed(seed, 0),
                    logprobs=1,
                    temperature=_given(self.temperature),
                    extra_body={"return_token_ids": True},
                    timeout=timeout,
                )
        completion = self.decode(raw.content, raw.headers.get("content-type", ""), read_text)
        if completion.tokens is None:
            raise ModelRefused(f"{self.where} tells no token ids of its completions; use vLLM or palmette's own server")
        return completion

    async def close(self) -> None:
        """Close the connections. Closing twice is fine."""
        await self.sdk.close()

    # --- for its sessions --------------------------------------------------------------------------------------------

    @property
    def where(self) -> str:
        """The endpoint, in messages."""
        return f"the model endpoint {public_url(self.base_url)}"

    def boundary(self, seconds: float) -> AbstractContextManager[None]:
        """See :func:`~palmette.agents.boundary.boundary`."""
        return boundary(
            endpoint=self.base_url,
            model=self.model,
            seconds=seconds,
            key_env=self.api_key_env,
            secrets=(self.sdk.api_key,),
        )

    def decode(self, body: bytes, content_type: str, read: Callable[[bytes, Prices], Completion | None]) -> Completion:
        """What ``read`` makes of an answer.

        Raises:
            ModelUnavailable: it broke off, or there is nothing in it.
            ModelRefused: it is none of this interface's.
        """
        try:
            completion = read(body, self.prices)
        except msgspec.ValidationError as error:
            raise ModelRefused(f"{self.where} does not answer as {self.interface} completions do: {error}") from None
        except (msgspec.DecodeError, UnicodeError):
            if "json" in content_type:
                raise ModelUnavailable(f"{self.where} broke off in the middle of its answer") from None
            kind = content_type or "no content type"
            raise ModelRefused(
                f"{self.where} answers with {kind} instead of JSON; check that --base-url ends in /v1 or the like"
            ) from None
        except ValueError as error:
            raise ModelRefused(f"{self.where} cannot be trained on: {error}") from None
        if completion is None:
            raise ModelUnavailable(f"{self.where} sent an answer without a choice")
        return completion


class OpenAISession:
    """One episode's requests. It keeps nothing but its seed: the endpoint gets the whole conversation each time."""

    def __init__(self, client: OpenAIClient, seed: int) -> None:
        self._client = client
        self._seed = seed

    async def complete(
        self,
        conversation: Sequence[Message],
        *,
        tools: Sequence[ToolSchema] = (),
        max_tokens: int | None = None,
        timeout: float,
    ) -> Completion:
        """One request; ``timeout`` seconds for all of it, connecting and reading included.

        Raises:
            ModelUnavailable: the endpoint cannot be reached, refuses for load, breaks off, or is too slow.
            ModelRefused: the endpoint says no, or does not speak chat completions.
        """
        client = self._client
        with client.boundary(timeout):
            # The SDK's timeout is one for each read; a server that drips bytes would never run into it.
            async with asyncio.timeout(timeout):
                if client.interface == "responses":
                    raw = await client.sdk.responses.with_raw_response.create(
                        model=client.model,
                        extra_body=response_request(conversation, tools),
                        max_output_tokens=_given(max_tokens),
                        temperature=_given(client.temperature),
                        timeout=timeout,
                    )
                else:
                    raw = await client.sdk.chat.completions.with_raw_response.create(
                        model=client.model,
                        messages=self._messages(conversation),
                        extra_body=self._options(conversation, tools, max_tokens),
                        timeout=timeout,
                    )
        read = read_response if client.interface == "responses" else self._read_chat
        return client.decode(raw.content, raw.headers.get("content-type", ""), read)

    async def stream(
        self,
        conversation: Sequence[Message],
        *,
        tools: Sequence[ToolSchema] = (),
        max_tokens: int | None = None,
        timeout: float,
    ) -> AsyncGenerator[str | Completion]:
        """As :meth:`complete` through chat completions: the reply's text piece by piece, and at last the completion.

        Raises:
            ModelUnavailable, ModelRefused: as :meth:`complete`; where the stream breaks off, after some pieces.
        """
        client = self._client
        options = self._options(conversation, tools, max_tokens) | {"stream_options": {"include_usage": True}}
        taken, reader = ChatStream(), EventReader()
        with client.boundary(timeout):
            async with (
                asyncio.timeout(timeout),
                client.sdk.chat.completions.with_streaming_response.create(
                    model=client.model,
                    messages=self._messages(conversation),
                    stream=True,
                    extra_body=options,
                    timeout=timeout,
                ) as answer,
            ):
                async for piece in answer.iter_bytes():
                    for data in reader.feed(piece):
                        try:
                            text = taken.add(data)
                        except (msgspec.DecodeError, UnicodeError) as error:
                            raise ModelRefused(f"{client.where} does not stream chat completions: {error}") from None
                        if text:
                            yield text
        response = taken.response()
        if not taken.is_done and response.error is None:
            raise ModelUnavailable(f"{client.where} broke off in the middle of its answer")
        yield self._completion(response)

    def _messages(self, conversation: Sequence[Message]) -> Iterable[ChatCompletionMessageParam]:
        return cast(
            "Iterable[ChatCompletionMessageParam]",
            request_messages(conversation, observations=self._client.observations),
        )

    def _options(self, conversation: Sequence[Message], tools: Sequence[ToolSchema], max_tokens: int | None) -> Object:
        client = self._client
        replies = sum(message.role == "assistant" for message in conversation)
        options: Object = {"seed": _turn_seed(self._seed, replies)}
        if tools:
            options["tools"] = request_tools(tools)
        if max_tokens is not None:
            # OpenAI's newer models refuse the old name; other servers may not know the new one.
            own = urlsplit(client.base_url).hostname == urlsplit(OPENAI_URL).hostname
            options["max_completion_tokens" if own else "max_tokens"] = max_tokens
        if client.temperature is not None:
            options["temperature"] = client.temperature
        if client.return_token_ids:
            options |= {"return_token_ids": True, "logprobs": True}
        return options

    def _read_chat(self, body: bytes, prices: Prices) -> Completion:
        return self._completion(msgspec.json.decode(body, type=WireResponse))

    def _completion(self, response: WireResponse) -> Completion:
        client = self._client
        if response.choices:
            try:
                return completion(
                    response, model=client.model, policy_version=client.policy_version, prices=client.prices
                )
            except ValueError as error:
                raise ModelRefused(f"{client.where} cannot be trained on: {error}") from None
        error = response.error
        if error is None:
            raise ModelUnavailable(f"{client.where} sent an answer without a choice")
        raise refusal(
            error.code if isinstance(error.code, int) else 502,
            one_line(error.message, (client.sdk.api_key,)),
            where=client.where,
            model=client.model,
            key_env=client.api_key_env,
        )


def _given(value: T | None) -> T | Omit:
    """For the SDK, to which ``None`` is a value."""
    from openai import omit

    return omit if value is None else value


def _sdk(base_url: str, api_key_env: str) -> AsyncOpenAI:
    try:
        import openai
    except ModuleNotFoundError:
        raise MissingExtra("openai", "openai") from None
    key = api_key(base_url, api_key_env)
    return openai.AsyncOpenAI(
        api_key=key or "no-key",
        base_url=base_url,
        max_retries=0,
        # A proxy from the environment cannot reach this host's loopback.
        http_client=openai.DefaultAsyncHttpxClient(trust_env=False) if is_local(base_url) else None,
    )


def _turn_seed(seed: int, replies: int) -> int:
    """31 bits, the narrowest that servers take. Equal noise in every turn would tie the turns together."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{replies}".encode(), digest_size=4).digest(), "big") >> 1
