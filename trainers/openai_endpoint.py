"""A policy behind the OpenAI HTTP interface, on loopback, for agents that speak nothing else.

``/v1/models``, ``/v1/chat/completions`` and ``/v1/completions``, answered by a
:data:`~palmette.trainers.sampling.Generate`. As in vLLM, ``return_token_ids`` adds the ids that went in and came out,
and a completion's ``prompt`` may be a list of ids: so an agent can keep token truth over plain HTTP. Every request
needs the bearer token. A field that would be ignored is refused instead, by name; nothing is streamed.

    async with OpenAIEndpoint(generate, codec, token=secrets.token_urlsafe()) as endpoint:
        client = openai.AsyncOpenAI(base_url=endpoint.base_url, api_key=endpoint.token)
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

import msgspec

from palmette.agents.conversation import Message
from palmette.agents.serving import listen, serve
from palmette.trainers.batching import BatcherClosed, EngineCrashed, QueueFull
from palmette.trainers.sampling import BadRequest, Generate, Sample, SampleRequest
from palmette.trainers.tokenizer import Codec

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

_MAX_BODY = 8 << 20


class _Part(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["text"]
    text: str


class _ChatMessage(msgspec.Struct, forbid_unknown_fields=True):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_Part]
    name: str | None = None
    tool_call_id: str | None = None


class _Common(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What both kinds of request share. The ``Literal``s admit only the value that changes nothing."""

    model: str
    max_tokens: int | None = None
    temperature: float = 1.0
    seed: int | None = None
    stop: str | list[str] | None = None
    return_token_ids: bool = False
    n: Literal[1] | None = None
    stream: bool | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    user: str | None = None


class _Chat(_Common, forbid_unknown_fields=True, kw_only=True):
    messages: list[_ChatMessage]
    max_completion_tokens: int | None = None
    logprobs: bool = False
    top_logprobs: Literal[0] | None = None


class _Completion(_Common, forbid_unknown_fields=True, kw_only=True):
    prompt: str | list[int]
    logprobs: Literal[0, 1] | None = None
    """0 and 1 mean the same here: the log-probability of what was sampled, and of nothing else."""


