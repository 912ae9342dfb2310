"""Streamed answers, read while they are passed on."""

from __future__ import annotations

from typing import Protocol, cast

import msgspec

from palmette.agents.conversation import Completion
from palmette.agents.openai_interfaces import read_response, read_text
from palmette.agents.openai_stream import DONE, ChatStream
from palmette.agents.openai_wire import Object
from palmette.agents.proxy.records import Api, Upstream
from palmette.agents.proxy.wire import read_chat


class Recorder(Protocol):
    """Reads one stream."""

    def add(self, data: str) -> bool:
        """Take one event; whether it is only about usage. Raises msgspec.DecodeError where it cannot be read."""
        ...

    def completion(self) -> Completion | None:
        """All of it; ``None`` while it is not complete. Raises ValueError where it cannot be read."""
        ...


def recorder(api: Api, upstream: Upstream, model: str) -> Recorder:
    """For a stream of ``api``."""
    if api == "chat":
        return _Chat(upstream, model)
    return _Text(upstream) if api == "completions" else _Responses(upstream)


class _Chat:
    def __init__(self, upstream: Upstream, model: str) -> None:
        self._stream = ChatStream()
        self._upstream = upstream
        self._model = model

    def add(self, data: str) -> bool:
        self._stream.add(data)
        return _is_usage(data)

    def completion(self) -> Completion | None:
        return read_chat(self._stream.response(), self._upstream, self._model) if self._stream.is_done else None


class _Text:
    """Puts the pieces of the first choice together."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._whole: Object = {}
        self._is_done = False

    def add(self, data: str) -> bool:
        if data == DONE:
            self._is_done = True
            return False
        chunk = msgspec.json.decode(data, type=dict[str, object])
        choices = chunk.pop("choices", None)
        self._whole |= {name: value for name, value in chunk.items() if value is not None}
        for choice in cast("list[Object]", choices) if isinstance(choices, list) else []:
            if choice.get("index", 0) == 0:
                _merge(cast("Object", self._whole.setdefault("choice", {})), choice)
        return not choices

    def completion(self) -> Completion | None:
        if not self._is_done or "choice" not in self._whole:
            return None
        whole = self._whole | {"choices": [self._whole["choice"]]}
        return read_text(msgspec.json.encode(whole), self._upstream.prices)


class _Responses:
    """The last event holds all of it."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._whole: msgspec.Raw | None = None

    def add(self, data: str) -> bool:
        if data != DONE:
            event = msgspec.json.decode(data, type=_Event)
            if event.type in {"response.completed", "response.incomplete"}:
                self._whole = event.response.copy()
        return False

    def completion(self) -> Completion | None:
        return None if self._whole is None else read_response(bytes(self._whole), self._upstream.prices)


class _Event(msgspec.Struct):
    type: str = ""
    response: msgspec.Raw = msgspec.Raw(b"{}")


def _merge(whole: Object, piece: Object) -> None:
    """Add ``piece`` to ``whole``: texts and lists grow, objects are merged, the rest is replaced."""
    for name, value in piece.items():
        known = whole.get(name)
        if isinstance(known, dict) and isinstance(value, dict):
            _merge(cast("Object", known), cast("Object", value))
        elif isinstance(known, str) and isinstance(value, str) and name == "text":
            whole[name] = known + value
        elif isinstance(known, list) and isinstance(value, list) and name != "prompt_token_ids":
            cast("list[object]", known).extend(cast("list[object]", value))
        elif value is not None:
            whole[name] = value


def _is_usage(data: str) -> bool:
    """Whether an event has no choice in it, as the one with the usage."""
    return data != DONE and '"choices":[]' in data.replace(" ", "")
