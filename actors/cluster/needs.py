"""What a child needs of the host that it is to live on.

    child(Trainer, config, name="trainer", on=needs(gpu=1, memory="40GiB", zone="eu"))

The child gets a process of its own, on a host that offers all of it; what it asks for is its own until that process is
gone. What is not asked for is not accounted: a child that names no ``cpus`` takes none from anybody.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from palmette.actors.cluster.capabilities import check_name
from palmette.actors.sizes import parse_size, size_text

Strategy = Literal["pack", "spread"]

WAIT_SECONDS: Final = 10.0
"""Long enough for a predecessor to be gone, and short enough for a supervisor to be held up."""
_LEAST_SHARE: Final = 0.001


class BadNeeds(ValueError):
    """These needs make no sense, wherever the child is to live."""


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What a child needs. Build it with :func:`needs`, which says what each field means."""

    gpu: int = 0
    gpu_memory: int = 0
    share: float | None = None
    cpus: float = 0.0
    memory: int = 0
    docker: bool = False
    ssh: bool = False
    labels: dict[str, str] = {}
    resources: dict[str, float] = {}
    node: str | None = None
    avoid: tuple[str, ...] = ()
    strategy: Strategy = "spread"
    wait: float = WAIT_SECONDS

    def __post_init__(self) -> None:
        # A bool is an int: needs(gpu=True) is taken at its word.
        if int(self.gpu) != self.gpu or self.gpu < 0:
            raise BadNeeds(f"gpu is a number of whole GPUs, not {self.gpu!r}; for a part of one say gpu=1, share=0.5")
        if not self.gpu and (self.gpu_memory or self.share is not None):
            raise BadNeeds("gpu_memory and share are about GPUs; say how many: gpu=1")
        if self.share is not None and not _LEAST_SHARE <= self.share <= 1:
            raise BadNeeds(f"share is the part of each GPU, from {_LEAST_SHARE} to 1, not {self.share!r}")
        quantities = {"cpus": self.cpus, "memory": self.memory, "gpu_memory": self.gpu_memory, **self.resources}
        for name, value in quantities.items():
            if not (math.isfinite(value) and value >= 0):
                raise BadNeeds(f"{name} is a number from 0 on, not {value!r}")
        for name in (*self.labels, *self.resources):
            check_name(name)
        if self.strategy not in ("pack", "spread"):
            raise BadNeeds(f"strategy is pack or spread, not {self.strategy!r}")
        if not (math.isfinite(self.wait) and self.wait >= 0):
            raise BadNeeds(f"wait is a number of seconds from 0 on, not {self.wait!r}; every wait has a deadline")
        if self.node is not None and self.node in self.avoid:
            raise BadNeeds(f"node={self.node!r} is also among those to avoid; it cannot be both")

    def counted(self) -> list[tuple[str, float]]:
        """What is taken of a host's quantities, GPUs aside, by name; nothing that is 0."""
        counted = [(name, value) for name, value in self.resources.items() if value]
        if self.memory:
            counted.insert(0, ("memory", self.memory))
        if self.cpus:
            counted.insert(0, ("cpus", self.cpus))
        return counted

    def __str__(self) -> str:
        """As it would be written: ``gpu=1, memory=40GiB, zone=eu``."""
        said: list[str] = []
        for name in ("gpu", "gpu_memory", "share", "cpus", "memory", "docker", "ssh", "node"):
            value: object = getattr(self, name)
            if value:
                said.append(f"{name}={quantity(name, value) if isinstance(value, int | float) else value}")
        said += [f"{name}={value}" for name, value in self.labels.items()]
        said += [f"{name}={value:g}" for name, value in self.resources.items()]
        said += [f"avoid={','.join(self.avoid)}"] if self.avoid else []
        return ", ".join(said) or "nothing in particular"


def quantity(name: str, value: float) -> str:
    """A quantity as people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return size_text(int(value)) if name in ("memory", "gpu_memory") else f"{value:g}"


OPTIONS: Final = tuple(name for name in Needs.__struct_fields__ if name not in ("labels", "resources"))


def needs(
    *,
    gpu: int = 0,
    gpu_memory: int | str = 0,
    share: float | None = None,
    cpus: float = 0.0,
    memory: int | str = 0,
    docker: bool = False,
    ssh: bool = False,
    node: str | None = None,
    avoid: Iterable[str] = (),
    strategy: Strategy | None = None,
    wait: float = WAIT_SECONDS,
    **others: str | float,
) -> Needs:
    """What a child needs of its host, for ``child(..., on=needs(gpu=1))``.

    Args:
        gpu: GPUs, each of them for this child alone. The child sees these and no other (``CUDA_VISIBLE_DEVICES``).
        gpu_memory: Bytes that each of them has at least, or such as ``"40GiB"``.
        share: The part of each GPU (0.001 to 1) that the child takes, with ``gpu_memory`` as the part of its memory: it
            is then shared with others that say so, too. Nobody watches that they keep to it.
        cpus: Processors' worth of time.
        memory: Bytes of the host's memory, or such as ``"40GiB"``.
        docker: A Docker daemon answers there.
        ssh: An SSH server answers there.
        node: The member's name: this one and no other.
        avoid: Names of members that it shall not be.
        strategy: ``pack`` takes the fullest member that will do, and leaves whole hosts for those who need much;
            ``spread`` the one with the fewest children, so that the loss of one loses little. Not said, it is ``pack``
            with a GPU and ``spread`` without.
        wait: Seconds to wait when what is needed exists and is in use; the supervisor, whose start this is, waits, too.
            What exists nowhere fails at once.
        others: A number is taken of what the host counts under that name (``tokens=2``), a word is a label that it must
            have (``zone="eu"``).

    Raises:
        BadNeeds: something of it makes no sense.
    """
    for name in others:
        meant = difflib.get_close_matches(name, OPTIONS, 1, 0.75)
        if meant:
            raise BadNeeds(
                f"needs has no option {name!r}; did you mean {meant[0]!r}? (A label's or resource's name cannot be so "
                "close to an option's)"
            )
    try:
        return Needs(
            gpu=gpu,
            gpu_memory=parse_size(gpu_memory) if isinstance(gpu_memory, str) else gpu_memory,
            share=share,
            cpus=cpus,
            memory=parse_size(memory) if isinstance(memory, str) else memory,
            docker=docker,
            ssh=ssh,
            node=node,
            avoid=(avoid,) if isinstance(avoid, str) else tuple(avoid),
            strategy=strategy or ("pack" if gpu else "spread"),
            wait=wait,
            labels={name: value for name, value in others.items() if isinstance(value, str)},
            resources={name: float(value) for name, value in others.items() if not isinstance(value, str)},
        )
    except BadNeeds:
        raise
    except ValueError as error:
        raise BadNeeds(str(error)) from None