class _Refused(Exception):
    def __init__(self, status: int, message: str, kind: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


@contextlib.contextmanager
def _boundary() -> Generator[None]:
    """What went wrong, as an HTTP status. Anything else is a bug here and becomes uvicorn's bare 500."""
    try:
        yield
    except msgspec.ValidationError as error:
        raise _Refused(400, str(error), "invalid_request_error") from error
    except msgspec.DecodeError as error:
        raise _Refused(400, f"the body is not JSON: {error}", "invalid_request_error") from error
    except BadRequest as error:
        raise _Refused(400, str(error), "invalid_request_error") from error
    except QueueFull as error:
        raise _Refused(429, str(error), "rate_limit_error") from error
    except TimeoutError as error:
        raise _Refused(504, str(error) or "no answer in time", "timeout") from error
    except (BatcherClosed, EngineCrashed) as error:
        raise _Refused(503, str(error), "server_error") from error


class OpenAIEndpoint:
    """An HTTP server in the running event loop. It installs no signal handler and listens on 127.0.0.1 only.

    ``timeout`` is in seconds per request; ``port`` 0 takes a free one, known as :attr:`port` once started.
    """

    def __init__(
        self,
        generate: Generate,
        codec: Codec,
        *,
        model: str = "policy",
        token: str | None = None,
        port: int = 0,
        max_tokens: int = 64,
        timeout: float = 60.0,
    ) -> None:
        self.model = model
        self.token = secrets.token_urlsafe(32) if token is None else token
        """What clients send as their API key."""
        if not self.token:
            raise ValueError("the bearer token is empty; leave it out to have one made")
        self._generate = generate
        self._codec = codec
        self._wanted_port = port
        self._max_tokens = max_tokens
        self._timeout = timeout
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"OpenAIEndpoint(model={self.model!r}, port={self._socket and self.port})"

    @property
    def port(self) -> int:
        """The port that is listened on.

        Raises:
            RuntimeError: the endpoint has not been started.
        """
        if self._socket is None:
            raise RuntimeError("the endpoint is not running; call start() first")
        return int(self._socket.getsockname()[1])

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen: requests are taken when this returns.

        Raises:
            OSError: the port is taken.
            RuntimeError: it runs already.
        """
        if self._task is not None:
            raise RuntimeError("the endpoint runs already; stop() it first")
        app = self._app()
        self._socket = listen(self._wanted_port)  # from here on requests are taken
        self._task = asyncio.create_task(
            serve(app, self._socket, name="palmette-openai-endpoint", finish=True), name="palmette-openai-endpoint"
        )

    async def stop(self) -> None:
        """Let running requests end, for five seconds at most, and close. Stopping twice is fine."""
        task, self._task = self._task, None
        listener, self._socket = self._socket, None
        if task is not None and listener is not None:
            task.cancel()
            await asyncio.wait([task])
            listener.close()  # the server did, unless it never began
            if not task.cancelled():
                task.result()

    def _app(self) -> Starlette:
        from starlette.applications import Starlette
        from starlette.routing import Route

        return Starlette(
            routes=[
                Route("/v1/models", self._guarded(self._models), methods=["GET"]),
                Route("/v1/chat/completions", self._guarded(self._chat), methods=["POST"]),
                Route("/v1/completions", self._guarded(self._complete), methods=["POST"]),
            ]
        )

    def _guarded(
        self, answer: Callable[[Request], Awaitable[dict[str, object]]]
    ) -> Callable[[Request], Awaitable[Response]]:
        from starlette.responses import JSONResponse

        async def handle(request: Request) -> Response:
            try:
                given = request.headers.get("authorization", "")
                if not hmac.compare_digest(given.encode(), f"Bearer {self.token}".encode()):
                    raise _Refused(401, "the bearer token is missing or wrong", "authentication_error")
                with _boundary():
                    return JSONResponse(await answer(request))
            except _Refused as refusal:
                error = {"message": str(refusal), "type": refusal.kind, "param": None, "code": None}
                return JSONResponse({"error": error}, status_code=refusal.status)

        return handle

    async def _models(self, request: Request) -> dict[str, object]:
        return {"object": "list", "data": [{"id": self.model, "object": "model", "created": 0, "owned_by": "palmette"}]}

    async def _chat(self, request: Request) -> dict[str, object]:
        asked = msgspec.json.decode(await _body(request), type=_Chat)
        prompt_ids = self._codec.render([_message(message) for message in asked.messages])
        sample, text = await self._sample(asked, prompt_ids, asked.max_completion_tokens or asked.max_tokens)
        choice: dict[str, object] = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": sample.stop,
            "logprobs": {"content": self._token_logprobs(sample)} if asked.logprobs else None,
        }
        answer = self._answer("chat.completion", prompt_ids, sample, choice)
        if asked.return_token_ids:
            answer["prompt_token_ids"] = prompt_ids
            choice["token_ids"] = sample.output_ids
        return answer

    async def _complete(self, request: Request) -> dict[str, object]:
        asked = msgspec.json.decode(await _body(request), type=_Completion)
        prompt_ids = self._codec.encode(asked.prompt) if isinstance(asked.prompt, str) else tuple(asked.prompt)
        sample, text = await self._sample(asked, prompt_ids, asked.max_tokens)
        choice: dict[str, object] = {"index": 0, "text": text, "finish_reason": sample.stop, "logprobs": None}
        if asked.logprobs is not None:
            tokens = [self._codec.text([token]) for token in sample.output_ids]
            choice["logprobs"] = {
                "tokens": tokens,
                "token_logprobs": sample.logprobs,
                "top_logprobs": None,
                "text_offset": [sum(map(len, tokens[:index])) for index in range(len(tokens))],
            }
        if asked.return_token_ids:
            choice["prompt_token_ids"] = prompt_ids
            choice["token_ids"] = sample.output_ids
        return self._answer("text_completion", prompt_ids, sample, choice)

    async def _sample(self, asked: _Common, prompt_ids: tuple[int, ...], max_tokens: int | None) -> tuple[Sample, str]:
        if asked.model != self.model:
            raise _Refused(404, f"there is no model {asked.model!r}; there is {self.model!r}", "invalid_request_error")
        if asked.stream:
            raise BadRequest("stream=true is not offered here; leave it out")
        for field, neutral in (("top_p", 1.0), ("presence_penalty", 0.0), ("frequency_penalty", 0.0)):
            if getattr(asked, field) not in (None, neutral):
                raise BadRequest(f"{field} is not offered here; leave it out, or give {neutral:g}, which does nothing")
        stops = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
        sample = await asyncio.wait_for(
            self._generate(
                SampleRequest(
                    prompt_ids=prompt_ids,
                    max_tokens=self._max_tokens if max_tokens is None else max_tokens,
                    temperature=asked.temperature,
                    seed=secrets.randbits(63) if asked.seed is None else asked.seed,
                    stop=tuple(self._codec.encode(stop) for stop in stops),
                )
            ),
            self._timeout,
        )
        text = self._codec.decode(sample.output_ids)
        # As OpenAI does: the text ends before the stop sequence. The token ids keep it.
        return sample, next((text.removesuffix(stop) for stop in stops if text.endswith(stop)), text)

    def _token_logprobs(self, sample: Sample) -> list[dict[str, object]]:
        return [
            {"token": self._codec.text([token]), "logprob": logprob, "bytes": None, "top_logprobs": []}
            for token, logprob in zip(sample.output_ids, sample.logprobs, strict=True)
        ]

    def _answer(
        self, kind: str, prompt_ids: tuple[int, ...], sample: Sample, choice: dict[str, object]
    ) -> dict[str, object]:
        return {
            "id": f"palmette-{secrets.token_hex(8)}",
            "object": kind,
            "created": int(time.time()),
            "model": self.model,
            "choices": [choice],
            "usage": {
                "prompt_tokens": len(prompt_ids),
                "completion_tokens": len(sample.output_ids),
                "total_tokens": len(prompt_ids) + len(sample.output_ids),
            },
            "policy_version": sample.policy_version,
        }


async def _body(request: Request) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > _MAX_BODY:
            raise _Refused(413, f"the body is larger than {_MAX_BODY} bytes", "invalid_request_error")
        parts.append(part)
    return b"".join(parts)


def _message(given: _ChatMessage) -> Message:
    content = given.content if isinstance(given.content, str) else "".join(part.text for part in given.content)
    role = "system" if given.role == "developer" else given.role
    return Message(role=role, content=content, tool_call_id=given.tool_call_id)
