"""Prompt ids as deltas: a turn's prompt is nearly always the turn before, its output, and a little more.

Stored whole, an episode of n turns would cost n² ids. A turn is stored as the number of ids that it *keeps* from the
turn before it (that turn's prompt and output, one after the other) and the ids that follow. :class:`Chains` remembers
the last turn of each open episode for that; a turn whose predecessor it does not know is stored whole.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from palmette.agents.conversation import Tokens
from palmette.benchmarks.task import Turn

REMEMBERED = 1_000_000
"""Token ids over all open episodes, about 40 MB at worst; beyond it the episode that was silent longest is forgotten,
and its next turn is stored whole."""


class AttemptKey(NamedTuple):
    """One attempt at an episode."""

    run: str
    task: str
    sample: int
    attempt: int


class Link(NamedTuple):
    """Where an attempt stands after its last stored turn."""

    turn: int
    ids: tuple[int, ...]


class Chains:
    """The last turn of each attempt, forgetting the oldest first."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._links: OrderedDict[AttemptKey, Link] = OrderedDict()
        self._remembered = remembered
        self._held = 0

    def get(self, key: AttemptKey) -> Link | None:
        return self._links.get(key)

    def update(self, links: Iterable[tuple[AttemptKey, Link | None]]) -> None:
        """Take over what a committed transaction stored; ``None`` forgets."""
        for key, link in links:
            old = self._links.pop(key, None)
            self._held -= len(old.ids) if old else 0
            if link is not None:
                self._links[key] = link
                self._held += len(link.ids)
        while self._held > self._remembered:
            _, oldest = self._links.popitem(last=False)
            self._held -= len(oldest.ids)


def shorten(turn: Turn, before: Link | None) -> tuple[Turn, int, Link | None]:
    """The turn as it is stored, how many ids it keeps, and the link for the turn after it."""
    if turn.tokens is None:
        return turn, 0, None
    ids = turn.tokens.prompt_ids
    link = Link(turn.index, ids + turn.tokens.output_ids)
    if before is None or before.turn != turn.index - 1:
        return turn, 0, link
    kept = _common(before.ids, ids)
    return _with_prompt(turn, turn.tokens, ids[kept:]), kept, link


def lengthen(stored: Iterable[tuple[Turn, int]]) -> Iterator[Turn]:
    """Whole turns again, from one attempt's stored turns and what each keeps, in order."""
    before: tuple[int, ...] = ()
    for turn, kept in stored:
        if turn.tokens is None:
            before = ()
            yield turn
            continue
        ids = before[:kept] + turn.tokens.prompt_ids
        before = ids + turn.tokens.output_ids
        yield _with_prompt(turn, turn.tokens, ids)


def _with_prompt(turn: Turn, tokens: Tokens, ids: tuple[int, ...]) -> Turn:
    return msgspec.structs.replace(turn, tokens=msgspec.structs.replace(tokens, prompt_ids=ids))


def _common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    if other[: len(one)] == one:
        return len(one)
    return next(
        (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
