"""Arguments from elsewhere, made to fit what a function's hints say: plain data, JSON, and words as they were typed."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import cast, get_type_hints

import msgspec

from palmette.agents.errors import BadArguments

Function = Callable[..., Awaitable[object]]


def fitted(function: Function, arguments: Mapping[str, object]) -> dict[str, object]:
    """Plain data. Raises BadArguments."""
    hints = _hints(function, arguments)
    return {name: _converted(function, name, value, hints[name]) for name, value in arguments.items()}


def fitted_words(function: Function, arguments: Mapping[str, bytes], words: Mapping[str, str]) -> dict[str, object]:
    """JSON values, and words: ``3`` is text where text is wanted, and else the number. Raises BadArguments."""
    hints = _hints(function, {**arguments, **words})
    found = {name: _converted(function, name, _json(name, value), hints[name]) for name, value in arguments.items()}
    for name, word in words.items():
        found[name] = _word(function, name, word, hints[name])
    return found


def _hints(function: Function, given: Mapping[str, object]) -> dict[str, object]:
    signature = inspect.signature(function)
    try:
        signature.bind(**given)
    except TypeError as error:
        raise BadArguments(f"bad arguments for {function.__name__}{signature}: {error}") from None
    hints = get_type_hints(function)
    return {name: hints.get(name, object) for name in given}


def _json(name: str, value: bytes) -> object:
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError as error:
        raise BadArguments(f"{name} is not JSON: {error}") from None


def _word(function: Function, name: str, word: str, hint: object) -> object:
    if hint is not object:
        try:
            return _converted(function, name, word, hint)
        except BadArguments:
            pass  # text is not what is wanted
    try:
        value: object = msgspec.json.decode(word)
    except msgspec.DecodeError:
        value = word
    return _converted(function, name, value, hint)


def _converted(function: Function, name: str, value: object, hint: object) -> object:
    if hint is object:
        return value
    try:
        return msgspec.convert(value, cast("type[object]", hint))
    except msgspec.ValidationError as error:
        raise BadArguments(f"bad arguments for {function.__name__}: {name}={value!r}: {error}") from None
