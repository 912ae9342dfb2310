"""One call of a model by a program: permit, request, answer, record."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING

import msgspec

from palmette.actors import Ref
from palmette.agents.boundary import one_line, retry_after
from palmette.agents.conversation import Completion
from palmette.agents.errors import BudgetSpent, ModelError
from palmette.agents.limiter import Limiter, Report, permit
from palmette.agents.openai_wire import Object
from palmette.agents.proxy.exchange import Exchange, HungUp, waiting
from palmette.agents.proxy.records import Api, Upstream
from palmette.agents.proxy.session import Session
from palmette.agents.proxy.streams import recorder
from palmette.agents.proxy.upstream import Line
from palmette.agents.proxy.wire import answered, conversation, rewritten, wants_usage
from palmette.agents.server_sent import EventReader

if TYPE_CHECKING:
    import httpx2

PATHS: dict[str, Api] = {"chat/completions": "chat", "completions": "completions", "responses": "responses"}
_HUNG_UP = 499
"""nginx's number for it."""
_OVERLOADED = frozenset({429, 503, 529})


class ModelCall:
    """See the module's text.

    Args:
        session: Whose call it is.
        exchange: Its HTTP side; the body was read.
        path: One of ``PATHS``.
        body: What the program sent.
        upstream: Where it goes,
        line: and through what.
    """

    def __init__(
        self, session: Session, exchange: Exchange, path: str, body: Object, *, upstream: Upstream, line: Line
    ) -> None:
        self._session = session
        self._exchange = exchange
        self._path = path
        self._api: Api = PATHS[path]
        self._asked = body
        self._sent = rewritten(self._api, body, upstream)
        self._heard = conversation(self._api, body)
        self._upstream = upstream
        self._line = line
        self._began = time.monotonic()
        self._is_told = False

    async def run(self, limiter: Ref[Limiter] | None) -> None:
        """Answer the program, and tell the session how it went, whatever happens."""
        try:
            await self._exchange.unless_gone(self._ask(limiter))
        except HungUp:
            self._tell(_HUNG_UP, None, "the program hung up")
        except ModelError as error:
            spent = isinstance(error, BudgetSpent)
            status = 402 if spent else 502 if error.retry_after is None else 429
            self._tell(status, None, str(error), error.retry_after)
            if self._exchange.is_begun:  # the status has gone out; an answer without its end is all that can be said
                raise HungUp from None
            code = "budget_spent" if spent else "unavailable"
            await self._exchange.refuse(status, str(error), code, error.retry_after)
        finally:
            self._tell(_HUNG_UP, None, "the session was closed")

    async def _ask(self, limiter: Ref[Limiter] | None) -> None:
        await self._session.may_call()
        self._began = time.monotonic()
        async with (
            self._permitted(limiter) as report,
            self._line.ask("POST", self._path, self._sent) as answer,
        ):
            status, asked_to_wait = answer.status_code, retry_after(answer.headers)
            if status >= 400:
                completion = None
                text = self._line.without_key((await answer.aread()).decode("utf-8", "replace"))
                self._tell(status, None, one_line(text, ()), asked_to_wait)
                kind = answer.headers.get("content-type", "text/plain")
                await self._exchange.reply(status, text.encode(), kind, waiting(asked_to_wait))
            elif self._sent.get("stream") is True:
                completion = await self._stream(answer)
            else:
                whole = await answer.aread()
                completion = self._read(status, lambda: answered(self._api, whole, self._upstream, self._model))
                await self._exchange.reply(status, whole, answer.headers.get("content-type", "application/json"))
            report(_report(status, asked_to_wait, completion))

    async def _stream(self, answer: httpx2.Response) -> Completion | None:
        """Pass the events on as they come."""
        taken, reader, wants = recorder(self._api, self._upstream, self._model), EventReader(), wants_usage(self._asked)
        await self._exchange.start(answer.status_code, "text/event-stream")
        async for piece in answer.aiter_bytes():
            passed: list[str] = []
            for data in reader.feed(piece):
                # Not asked for by the program, which may not expect an event without a choice.
                if not _is_only_usage(taken.add, data) or wants:
                    passed.append(_event(self._api, data))
            if passed:
                await self._exchange.piece("".join(passed).encode())
        completion = self._read(answer.status_code, taken.completion)
        await self._exchange.end()
        return completion

    def _read(self, status: int, read: Callable[[], Completion | None]) -> Completion | None:
        """The completion, recorded. What cannot be read is passed on all the same."""
        try:
            completion = read()
            error = "" if completion is not None else "the answer has no completion in it, or broke off"
        except (ValueError, msgspec.DecodeError) as unreadable:
            completion, error = None, f"the answer cannot be read: {unreadable}"
        self._tell(status, completion, error)
        return completion

    def _tell(self, status: int, completion: Completion | None, error: str, asked_to_wait: float | None = None) -> None:
        if not self._is_told:
            self._is_told = True
            self._session.called(
                self._api,
                status,
                self._heard,
                completion,
                seconds=time.monotonic() - self._began,
                error=error,
                retry_after=asked_to_wait,
            )

    @property
    def _model(self) -> str:
        return str(self._sent.get("model", ""))

    @contextlib.asynccontextmanager
    async def _permitted(self, limiter: Ref[Limiter] | None) -> AsyncGenerator[Callable[[Report], None]]:
        if limiter is None:
            yield lambda report: None
            return
        session = self._session
        async with permit(
            limiter,
            holder=session.id if session.owner is None else session.owner.path,
            timeout=self._upstream.seconds,
            tokens=sum(len(message.content) for message in self._heard) // 4,
            owner=session.owner,
        ) as request:
            yield request.ended


def _is_only_usage(add: Callable[[str], bool], data: str) -> bool:
    try:
        return add(data)
    except (msgspec.DecodeError, UnicodeError):
        return False  # not ours to judge


def _event(api: Api, data: str) -> str:
    lines = "".join(f"data: {line}\n" for line in data.split("\n"))
    if api == "responses":  # whose events have names, told again in their data
        kind = msgspec.json.decode(data, type=_Named).type if data.startswith("{") else ""
        return f"event: {kind}\n{lines}\n" if kind else f"{lines}\n"
    return f"{lines}\n"


class _Named(msgspec.Struct):
    type: str = ""


def _report(status: int, asked_to_wait: float | None, completion: Completion | None) -> Report:
    if status in _OVERLOADED:
        return Report(outcome="overloaded", retry_after=asked_to_wait)
    if status >= 500 or status == 408:
        return Report(outcome="failed", retry_after=asked_to_wait)
    if status >= 400:
        return Report(outcome="refused")
    if completion is None:
        return Report(outcome="failed")
    usage = completion.usage
    return Report(outcome="ok", tokens=usage.input_tokens + usage.output_tokens, dollars=usage.cost)
