"""A streamed chat completion put together again, so that it is read like any other.

>>> stream = ChatStream()
>>> stream.add('{"choices":[{"delta":{"content":"he"}}]}'), stream.add('{"choices":[{"delta":{"content":"y"}}]}')
('he', 'y')
>>> stream.response().choices[0].message.content
'hey'
"""

from __future__ import annotations

import msgspec

from palmette.agents.openai_wire import (
    WireCall,
    WireChoice,
    WireError,
    WireFunction,
    WireLogprob,
    WireLogprobs,
    WireResponse,
    WireSaid,
    WireSpent,
)

DONE = "[DONE]"
"""The last event of a stream."""


class _FunctionDelta(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _CallDelta(msgspec.Struct):
    index: int = 0
    id: str | None = None
    function: _FunctionDelta = msgspec.field(default_factory=_FunctionDelta)


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_CallDelta] | None = None


class _ChoiceDelta(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    index: int = 0
    finish_reason: str | None = None
    logprobs: WireLogprobs | None = None
    token_ids: list[int] | None = None


class _Chunk(msgspec.Struct):
    choices: list[_ChoiceDelta] = []
    model: str | None = None
    usage: WireSpent | None = None
    prompt_token_ids: list[int] | None = None
    policy_version: int | None = None
    error: WireError | None = None


class ChatStream:
    """Takes the data of a stream's events. Only the first choice is kept."""

    def __init__(self) -> None:
        self._content: list[str] = []
        self._refusal: list[str] = []
        self._calls: dict[int, WireCall] = {}
        self._logprobs: list[WireLogprob] | None = None
        self._token_ids: list[int] | None = None
        self._began = False
        self._finish: str | None = None
        self._rest = _Chunk()
        self.is_done = False
        """Whether the stream's last event came: without it, it broke off."""

    def add(self, data: str) -> str:
        """One event; the text that it added.

        Raises:
            msgspec.DecodeError: it is no chunk of a chat completion.
        """
        if data == DONE:
            self.is_done = True
            return ""
        chunk = msgspec.json.decode(data, type=_Chunk)
        for name in ("model", "usage", "prompt_token_ids", "policy_version", "error"):
            value: object = getattr(chunk, name)
            if value is not None:
                setattr(self._rest, name, value)
        return "".join(self._choice(choice) for choice in chunk.choices if choice.index == 0)

    def response(self) -> WireResponse:
        """What came so far, as if it had come at once."""
        choices: list[WireChoice] = []
        if self._began:
            choices.append(
                WireChoice(
                    message=WireSaid(
                        content="".join(self._content) if self._content else None,
                        refusal="".join(self._refusal) if self._refusal else None,
                        tool_calls=[self._calls[index] for index in sorted(self._calls)] or None,
                    ),
                    finish_reason=self._finish,
                    logprobs=None if self._logprobs is None else WireLogprobs(self._logprobs),
                    token_ids=self._token_ids,
                )
            )
        rest = self._rest
        return WireResponse(
            choices=choices,
            model=rest.model,
            usage=rest.usage,
            prompt_token_ids=rest.prompt_token_ids,
            policy_version=rest.policy_version,
            error=rest.error,
        )

    def _choice(self, choice: _ChoiceDelta) -> str:
        self._began = True
        delta = choice.delta
        self._finish = choice.finish_reason or self._finish
        if delta.content:
            self._content.append(delta.content)
        if delta.refusal:
            self._refusal.append(delta.refusal)
        for call in delta.tool_calls or ():
            known = self._calls.setdefault(call.index, WireCall(function=WireFunction(name="", arguments="")))
            known.id = call.id or known.id
            known.function.name = known.function.name or call.function.name or ""
            known.function.arguments = (known.function.arguments or "") + (call.function.arguments or "")
        if choice.logprobs is not None and choice.logprobs.content is not None:
            self._logprobs = self._logprobs or []
            self._logprobs += choice.logprobs.content
        if choice.token_ids is not None:
            self._token_ids = self._token_ids or []
            self._token_ids += choice.token_ids
        return delta.content or ""
