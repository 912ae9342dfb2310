"""Faults for a simulation: what goes wrong, to which incarnation of which actor, and when.

A plan is a list of :class:`Fault`\\ s, each bound to one incarnation of one address, so that it can be written down,
replayed and shrunk. :class:`RandomFaults` draws such a plan while the simulation runs, from the seed: every start of a
matching actor is hit with probability ``rate``. What was drawn is in the result, as a plan.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal

import msgspec

Kind = Literal["crash", "kill", "slow_start", "fail_start"]
KINDS: tuple[Kind, ...] = ("crash", "kill", "slow_start", "fail_start")


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault.

    ``crash`` and ``kill`` strike ``seconds`` after the incarnation has been given its ``message``-th message (0: after
    its start); ``slow_start`` adds ``seconds`` to its start; ``fail_start`` makes the start raise.
    """

    kind: Kind
    path: str
    incarnation: int = 1
    message: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        when = {
            "crash": f"at message {self.message}" if self.message else "after its start",
            "kill": f"at message {self.message}" if self.message else "after its start",
            "slow_start": f"by {self.seconds:.3f} s",
            "fail_start": "",
        }[self.kind]
        late = f" and {self.seconds:.3f} s" if self.kind in ("crash", "kill") and self.seconds else ""
        return f"{self.kind} {self.path}#{self.incarnation} {when}{late}".strip()


class InjectedFault(RuntimeError):
    """The exception that an injected crash or failed start shows as its reason."""


class RandomFaults(msgspec.Struct, frozen=True, kw_only=True):
    """Hit every start of an actor whose address matches ``match`` with probability ``rate``."""

    rate: float
    match: str = "/*"
    """A shell pattern for addresses; the registry is never hit."""
    spare: tuple[str, ...] = ()
    """Patterns of addresses to leave alone."""
    kinds: tuple[Kind, ...] = KINDS
    max_message: int = 5
    max_seconds: float = 2.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.rate <= 1.0:
            raise ValueError(f"rate is a probability, got {self.rate}")
        unknown = set(self.kinds) - set(KINDS)
        if unknown or not self.kinds:
            raise ValueError(f"kinds are some of {', '.join(KINDS)}; got {', '.join(map(str, self.kinds)) or 'none'}")

    def draw(self, rng: random.Random, path: str, incarnation: int) -> Fault | None:
        """A fault for this start, or none. Draws the same number of times either way, so that one fault more or less
        does not move all later ones."""
        hit, kind = rng.random() < self.rate, rng.choice(self.kinds)
        message, seconds = rng.randint(0, self.max_message), round(rng.random() * self.max_seconds, 3)
        if not hit or not fnmatchcase(path, self.match) or any(fnmatchcase(path, spared) for spared in self.spare):
            return None
        return Fault(kind=kind, path=path, incarnation=incarnation, message=message, seconds=seconds)


class Injector:
    """Hands out the faults of a simulation, given or drawn, and keeps what it handed out."""

    def __init__(self, faults: Sequence[Fault] | RandomFaults, seed: int) -> None:
        self._random = faults if isinstance(faults, RandomFaults) else None
        self._rng = random.Random(f"faults/{seed}")
        self._given: dict[tuple[str, int], list[Fault]] = {}
        for fault in () if isinstance(faults, RandomFaults) else faults:
            self._given.setdefault((fault.path, fault.incarnation), []).append(fault)
        self.injected: list[Fault] = []

    def for_start(self, path: str, incarnation: int) -> list[Fault]:
        """The faults of an incarnation that is about to start."""
        if path.startswith("/system/"):
            return []
        if self._random is not None:
            drawn = self._random.draw(self._rng, path, incarnation)
            faults = [] if drawn is None else [drawn]
        else:
            faults = self._given.get((path, incarnation), [])
        self.injected += faults
        return faults
