"""Records to JSON text and back, with large texts kept apart by the hash of their content.

A prompt that stands in a thousand episodes is stored once. Two things that JSON cannot carry are kept as well, because
a journal must not refuse what a model said: text with lone surrogates becomes a blob whatever its size, and numbers
that are not finite become strings (``"nan"``), which are read back as numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import TypeVar, cast

import msgspec

T = TypeVar("T")

BLOB_CHARACTERS = 2048
"""Longer text is stored as a blob. Below that a second row costs more than the text."""

_REFERENCE = "$blob"


def pack(value: object, blobs: dict[str, bytes] | None = None) -> str:
    """``value`` as JSON; texts that are kept apart are added to ``blobs``, by hash. Without ``blobs`` none is."""
    return msgspec.json.encode(_apart(msgspec.to_builtins(value), blobs)).decode()


def references(texts: Iterable[str]) -> set[str]:
    """Hashes of the blobs that packed texts refer to."""
    found: set[str] = set()
    for text in texts:
        if f'"{_REFERENCE}"' in text:
            _collect(msgspec.json.decode(text), found)
    return found


def unpack(text: str, kind: type[T], blobs: Mapping[str, bytes] | None = None) -> T:
    """The value that was packed. ``blobs`` holds at least its :func:`references`; give none for what was
    packed without.

    Raises:
        KeyError: a blob is missing.
        msgspec.ValidationError: the text is of another kind.
    """
    value = msgspec.json.decode(text)
    if blobs is not None and f'"{_REFERENCE}"' in text:
        value = _together(value, blobs)
    # Not strict: that is what reads "nan" and "-inf" as numbers.
    return msgspec.convert(value, kind, strict=False)


def _apart(value: object, blobs: dict[str, bytes] | None) -> object:
    if isinstance(value, str):
        if blobs is None or (len(value) <= BLOB_CHARACTERS and _encodable(value)):
            return value
        data = value.encode("utf-8", "surrogatepass")
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {_REFERENCE: digest}
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        fields = cast("dict[object, object]", value)
        return {key: _apart(item, blobs) for key, item in fields.items()}
    if isinstance(value, list | tuple):
        return [_apart(item, blobs) for item in cast("list[object]", value)]
    return value


def _encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _reference(value: dict[object, object]) -> str | None:
    """The hash, if ``value`` is a reference. No packed type has a free-form mapping with this key."""
    digest = value.get(_REFERENCE)
    return digest if isinstance(digest, str) and len(value) == 1 else None


def _collect(value: object, found: set[str]) -> None:
    if isinstance(value, dict):
        fields = cast("dict[object, object]", value)
        digest = _reference(fields)
        if digest is not None:
            found.add(digest)
        for item in fields.values():
            _collect(item, found)
    elif isinstance(value, list):
        for item in cast("list[object]", value):
            _collect(item, found)


def _together(value: object, blobs: Mapping[str, bytes]) -> object:
    if isinstance(value, dict):
        fields = cast("dict[object, object]", value)
        digest = _reference(fields)
        if digest is not None:
            return blobs[digest].decode("utf-8", "surrogatepass")
        return {key: _together(item, blobs) for key, item in fields.items()}
    if isinstance(value, list):
        return [_together(item, blobs) for item in cast("list[object]", value)]
    return value
