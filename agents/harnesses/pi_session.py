"""A conversation as a session file of pi's (version 3), so that a new pi goes on where another one was."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from palmette.agents.conversation import Message, ToolCall
from palmette.agents.harness import ToolEnded
from palmette.agents.transcript import Turn

UNKNOWN = "this call was cut short by a restart; what became of it is not known"
_TIME = "2000-01-01T00:00:00.000Z"
"""pi shows it and does nothing with it."""
_USAGE = {
    "input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0, "totalTokens": 0,
    "cost": {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0, "total": 0},
}  # fmt: skip


def session_file(turns: Sequence[Turn], results: Sequence[ToolEnded], *, cwd: str, model: str) -> bytes:
    """``turns`` and the results of the last one's tools as pi keeps them, for its ``--session``."""
    lines: list[object] = [{"type": "session", "version": 3, "id": "palmette", "timestamp": _TIME, "cwd": cwd}]
    names: dict[str, str] = {}
    parent: str | None = None
    heard = [message for turn in turns for message in (*turn.heard, turn.said)]
    known = {result.call.id: result.text for result in results}
    heard += [
        Message(role="tool", content=known.get(call.id, UNKNOWN), tool_call_id=call.id)
        for call in (turns[-1].said.tool_calls if turns else ())
    ]
    for message in heard:
        names |= {call.id: call.name for call in message.tool_calls}
        told = _message(message, names, model)
        if told is not None:
            entry = f"{len(lines):08x}"
            lines.append({"type": "message", "id": entry, "parentId": parent, "timestamp": _TIME, "message": told})
            parent = entry
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def _message(message: Message, names: dict[str, str], model: str) -> object | None:
    text = [{"type": "text", "text": message.content}] if message.content else []
    match message.role:
        case "system":
            return None  # pi's own prompt, which the new one writes anew
        case "user":
            return {"role": "user", "content": text, "timestamp": 0}
        case "assistant":
            return {
                "role": "assistant",
                "content": [*text, *map(_call, message.tool_calls)],
                "api": "openai-completions",
                "provider": "palmette",
                "model": model,
                "usage": _USAGE,
                "stopReason": "toolUse" if message.tool_calls else "stop",
                "timestamp": 0,
            }
        case "tool":
            called = message.tool_call_id or ""
            return {
                "role": "toolResult",
                "toolCallId": called,
                "toolName": names.get(called, ""),
                "content": text,
                "isError": False,
                "timestamp": 0,
            }


def _call(call: ToolCall) -> object:
    try:
        arguments: object = msgspec.json.decode(call.arguments or "{}")
    except (msgspec.DecodeError, UnicodeError):
        arguments = {"malformed": call.arguments}
    return {"type": "toolCall", "id": call.id, "name": call.name, "arguments": arguments}
