"""The chat completions wire format: conversations out, completions in. Pure functions, no SDK.

Responses are decoded against our own few fields instead of the SDK's classes: servers that speak "OpenAI" leave out
or add fields at will, and the SDK hands over what it cannot validate. Beyond OpenAI's own fields we read those of vLLM
(``prompt_token_ids`` at top level, ``choices[].token_ids``, asked for by ``return_token_ids``), OpenRouter's
``usage.cost``, and ``policy_version`` at top level, which palmette's policy server adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from palmette.agents.conversation import Completion, Message, StopReason, Tokens, ToolCall, ToolSchema, Usage

Object = dict[str, object]


class WireFunction(msgspec.Struct):
    name: str
    arguments: str | None = None


class WireCall(msgspec.Struct):
    function: WireFunction
    id: str | None = None


class WireSaid(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[WireCall] | None = None


class WireLogprob(msgspec.Struct):
    logprob: float


class WireLogprobs(msgspec.Struct):
    content: list[WireLogprob] | None = None


class WireChoice(msgspec.Struct):
    message: WireSaid
    finish_reason: str | None = None
    logprobs: WireLogprobs | None = None
    token_ids: list[int] | None = None


class WireSpent(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = None


class WireError(msgspec.Struct):
    """What gateways put into an answer of status 200 when the model behind them failed."""

    message: str = ""
    code: int | str | None = None


class WireResponse(msgspec.Struct):
    """The body of a chat completion, as far as it is read."""

    choices: list[WireChoice] = []
    model: str | None = None
    usage: WireSpent | None = None
    prompt_token_ids: list[int] | None = None
    policy_version: int | None = None
    error: WireError | None = None


def request_messages(conversation: Sequence[Message], *, observations: Literal["user", "tool"]) -> list[Object]:
    """``conversation`` as the API wants it.

    Args:
        conversation: What was said so far.
        observations: The role of a ``tool`` message that answers no call by id, as the line dialect writes them.
            OpenAI and most servers refuse those, so they are the user's unless the server is known to take them.
    """
    return [_message(message, observations) for message in conversation]


def request_tools(tools: Sequence[ToolSchema]) -> list[Object]:
    """Tools as the API wants them."""
    return [{"type": "function", "function": msgspec.to_builtins(schema)} for schema in tools]


def completion(
    response: WireResponse, *, model: str, policy_version: int, prices: tuple[float, float] | None
) -> Completion:
    """A response's first choice.

    Args:
        response: One with a choice.
        model: Its name where the server does not say.
        policy_version: Of the weights where the server does not say.
        prices: US dollars for a million tokens, in and out; ``None`` where not known.

    Raises:
        ValueError: the server told of token ids that do not fit the log-probabilities.
    """
    choice = response.choices[0]
    said = choice.message
    calls = tuple(
        # Some servers number their calls by position only.
        ToolCall(id=call.id or f"call_{at}", name=call.function.name, arguments=call.function.arguments or "")
        for at, call in enumerate(said.tool_calls or ())
    )
    stop: StopReason = "length" if choice.finish_reason == "length" else "tool_calls" if calls else "stop"
    return Completion(
        message=Message(role="assistant", content=said.content or said.refusal or "", tool_calls=calls),
        stop=stop,
        usage=_usage(response.usage or WireSpent(), prices),
        model=response.model or model,
        tokens=_tokens(response, choice, policy_version),
    )


def _message(message: Message, observations: Literal["user", "tool"]) -> Object:
    if message.role == "tool":
        if message.tool_call_id is None:
            return {"role": observations, "content": message.content}
        return {"role": "tool", "tool_call_id": message.tool_call_id, "content": message.content}
    if message.tool_calls:
        return {
            "role": message.role,
            "content": message.content or None,
            "tool_calls": [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": _object(call.arguments)},
                }
                for call in message.tool_calls
            ],
        }
    return {"role": message.role, "content": message.content}


def _object(arguments: str) -> str:
    """``arguments`` if they are a JSON object, else an object that holds them.

    Chat templates load the arguments of earlier calls, and vLLM answers 400 to every request after a malformed one.
    """
    try:
        msgspec.json.decode(arguments, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return msgspec.json.encode({"malformed": arguments} if arguments.strip() else {}).decode()
    return arguments


def _usage(spent: WireSpent, prices: tuple[float, float] | None) -> Usage:
    came_in, went_out = spent.prompt_tokens or 0, spent.completion_tokens or 0
    cost = spent.cost
    if cost is None and prices is not None:
        cost = (came_in * prices[0] + went_out * prices[1]) / 1e6
    return Usage(input_tokens=came_in, output_tokens=went_out, cost=cost)


def _tokens(response: WireResponse, choice: WireChoice, policy_version: int) -> Tokens | None:
    logprobs = choice.logprobs.content if choice.logprobs is not None else None
    if response.prompt_token_ids is None or choice.token_ids is None or logprobs is None:
        return None
    if len(choice.token_ids) != len(logprobs):
        raise ValueError(f"{len(choice.token_ids)} token ids came with {len(logprobs)} log-probabilities")
    return Tokens(
        prompt_ids=tuple(response.prompt_token_ids),
        output_ids=tuple(choice.token_ids),
        logprobs=tuple(entry.logprob for entry in logprobs),
        policy_version=policy_version if response.policy_version is None else response.policy_version,
    )
