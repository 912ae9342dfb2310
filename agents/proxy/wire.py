"""What programs send and models answer, on OpenAI's three interfaces, read as conversations. Pure functions.

Nothing here refuses a request: what a program sends is the model's to judge. What cannot be read is kept as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import msgspec

from palmette.agents.conversation import Completion, Message, Role, StopReason, Tokens, ToolCall, Usage
from palmette.agents.openai_wire import Object, WireResponse, completion
from palmette.agents.proxy.records import Api, Upstream

_ROLES: dict[object, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
Objects = list[Mapping[str, object]]


def rewritten(api: Api, body: Object, upstream: Upstream) -> Object:
    """``body`` as it goes to the model: its name, and what is needed to record."""
    sent = dict(body)
    if upstream.model is not None:
        sent["model"] = upstream.model
    if api != "responses":
        if upstream.return_token_ids:
            sent |= {"return_token_ids": True, "logprobs": True if api == "chat" else 1}
        if sent.get("stream") is True:
            options = sent.get("stream_options")
            known = cast("Object", options) if isinstance(options, dict) else {}
            sent["stream_options"] = known | {"include_usage": True}
    return sent


def wants_usage(body: Object) -> bool:
    """Whether the program itself asked for the event with the usage, in which there is no choice."""
    options = body.get("stream_options")
    return isinstance(options, dict) and cast("Object", options).get("include_usage") is True


def conversation(api: Api, body: Object) -> tuple[Message, ...]:
    """What the model is told by a request."""
    match api:
        case "chat":
            return tuple(_message(each) for each in _objects(body.get("messages")))
        case "completions":
            return (Message(role="user", content=_text(body.get("prompt"))),)
        case "responses":
            opening = body.get("instructions")
            first = [Message(role="system", content=opening)] if isinstance(opening, str) else []
            given = body.get("input")
            if isinstance(given, str):
                return (*first, Message(role="user", content=given))
            return (*first, *(_item(each) for each in _objects(given)))


def answered(api: Api, body: bytes, upstream: Upstream, model: str) -> Completion | None:
    """The completion in a response's body; ``None`` where there is none.

    Raises:
        ValueError: it cannot be read.
    """
    if api == "responses":
        return read_response(body, upstream.prices)
    if api == "completions":
        return read_text(body, upstream.prices)
    return read_chat(msgspec.json.decode(body, type=WireResponse), upstream, model)


def read_chat(response: WireResponse, upstream: Upstream, model: str) -> Completion | None:
    """Of a chat completion. Raises ValueError where its token ids do not fit."""
    if not response.choices:
        return None
    return completion(response, model=model, policy_version=0, prices=upstream.prices)


class _TextLogprobs(msgspec.Struct):
    token_logprobs: list[float | None] = []


class _TextChoice(msgspec.Struct):
    text: str = ""
    finish_reason: str | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    logprobs: _TextLogprobs | None = None


class _Spent(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None


class _TextResponse(msgspec.Struct):
    choices: list[_TextChoice] = []
    model: str = ""
    usage: _Spent | None = None
    policy_version: int = 0


def read_text(body: bytes, prices: tuple[float, float] | None) -> Completion | None:
    """Of a completion of the older kind. Raises ValueError where it cannot be read."""
    response = msgspec.json.decode(body, type=_TextResponse)
    if not response.choices:
        return None
    choice = response.choices[0]
    stop: StopReason = "length" if choice.finish_reason == "length" else "stop"
    tokens: Tokens | None = None
    if choice.token_ids is not None and choice.prompt_token_ids is not None and choice.logprobs is not None:
        logprobs = choice.logprobs.token_logprobs
        if len(logprobs) != len(choice.token_ids):
            raise ValueError(f"{len(choice.token_ids)} token ids came with {len(logprobs)} log-probabilities")
        tokens = Tokens(
            prompt_ids=tuple(choice.prompt_token_ids),
            output_ids=tuple(choice.token_ids),
            logprobs=tuple(value or 0.0 for value in logprobs),
            policy_version=response.policy_version,
        )
    return Completion(
        message=Message(role="assistant", content=choice.text),
        stop=stop,
        usage=_usage(response.usage, prices),
        model=response.model,
        tokens=tokens,
    )


class _Response(msgspec.Struct):
    output: list[dict[str, object]] = []
    model: str = ""
    status: str = ""
    usage: _Spent | None = None


def read_response(body: bytes, prices: tuple[float, float] | None) -> Completion | None:
    """Of the responses interface: its texts and function calls. Raises ValueError where it cannot be read."""
    response = msgspec.json.decode(body, type=_Response)
    if not response.output:
        return None
    calls = tuple(_function_call(item) for item in response.output if item.get("type") == "function_call")
    texts = [_text(item.get("content")) for item in response.output if item.get("type") == "message"]
    return Completion(
        message=Message(role="assistant", content="".join(texts), tool_calls=calls),
        stop="length" if response.status == "incomplete" else "tool_calls" if calls else "stop",
        usage=_usage(response.usage, prices),
        model=response.model,
    )


def _usage(spent: _Spent | None, prices: tuple[float, float] | None) -> Usage:
    if spent is None:
        return Usage()
    came_in = spent.prompt_tokens or spent.input_tokens
    went_out = spent.completion_tokens or spent.output_tokens
    cost = spent.cost
    if cost is None and prices is not None:
        cost = (came_in * prices[0] + went_out * prices[1]) / 1e6
    return Usage(input_tokens=came_in, output_tokens=went_out, cost=cost)


def _message(given: Mapping[str, object]) -> Message:
    answers = given.get("tool_call_id")
    return Message(
        role=_ROLES.get(given.get("role"), "user"),
        content=_text(given.get("content")),
        tool_calls=tuple(
            ToolCall(id=_text(call.get("id")), name=_text(fn.get("name")), arguments=_text(fn.get("arguments")))
            for call in _objects(given.get("tool_calls"))
            for fn in _objects([call.get("function")])
        ),
        tool_call_id=answers if isinstance(answers, str) else None,
    )


def _item(given: Mapping[str, object]) -> Message:
    """An entry of the responses interface's ``input``."""
    match given.get("type"):
        case "function_call":
            return Message(role="assistant", content="", tool_calls=(_function_call(given),))
        case "function_call_output":
            return Message(
                role="tool", content=_text(given.get("output")), tool_call_id=_text(given.get("call_id")) or None
            )
        case _:
            return _message(given)


def _function_call(item: Mapping[str, object]) -> ToolCall:
    return ToolCall(id=_text(item.get("call_id")), name=_text(item.get("name")), arguments=_text(item.get("arguments")))


def _objects(value: object) -> Objects:
    if not isinstance(value, list):
        return []
    return [cast("Mapping[str, object]", each) for each in cast("list[object]", value) if isinstance(each, dict)]


def _text(value: object) -> str:
    """The text of a content, of whatever form."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    parts = _objects(value)
    if not parts:
        return msgspec.json.encode(value).decode()
    texts = [part.get("text", part.get("refusal")) for part in parts]
    return "".join(
        text if isinstance(text, str) else f"[{part.get('type')}]" for text, part in zip(texts, parts, strict=True)
    )
