"""Faults for a simulation: what goes wrong, to which incarnation of which actor, and when.

A plan is a list of :class:`Fault`\\ s, each bound to one incarnation of one address, so that it can be written down,
replayed and shrunk. :class:`RandomFaults` draws such a plan while the simulation runs, from the seed: every start of a
matching actor, and of a node for one, is hit with probability ``rate``. What was drawn is in the result, as a plan.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Final, Literal, get_args

import msgspec

ActorKind = Literal["crash", "kill", "slow_start", "fail_start"]
"""What strikes an actor, wherever it lives."""
NodeKind = Literal[
    "kill_node", "freeze_node", "partition", "slow_link", "delay", "drop", "duplicate", "slow_node", "fail_node"
]
"""What strikes the node of a child with ``isolation="process"``, or the link to it."""
Kind = ActorKind | NodeKind
ACTOR_KINDS: Final[tuple[ActorKind, ...]] = get_args(ActorKind)
NODE_KINDS: Final[tuple[NodeKind, ...]] = get_args(NodeKind)
KINDS: Final[tuple[Kind, ...]] = ACTOR_KINDS + NODE_KINDS
FRAME_KINDS: Final = ("delay", "drop", "duplicate")
"""Those that strike one frame of a link."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault.

    ==============  ==================================================================================================
    ``crash``       the actor raises, ``seconds`` after it has been given its ``message``-th message (0: its start)
    ``kill``        likewise, without a say
    ``slow_start``  its start takes ``seconds`` longer
    ``fail_start``  its start raises
    ``kill_node``   ``kill -9`` of its node, ``seconds`` after the ``message``-th frame on its link (0: it has joined)
    ``freeze_node`` its node stands still for ``seconds`` from that frame on, as after SIGSTOP
    ``partition``   nothing passes between head and node for ``seconds`` from that frame on, and then all that waited
    ``slow_link``   from that frame on each takes up to ``seconds`` longer, drawn from the seed
    ``delay``       that frame (from 1) takes ``seconds`` longer, and holds up what is behind it
    ``drop``        that frame (from 1) is lost
    ``duplicate``   that frame (from 1) arrives twice
    ``slow_node``   the node's process takes ``seconds`` longer to come up
    ``fail_node``   the node's process ends before it has called back
    ==============  ==================================================================================================

    Frames of both directions are counted together. The first is the node's greeting, the second the head's order.
    """

    kind: Kind
    path: str
    incarnation: int = 1
    """Which start at that address. (An address that is given up, or lies below a node's own, is counted anew by its
    system, and not here.)"""
    message: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        lasts = f"{self.seconds:.3f} s"
        match self.kind:
            case "crash" | "kill":
                when = f"at message {self.message}" if self.message else "after its start"
                when += f" and {lasts}" if self.seconds else ""
            case "kill_node":
                when = f"at frame {self.message}" + (f" and {lasts}" if self.seconds else "")
            case "freeze_node" | "partition":
                when = f"at frame {self.message} for {lasts}"
            case "slow_link":
                when = f"from frame {self.message} on by up to {lasts}"
            case "delay":
                when = f"of frame {self.message} by {lasts}"
            case "drop" | "duplicate":
                when = f"of frame {self.message}"
            case "slow_start" | "slow_node":
                when = f"by {lasts}"
            case "fail_start" | "fail_node":
                when = ""
        return f"{self.kind} {self.path}#{self.incarnation} {when}".strip()


class InjectedFault(RuntimeError):
    """The exception that an injected crash or failed start shows as its reason."""


class RandomFaults(msgspec.Struct, frozen=True, kw_only=True):
    """Hit every start of an actor whose address matches ``match`` with probability ``rate``, and every start of a node
    for such an actor likewise."""

    rate: float
    match: str = "/*"
    """A shell pattern for addresses; the registry is never hit."""
    spare: tuple[str, ...] = ()
    """Patterns of addresses to leave alone."""
    kinds: tuple[Kind, ...] = KINDS
    max_message: int = 5
    max_seconds: float = 2.0
    max_frame: int = 40
    """Of a link, for the kinds that strike at a frame."""
    max_outage: float = 40.0
    """Seconds that a partition lasts, or a frozen node stands still."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.rate <= 1.0:
            raise ValueError(f"rate is a probability, got {self.rate}")
        unknown = set(self.kinds) - set(KINDS)
        if unknown or not self.kinds:
            raise ValueError(f"kinds are some of {', '.join(KINDS)}; got {', '.join(map(str, self.kinds)) or 'none'}")

    def draw(self, rng: random.Random, path: str, incarnation: int) -> Fault | None:
        """A fault for this start of an actor, or none. Draws the same number of times either way, so that one fault
        more or less does not move all later ones."""
        kinds: list[Kind] = [kind for kind in self.kinds if kind in ACTOR_KINDS]
        hit, kind = rng.random() < self.rate, rng.choice(kinds or list[Kind](ACTOR_KINDS))
        message, seconds = rng.randint(0, self.max_message), round(rng.random() * self.max_seconds, 3)
        if not (hit and kinds and self._matches(path)):
            return None
        return Fault(kind=kind, path=path, incarnation=incarnation, message=message, seconds=seconds)

    def draw_node(self, rng: random.Random, path: str, incarnation: int) -> Fault | None:
        """A fault for this start of a node and its link, or none. Draws the same number of times either way."""
        kinds: list[Kind] = [kind for kind in self.kinds if kind in NODE_KINDS]
        hit, kind = rng.random() < self.rate, rng.choice(kinds or list[Kind](NODE_KINDS))
        frame, part = rng.randint(1 if kind in FRAME_KINDS else 0, self.max_frame), rng.random()
        if not (hit and kinds and self._matches(path)):
            return None
        seconds = round(part * (self.max_outage if kind in ("freeze_node", "partition") else self.max_seconds), 3)
        return Fault(kind=kind, path=path, incarnation=incarnation, message=frame, seconds=seconds)

    def _matches(self, path: str) -> bool:
        return fnmatchcase(path, self.match) and not any(fnmatchcase(path, spared) for spared in self.spare)


