"""One member's books: what it offers, which child has what of it, and what is missing for a further one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import msgspec

from palmette.actors.cluster.capabilities import Capabilities, Gpu
from palmette.actors.cluster.needs import Needs, quantity

_ROUNDING: Final = 1e-9
"""Ten tenths are one."""


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """A place, and what was reserved there until the lease is released."""

    lease: str
    node: str
    incarnation: int
    gpus: tuple[int, ...] = ()
    """Indices."""
    environment: dict[str, str] = {}
    """What the child's process is to find in its environment before anything is imported."""

    def __str__(self) -> str:
        return f"{self.node}, gpu {' '.join(map(str, self.gpus))}" if self.gpus else self.node


class _Lease(msgspec.Struct, frozen=True):
    needs: Needs
    gpus: tuple[int, ...]


class Member:
    """One member's books."""

    def __init__(self, name: str, incarnation: int, capabilities: Capabilities, limit: int | None) -> None:
        self.name = name
        self.incarnation = incarnation
        self.capabilities = capabilities
        self.limit = limit
        self.draining = False
        self._offered = {"cpus": capabilities.cpus, "memory": float(capabilities.memory), **capabilities.resources}
        self._leases: dict[str, _Lease] = {}
        self._used: dict[str, float] = {}
        """Of what is counted, GPUs aside."""
        self._gpus: dict[int, tuple[float, int]] = {}
        """The part of each GPU that is taken, and of its memory."""

    # --- entries -----------------------------------------------------------------------------------------------------

    @property
    def leases(self) -> dict[str, _Lease]:
        """What lives here. Not to be changed from outside."""
        return self._leases

    def take(self, lease: str, needs: Needs) -> Placed:
        """Reserve for ``needs``, which lack nothing here."""
        fullest = sorted(self._fitting(needs), key=lambda gpu: (-self._taken(gpu)[0], gpu.index))
        self.enter(lease, needs, tuple(sorted(gpu.index for gpu in fullest[: needs.gpu])))
        return self.placed(lease)

    def enter(self, lease: str, needs: Needs, gpus: tuple[int, ...]) -> None:
        """Write down what ``lease`` has here."""
        self._leases[lease] = _Lease(needs, gpus)
        self._sum_up()

    def inherit(self, other: Member) -> None:
        """Take over what lives on ``other``, which is this member as it was."""
        self._leases, self.draining = other._leases, other.draining
        self._sum_up()

    def drop(self, lease: str) -> None:
        """``lease`` is over."""
        del self._leases[lease]
        self._sum_up()

    def placed(self, lease: str) -> Placed:
        """What ``lease`` has here."""
        gpus = self._leases[lease].gpus
        return Placed(
            lease=lease, node=self.name, incarnation=self.incarnation, gpus=gpus, environment=environment_of(gpus)
        )

    def _sum_up(self) -> None:
        # Anew each time, and exactly: added and subtracted, tenths would drift.
        used: dict[str, list[float]] = {}
        shares: dict[int, list[float]] = {}
        memory: dict[int, int] = {}
        for lease in self._leases.values():
            for name, value in lease.needs.counted():
                used.setdefault(name, []).append(value)
            for gpu in lease.gpus:
                shares.setdefault(gpu, []).append(_share(lease.needs))
                memory[gpu] = memory.get(gpu, 0) + lease.needs.gpu_memory
        self._used = {name: math.fsum(values) for name, values in used.items()}
        self._gpus = {gpu: (math.fsum(values), memory[gpu]) for gpu, values in shares.items()}

    # --- what there is -----------------------------------------------------------------------------------------------

    def lacks(self, needs: Needs, *, idle: bool = False) -> set[str]:
        """The kinds of what is missing here now for ``needs``; or, if ``idle``, what would be were nothing in use."""
        missing = self._lacks_for_good(needs) if idle else set[str]()
        if self.limit is not None and (0 if idle else len(self._leases)) >= self.limit:
            missing.add("children")
        for name, asked in needs.counted():
            used = 0.0 if idle else self._used.get(name, 0.0)
            if used + asked > self._offered.get(name, 0.0) * (1 + _ROUNDING):
                missing.add(name)
        if needs.gpu and len(self._fitting(needs, idle=idle)) < needs.gpu:
            missing.add("gpu")
        return missing

    def explain(self, needs: Needs, *, idle: bool = False) -> str:
        """What is missing, for people."""
        missing = self.lacks(needs, idle=idle)
        has = self.capabilities
        said: list[str] = []
        if "node" in missing:
            said.append(f"is not {needs.node}")
        if "avoid" in missing:
            said.append("is to be avoided")
        for name in needs.labels:
            if name in missing:
                said.append(f"has {name}={has.labels[name]}" if name in has.labels else f"has no label {name}")
        if "docker" in missing:
            said.append("has no Docker daemon")
        if "ssh" in missing:
            said.append("has no SSH server")
        if "children" in missing:
            said.append(f"{0 if idle else len(self._leases)} of {self.limit} children live there")
        for name, _ in needs.counted():
            if name in missing:
                offered, used = self._offered.get(name, 0.0), 0.0 if idle else self._used.get(name, 0.0)
                there, free = quantity(name, offered), quantity(name, max(offered - used, 0.0))
                said.append(f"{name}: {free} free of {there}" if used else f"has {name}={there}")
        if "gpu" in missing:
            said.append(self._too_few_gpus(needs))
        return ", ".join(said)

    def usage(self) -> dict[str, tuple[float, float]]:
        """What is reserved, and what there is, of everything that is counted: ``{"gpu": (1.5, 2.0), ...}``."""
        used = {"gpu": (math.fsum(share for share, _ in self._gpus.values()), float(len(self.capabilities.gpus)))}
        return used | {name: (self._used.get(name, 0.0), offered) for name, offered in self._offered.items()}

    def preference(self, strategy: str) -> tuple[float, ...]:
        """The smaller, the better a place."""
        free = max(self.capabilities.cpus - self._used.get("cpus", 0.0), 0.0)
        # Whole GPUs count first: packing leaves them alone as long as it can, also for children that want none.
        if strategy == "pack":
            return (len(self.capabilities.gpus) - len(self._gpus), free, -len(self._leases))
        return (len(self._leases), -free)

    def _lacks_for_good(self, needs: Needs) -> set[str]:
        has = self.capabilities
        missing = {name for name, value in needs.labels.items() if has.labels.get(name) != value}
        if needs.node not in (None, self.name):
            missing.add("node")
        if self.name in needs.avoid:
            missing.add("avoid")
        if needs.docker and not has.docker:
            missing.add("docker")
        if needs.ssh and not has.ssh:
            missing.add("ssh")
        return missing

    def _too_few_gpus(self, needs: Needs) -> str:
        at_all, count = len(self._fitting(needs, idle=True)), len(self.capabilities.gpus)
        if at_all >= needs.gpu:
            return f"gpu: {len(self._fitting(needs))} free of {at_all}"
        if at_all < count:
            return f"has gpu={at_all} with gpu_memory={quantity('gpu_memory', needs.gpu_memory)}"
        return f"has gpu={count}"

    def _fitting(self, needs: Needs, *, idle: bool = False) -> list[Gpu]:
        """The GPUs that could be given."""
        share, memory = _share(needs), needs.gpu_memory
        fitting: list[Gpu] = []
        for gpu in self.capabilities.gpus:
            used, held = (0.0, 0) if idle else self._taken(gpu)
            if used + share <= 1 + _ROUNDING and held + memory <= gpu.memory:
                fitting.append(gpu)
        return fitting

    def _taken(self, gpu: Gpu) -> tuple[float, int]:
        return self._gpus.get(gpu.index, (0.0, 0))


def _share(needs: Needs) -> float:
    """The part of each of its GPUs; one that does not say ``share`` shares with nobody."""
    return 1.0 if needs.share is None else needs.share


def environment_of(gpus: Iterable[int]) -> dict[str, str]:
    """What lets a process see these GPUs and no other.

    By number and not by UUID, which not every library that reads the variable understands; so the order that the
    numbers are in must be nvidia-smi's.
    """
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))}
