"""OpenAI's two other interfaces: text completions, which take and give token ids, and responses. Pure functions.

What they share with chat completions is in :mod:`~palmette.agents.openai_wire`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import msgspec

from palmette.agents.conversation import Completion, Message, StopReason, Tokens, ToolCall, ToolSchema, Usage
from palmette.agents.openai_wire import Object, WireError

Prices = tuple[float, float] | None


class _Spent(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None


class _TextLogprobs(msgspec.Struct):
    token_logprobs: list[float | None] = []


class _TextChoice(msgspec.Struct):
    text: str = ""
    finish_reason: str | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    logprobs: _TextLogprobs | None = None


class _TextResponse(msgspec.Struct):
    choices: list[_TextChoice] = []
    model: str = ""
    usage: _Spent | None = None
    policy_version: int = 0
    error: WireError | None = None


def read_text(body: bytes, prices: Prices) -> Completion | None:
    """A text completion's first choice; ``None`` where there is none.

    Raises:
        ValueError: it cannot be read, or its token ids do not fit its log-probabilities.
    """
    response = msgspec.json.decode(body, type=_TextResponse)
    if not response.choices:
        return None
    choice = response.choices[0]
    stop: StopReason = "length" if choice.finish_reason == "length" else "stop"
    tokens: Tokens | None = None
    if choice.token_ids is not None and choice.prompt_token_ids is not None and choice.logprobs is not None:
        logprobs = [value for value in choice.logprobs.token_logprobs if value is not None]
        if len(logprobs) != len(choice.token_ids):
            raise ValueError(f"{len(choice.token_ids)} token ids came with {len(logprobs)} log-probabilities")
        tokens = Tokens(
            prompt_ids=tuple(choice.prompt_token_ids),
            output_ids=tuple(choice.token_ids),
            logprobs=tuple(logprobs),
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


def read_response(body: bytes, prices: Prices) -> Completion | None:
    """A response's texts and function calls; ``None`` where it has no output.

    Raises:
        ValueError: it cannot be read.
    """
    response = msgspec.json.decode(body, type=_Response)
    if not response.output:
        return None
    calls = tuple(function_call(item) for item in response.output if item.get("type") == "function_call")
    texts = [text_of(item.get("content")) for item in response.output if item.get("type") == "message"]
    return Completion(
        message=Message(role="assistant", content="".join(texts), tool_calls=calls),
        stop="length" if response.status == "incomplete" else "tool_calls" if calls else "stop",
        usage=_usage(response.usage, prices),
        model=response.model,
    )


def response_request(conversation: Sequence[Message], tools: Sequence[ToolSchema]) -> Object:
    """``conversation`` and ``tools`` as the responses interface wants them. Nothing is kept at the server."""
    request: Object = {"input": [item for message in conversation for item in _items(message)], "store": False}
    if tools:
        request["tools"] = [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
                "strict": False,
            }
            for tool in tools
        ]
    return request


def _items(message: Message) -> list[Object]:
    if message.role == "tool" and message.tool_call_id is not None:
        return [{"type": "function_call_output", "call_id": message.tool_call_id, "output": message.content}]
    role = "user" if message.role == "tool" else message.role
    said: list[Object] = [{"role": role, "content": message.content}] if message.content else []
    return said + [
        {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}
        for call in message.tool_calls
    ]


def function_call(item: Mapping[str, object]) -> ToolCall:
    """An item of type ``function_call``."""
    return ToolCall(
        id=text_of(item.get("call_id")), name=text_of(item.get("name")), arguments=text_of(item.get("arguments"))
    )


def objects(value: object) -> list[Mapping[str, object]]:
    """The objects in a list; none where it is no list."""
    if not isinstance(value, list):
        return []
    return [cast("Mapping[str, object]", each) for each in cast("list[object]", value) if isinstance(each, dict)]


def text_of(value: object) -> str:
    """The text of a content, of whatever form; a word for parts that are none."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    parts = objects(value)
    if not parts:
        return msgspec.json.encode(value).decode()
    texts = [part.get("text", part.get("refusal")) for part in parts]
    return "".join(
        text if isinstance(text, str) else f"[{part.get('type')}]" for text, part in zip(texts, parts, strict=True)
    )


def _usage(spent: _Spent | None, prices: Prices) -> Usage:
    if spent is None:
        return Usage()
    came_in = spent.prompt_tokens or spent.input_tokens
    went_out = spent.completion_tokens or spent.output_tokens
    cost = spent.cost
    if cost is None and prices is not None:
        cost = (came_in * prices[0] + went_out * prices[1]) / 1e6
    return Usage(input_tokens=came_in, output_tokens=went_out, cost=cost)
