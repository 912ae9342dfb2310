"""A policy as a model client: conversations whose token ids are kept, so that no text is tokenised a second time.

A :class:`PolicySession` holds the ids of its conversation. The first turn is rendered by the codec; every later one is
the ids so far, the sampled ids as they were sampled, and the suffix for what was added since. Each completion carries
:class:`~palmette.agents.conversation.Tokens`, from which :mod:`palmette.trainers.rows` builds training rows.

    client = PolicyClient(lambda request: batcher.submit(request, timeout=30.0), codec)
    session = client.session("trail-train-0-1", seed=7)
    completion = await session.complete([Message(role="user", content="find 3")], timeout=30.0)
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from palmette.agents.conversation import Completion, Message, Tokens, ToolSchema, Usage
from palmette.agents.errors import ContextFull, ModelRefused, ModelUnavailable
from palmette.trainers.batching import BatcherClosed, EngineCrashed, QueueFull
from palmette.trainers.sampling import BadRequest, Generate, SampleRequest, WindowExceeded
from palmette.trainers.tokenizer import Codec


@contextmanager
def boundary(model: str) -> Generator[None]:
    """Turn what a policy server in this process raises into the errors that every model client has."""
    try:
        yield
    except WindowExceeded as error:
        raise ContextFull(f"policy {model!r}: {error}") from error
    except BadRequest as error:
        raise ModelRefused(f"policy {model!r}: {error}") from error
    except (TimeoutError, QueueFull, EngineCrashed, BatcherClosed) as error:
        raise ModelUnavailable(f"policy {model!r}: {str(error) or 'no answer in time'}") from error


class PolicyClient:
    """Sessions with the policy behind ``generate``. Holds no connection; safe to share between episodes.

    ``max_tokens`` bounds a reply where the caller of :meth:`PolicySession.complete` gives no bound of its own.
    """

    def __init__(
        self,
        generate: Generate,
        codec: Codec,
        *,
        model: str = "policy",
        temperature: float = 1.0,
        max_tokens: int = 64,
    ) -> None:
        self._generate = generate
        self._codec = codec
        self._model = model
        self._temperature = temperature
        self._max_tokens = max_tokens

    def session(self, task_id: str, *, seed: int) -> PolicySession:
        """A fresh session. Its replies depend on ``task_id``, ``seed`` and the conversation only."""
        return PolicySession(
            self._generate,
            self._codec,
            key=f"{task_id}/{seed}",
            model=self._model,
            temperature=self._temperature,
            max_tokens=self._max_tokens,
        )

    async def close(self) -> None:
        """Nothing to give back: whoever made ``generate`` owns what is behind it."""


class PolicySession:
    """One conversation with a policy. Made by :meth:`PolicyClient.session`."""

    def __init__(
        self, generate: Generate, codec: Codec, *, key: str, model: str, temperature: float, max_tokens: int
    ) -> None:
        self._generate = generate
        self._codec = codec
        self._key = key
        self._model = model
        self._temperature = temperature
        self._max_tokens = max_tokens
        self._heard: tuple[Message, ...] = ()  # the conversation that `_ids` stands for, our replies included
        self._ids: tuple[int, ...] = ()
        self._closed = True  # whether the last reply ended with the end-of-turn id
        self._turn = 0

    async def complete(
        self,
        conversation: Sequence[Message],
        *,
        tools: Sequence[ToolSchema] = (),
        max_tokens: int | None = None,
        timeout: float,
    ) -> Completion:
        """Sample the next reply, within ``timeout`` seconds.

        A call that fails or is cancelled leaves the session as it was; the same turn may be asked for again and is
        sampled with the same seed.

        Raises:
            ModelUnavailable: no answer in time, or the server's queue is full, or its engine crashed or was closed.
            ContextFull: the conversation has outgrown the policy's window.
            ModelRefused: the request is bad in another way.
            ValueError: ``conversation`` does not begin with what was said before, or adds nothing to it.
            Whatever else ``generate`` raises.
        """
        prompt_ids = self._prompt(tuple(conversation), tools)
        request = SampleRequest(
            prompt_ids=prompt_ids,
            max_tokens=self._max_tokens if max_tokens is None else max_tokens,
            temperature=self._temperature,
            seed=self._seed(),
        )
        with boundary(self._model):
            async with asyncio.timeout(timeout):
                sample = await self._generate(request)
        self._closed = sample.output_ids[-1] == self._codec.eos_id
        message = Message(role="assistant", content=self._codec.decode(sample.output_ids))
        self._ids = prompt_ids + sample.output_ids
        self._heard = (*conversation, message)
        self._turn += 1
        return Completion(
            message=message,
            stop=sample.stop,
            usage=Usage(input_tokens=len(prompt_ids), output_tokens=len(sample.output_ids), cost=0.0),
            model=self._model,
            tokens=Tokens(
                prompt_ids=prompt_ids,
                output_ids=sample.output_ids,
                logprobs=sample.logprobs,
                policy_version=sample.policy_version,
            ),
        )

    def _prompt(self, conversation: tuple[Message, ...], tools: Sequence[ToolSchema]) -> tuple[int, ...]:
        if not self._heard:
            return self._codec.render(conversation, tools)
        known = len(self._heard)
        for index, (mine, given) in enumerate(zip(self._heard, conversation, strict=False)):
            if mine != given:
                raise ValueError(
                    f"message {index} is {given!r} but was {mine!r} before; a session's conversation only grows, "
                    "open a new session for another one"
                )
        if len(conversation) <= known:
            raise ValueError(f"the conversation has {len(conversation)} messages and {known} are known; add one first")
        return self._ids + self._codec.suffix(conversation[known:], closed=self._closed)

    def _seed(self) -> int:
        digest = hashlib.blake2b(f"{self._key}/{self._turn}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little")
