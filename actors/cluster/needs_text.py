"""Needs as somebody types them: ``gpu=1 memory=40GiB zone=eu``, for command lines and for what is kept of a run.

>>> str(parse_needs(["gpu=1", "memory=40GiB", "zone=eu", "tokens=2"]))
'gpu=1, memory=40GiB, zone=eu, tokens=2'
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from palmette.actors.cluster.needs import BadNeeds, Needs, needs


def parse_needs(texts: Iterable[str]) -> Needs:
    """The needs that ``texts`` (``KEY=VALUE``) say; for the keys see :func:`~palmette.actors.cluster.needs.needs`.

    Of what is none of its options a number is something counted, and a word is a label.

    Raises:
        BadNeeds: one cannot be read, or they make no sense.
    """
    said: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals or not value:
            raise BadNeeds(f"what is needed is said as KEY=VALUE, such as gpu=1 or zone=eu, not {text!r}")
        if key in said:
            raise BadNeeds(f"{key} is said twice; the second time {text!r}")
        try:
            said[key] = _READERS.get(key, _number_or_word)(value)
        except ValueError as error:
            raise BadNeeds(f"{text!r} cannot be read: {error}") from None
    return needs(**said)


def _switch(text: str) -> bool:
    if text.lower() not in ("yes", "no"):
        raise ValueError("say yes or no")
    return text.lower() == "yes"


def _number_or_word(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


_READERS: Final[Mapping[str, Callable[[str], object]]] = {
    "gpu": int,
    "gpu_memory": str,
    "share": float,
    "cpus": float,
    "memory": str,
    "docker": _switch,
    "ssh": _switch,
    "node": str,
    "avoid": lambda text: text.split(","),
    "strategy": str,
    "wait": float,
}