class Injector:
    """Hands out the faults of a simulation, given or drawn, and keeps what it handed out."""

    def __init__(self, faults: Sequence[Fault] | RandomFaults, seed: int) -> None:
        self._random = faults if isinstance(faults, RandomFaults) else None
        self._rng = random.Random(f"faults/{seed}")
        self._node_rng = random.Random(f"node faults/{seed}")
        self._given: dict[tuple[str, int], list[Fault]] = {}
        for fault in () if isinstance(faults, RandomFaults) else faults:
            self._given.setdefault((fault.path, fault.incarnation), []).append(fault)
        self._starts: Counter[str] = Counter()
        self._node_starts: Counter[str] = Counter()
        self.injected: list[Fault] = []

    def for_start(self, path: str) -> list[Fault]:
        """The faults of an incarnation that is about to start."""
        if path.startswith("/system/"):
            return []
        self._starts[path] += 1
        number = self._starts[path]
        drawn = None if self._random is None else self._random.draw(self._rng, path, number)
        return self._hand_out(path, number, drawn, ACTOR_KINDS)

    def for_node(self, path: str) -> list[Fault]:
        """The faults of a node that is about to be started."""
        self._node_starts[path] += 1
        number = self._node_starts[path]
        drawn = None if self._random is None else self._random.draw_node(self._node_rng, path, number)
        return self._hand_out(path, number, drawn, NODE_KINDS)

    def _hand_out(self, path: str, incarnation: int, drawn: Fault | None, kinds: tuple[Kind, ...]) -> list[Fault]:
        if self._random is not None:
            faults = [] if drawn is None else [drawn]
        else:
            faults = [fault for fault in self._given.get((path, incarnation), ()) if fault.kind in kinds]
        self.injected += faults
        return faults
