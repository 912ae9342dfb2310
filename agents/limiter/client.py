"""Asking a limiter before each request, and telling it afterwards how that went.

>>> client = LimitedClient(OpenAIClient("gpt-5"), limiter, owner=self.ref)     # in an actor: sessions as ever
>>> async with permit(limiter, holder="judge", timeout=60) as request:         # around any other request
...     request.ended(Report(outcome="ok", tokens=812))
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, Sequence

from palmette.actors import Actor, DeadlineExceeded, Ref, deadline
from palmette.agents.conversation import Completion, Message, ModelClient, Session, ToolSchema
from palmette.agents.errors import BudgetSpent, ModelError, ModelUnavailable
from palmette.agents.limiter.actor import Limiter
from palmette.agents.limiter.records import Denied, Report

_CHARACTERS_PER_TOKEN = 4
"""A rule of thumb for English text; the true number is settled when the request has ended."""
_REPLY_TOKENS = 1000
"""What a reply without a limit of its own is reckoned at."""


class Permitted:
    """A request that may be sent."""

    def __init__(self, limiter: Ref[Limiter], ticket: str) -> None:
        self._limiter = limiter
        self._ticket = ticket
        self._told = False

    def ended(self, report: Report) -> None:
        """Tell how it ended; the first word counts."""
        if not self._told:
            self._told = True
            self._limiter.cast(Limiter.report, self._ticket, report)


@contextlib.asynccontextmanager
async def permit(
    limiter: Ref[Limiter],
    *,
    holder: str,
    timeout: float,
    tokens: int = 0,
    owner: Ref[Actor] | None = None,
) -> AsyncGenerator[Permitted]:
    """A block in which one request may be sent.

    A :class:`~palmette.agents.errors.ModelError` that leaves the block is reported as what it is; a block that is
    left without a word, for instance because it was cancelled, counts as a request that nobody knows the end of.

    Args:
        limiter: Whom to ask.
        holder: Who asks; holders take turns.
        timeout: Seconds to wait for the permit, and again for the request.
        tokens: That the request will probably take.
        owner: An actor whose death gives the permit back.

    Raises:
        ModelUnavailable: no permit came in time, or the provider is down.
        BudgetSpent: there is nothing left to spend.
        ActorDied: the limiter is not running.
    """
    ticket = secrets.token_hex(8)
    request = Permitted(limiter, ticket)
    try:
        with deadline(timeout):
            denied = await limiter.call(Limiter.acquire, ticket, holder, tokens=tokens, seconds=timeout, owner=owner)
    except DeadlineExceeded:
        request.ended(Report(outcome="unused"))
        raise ModelUnavailable(f"no permit for a request to the model within {timeout:g} s") from None
    except asyncio.CancelledError:
        request.ended(Report(outcome="unused"))
        raise
    if denied is not None:
        raise _refusal(denied)
    try:
        yield request
    except ModelError as error:
        request.ended(report_of(error))
        raise
    finally:
        request.ended(Report(outcome="lost"))


def report_of(error: ModelError) -> Report:
    """What a limiter is to know of ``error``."""
    if not isinstance(error, ModelUnavailable):
        return Report(outcome="refused")
    return Report(outcome="overloaded" if error.overloaded else "failed", retry_after=error.retry_after)


class LimitedClient:
    """The sessions of ``client``, each request with a permit of ``limiter``.

    Args:
        client: Any model client.
        limiter: Of its provider.
        owner: The actor whose sessions they are: its death gives its permits back, and it has its turn as one
            holder. Without one each session is a holder.
    """

    def __init__(self, client: ModelClient, limiter: Ref[Limiter], *, owner: Ref[Actor] | None = None) -> None:
        self._client = client
        self._limiter = limiter
        self._owner = owner

    def __repr__(self) -> str:
        return f"LimitedClient({self._client!r}, {self._limiter.path})"

    def session(self, task_id: str, *, seed: int) -> LimitedSession:
        """A session of the client within."""
        holder = self._owner.path if self._owner is not None else f"{task_id}/{seed}"
        return LimitedSession(self._client.session(task_id, seed=seed), self._limiter, holder, self._owner)

    async def close(self) -> None:
        """Close the client within."""
        await self._client.close()


class LimitedSession:
    """Made by :meth:`LimitedClient.session`."""

    def __init__(self, session: Session, limiter: Ref[Limiter], holder: str, owner: Ref[Actor] | None) -> None:
        self._session = session
        self._limiter = limiter
        self._holder = holder
        self._owner = owner

    async def complete(
        self,
        conversation: Sequence[Message],
        *,
        tools: Sequence[ToolSchema] = (),
        max_tokens: int | None = None,
        timeout: float,
    ) -> Completion:
        """As the session within; the wait for the permit, up to ``timeout`` seconds, comes on top.

        Raises:
            BudgetSpent: there is nothing left to spend.
        """
        async with permit(
            self._limiter,
            holder=self._holder,
            timeout=timeout,
            tokens=_reckoned(conversation, max_tokens),
            owner=self._owner,
        ) as request:
            completion = await self._session.complete(conversation, tools=tools, max_tokens=max_tokens, timeout=timeout)
            usage = completion.usage
            request.ended(Report(outcome="ok", tokens=usage.input_tokens + usage.output_tokens, dollars=usage.cost))
            return completion


def _reckoned(conversation: Sequence[Message], max_tokens: int | None) -> int:
    characters = sum(len(message.content) for message in conversation)
    return characters // _CHARACTERS_PER_TOKEN + (_REPLY_TOKENS if max_tokens is None else max_tokens)


def _refusal(denied: Denied) -> ModelError:
    if denied.reason == "budget":
        return BudgetSpent(denied.text)
    return ModelUnavailable(denied.text, retry_after=denied.retry_after)
