"""What programs send and models answer, on OpenAI's three interfaces, read as conversations. Pure functions.

Nothing here refuses a request: what a program sends is the model's to judge. What cannot be read is kept as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import msgspec

from palmette.agents.conversation import Completion, Message, Role, ToolCall
from palmette.agents.openai_interfaces import function_call, objects, read_response, read_text, text_of
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
            return tuple(_message(each) for each in objects(body.get("messages")))
        case "completions":
            return (Message(role="user", content=text_of(body.get("prompt"))),)
        case "responses":
            opening = body.get("instructions")
            first = [Message(role="system", content=opening)] if isinstance(opening, str) else []
            given = body.get("input")
            if isinstance(given, str):
                return (*first, Message(role="user", content=given))
            return (*first, *(_item(each) for each in objects(given)))


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


def _message(given: Mapping[str, object]) -> Message:
    answers = given.get("tool_call_id")
    return Message(
        role=_ROLES.get(given.get("role"), "user"),
        content=text_of(given.get("content")),
        tool_calls=tuple(
            ToolCall(id=text_of(call.get("id")), name=text_of(fn.get("name")), arguments=text_of(fn.get("arguments")))
            for call in objects(given.get("tool_calls"))
            for fn in objects([call.get("function")])
        ),
        tool_call_id=answers if isinstance(answers, str) else None,
    )


def _item(given: Mapping[str, object]) -> Message:
    """An entry of the responses interface's ``input``."""
    match given.get("type"):
        case "function_call":
            return Message(role="assistant", content="", tool_calls=(function_call(given),))
        case "function_call_output":
            return Message(
                role="tool", content=text_of(given.get("output")), tool_call_id=text_of(given.get("call_id")) or None
            )
        case _:
            return _message(given)
