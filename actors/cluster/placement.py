"""Which member a child lives on: the books of who has what, and the choice.

Pure book-keeping: no clock, no network. Whoever owns the :class:`Accounts` calls :meth:`Accounts.grant` after each
change, and counts the seconds of those who wait.

**Who is first.** Requests that must wait are served in the order in which they came, as far as that helps anybody. Each
is given a *goal*: the member that lacks the least for it. A later request takes nothing from a goal that the earlier
one lacks there, and leaves it what it does not lack; elsewhere, and of other kinds, it is free to overtake. So what
frees up on the goal adds up, and a request for eight GPUs is served when the children that have them now have ended,
however many requests for one come meanwhile; and the one for a processor does not wait behind the one for a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import msgspec

from palmette.actors.cluster.capabilities import Capabilities, Gpu
from palmette.actors.cluster.needs import Needs, quantity
from palmette.actors.errors import NodeError

_ROUNDING = 1e-9
"""Ten tenths are one."""


class Unsatisfiable(NodeError):
    """No member offers what a child needs, however idle: the text says what each of them lacks."""


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


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """There is a place, but it is in use; :meth:`Accounts.grant` says when it is free."""

    lease: str
    reason: str


class _Lease(msgspec.Struct, frozen=True):
    needs: Needs
    gpus: tuple[int, ...]


class _Request(msgspec.Struct):
    lease: str
    needs: Needs
    goal: str
    """The member on which it is kept from starving."""


Lacks = dict[str, str]
"""What a member lacks for a request: a text for each kind."""


class Member:
    """One member's books."""

    def __init__(self, name: str, incarnation: int, capabilities: Capabilities, limit: int | None) -> None:
        self.name = name
        self.incarnation = incarnation
        self.capabilities = capabilities
        self.limit = limit
        self.draining = False
        self.leases: dict[str, _Lease] = {}
        self._offered = {"cpus": capabilities.cpus, "memory": float(capabilities.memory), **capabilities.resources}

    def lacks(self, needs: Needs, *, idle: bool = False) -> Lacks:
        """What is missing here now for ``needs``; or, if ``idle``, what would be were nothing in use."""
        leases = () if idle else tuple(self.leases.values())
        missing = self._never(needs) if idle else {}
        children = len(leases)
        if self.limit is not None and children >= self.limit:
            missing["children"] = f"{children} of {self.limit} children live there"
        for name, asked in needs.counted():
            used = math.fsum(value for lease in leases for kind, value in lease.needs.counted() if kind == name)
            offered = self._offered.get(name, 0.0)
            if used + asked > offered * (1 + _ROUNDING):
                there, free = quantity(name, offered), quantity(name, max(offered - used, 0.0))
                missing[name] = f"{name}: {free} free of {there}" if used else f"has {name}={there}"
        if len(self._fitting(needs, leases)) < needs.gpu:
            missing["gpu"] = self._too_few_gpus(needs, leases)
        return missing

    def _never(self, needs: Needs) -> Lacks:
        has, missing = self.capabilities, Lacks()
        if needs.node not in (None, self.name):
            missing["node"] = f"is not {needs.node}"
        if self.name in needs.avoid:
            missing["avoid"] = "is to be avoided"
        for name, value in needs.labels.items():
            if has.labels.get(name) != value:
                missing[name] = f"has {name}={has.labels[name]}" if name in has.labels else f"has no label {name}"
        if needs.docker and not has.docker:
            missing["docker"] = "has no Docker daemon"
        if needs.ssh and not has.ssh:
            missing["ssh"] = "has no SSH server"
        return missing

    def _too_few_gpus(self, needs: Needs, leases: Iterable[_Lease]) -> str:
        count = len(self.capabilities.gpus)
        at_all = len(self._fitting(needs, ()))
        if at_all >= needs.gpu:
            return f"gpu: {len(self._fitting(needs, leases))} free of {at_all}"
        if at_all < count:
            return f"has gpu={at_all} with gpu_memory={quantity('gpu_memory', needs.gpu_memory)}"
        return f"has gpu={count}"

    def _fitting(self, needs: Needs, leases: Iterable[_Lease]) -> list[tuple[float, Gpu]]:
        """The GPUs that could be given, with what is free of each (as a part), fullest first."""
        if not needs.gpu:
            return []
        share = 1.0 if needs.share is None else needs.share
        leases = tuple(leases)
        fitting: list[tuple[float, Gpu]] = []
        for gpu in self.capabilities.gpus:
            holders = [lease.needs for lease in leases if gpu.index in lease.gpus]
            free = 1.0 - math.fsum(1.0 if holder.share is None else holder.share for holder in holders)
            memory = gpu.memory - sum(holder.gpu_memory for holder in holders)
            if share <= free + _ROUNDING and needs.gpu_memory <= memory:
                fitting.append((free, gpu))
        return sorted(fitting, key=lambda found: (found[0], found[1].index))

    def take(self, lease: str, needs: Needs) -> Placed:
        """Reserve for ``needs``, which lack nothing here."""
        gpus = tuple(sorted(gpu.index for _, gpu in self._fitting(needs, self.leases.values())[: needs.gpu]))
        self.leases[lease] = _Lease(needs, gpus)
        return self.placed(lease)

    def placed(self, lease: str) -> Placed:
        """What ``lease`` has here."""
        gpus = self.leases[lease].gpus
        return Placed(
            lease=lease, node=self.name, incarnation=self.incarnation, gpus=gpus, environment=environment_of(gpus)
        )

    def preference(self, strategy: str) -> tuple[float, ...]:
        """The smaller, the better a place."""
        leases = tuple(self.leases.values())
        whole = sum(1 for gpu in self.capabilities.gpus if not any(gpu.index in lease.gpus for lease in leases))
        used = math.fsum(lease.needs.cpus for lease in leases)
        free = max(self.capabilities.cpus - used, 0.0)
        # A host with GPUs is the last to be packed by, and the last to be spread on for, children without one.
        if strategy == "pack":
            return (whole, free, -len(leases))
        return (len(leases), -free)


def environment_of(gpus: Iterable[int]) -> dict[str, str]:
    """What lets a process see these GPUs and no other.

    By number and not by UUID, which not every library that reads the variable understands; so the order that the
    numbers are in must be nvidia-smi's.
    """
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))}


class Accounts:
    """All members' books, and those who wait, first come first."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self._waiting: dict[str, _Request] = {}

    # --- members ---------------------------------------------------------------------------------------------------

    def add(self, node: str, incarnation: int, capabilities: Capabilities, limit: int | None = None) -> tuple[str, ...]:
        """A member has come, with a bound on its children where there is one; returns the leases that are void.

        One of the same name and incarnation has come back (it may say anew what it offers, and keeps its leases);
        under another incarnation nothing lives any more of what was there.
        """
        old = self.members.get(node)
        new = Member(node, incarnation, capabilities, limit)
        if old is not None and old.incarnation == incarnation:
            new.leases, new.draining = old.leases, old.draining
        self.members[node] = new
        return tuple(old.leases) if old is not None and new.leases is not old.leases else ()

    def remove(self, node: str) -> tuple[str, ...]:
        """A member is gone; returns the leases that are void."""
        member = self.members.pop(node, None)
        return () if member is None else tuple(member.leases)

    def drain(self, node: str, *, draining: bool = True) -> None:
        """Give it nothing new; what it has goes on. KeyError where there is no such member."""
        self.members[node].draining = draining

    # --- leases ----------------------------------------------------------------------------------------------------

    def place(self, lease: str, needs: Needs) -> Placed | Waiting:
        """Reserve a place, or stand in line for one until :meth:`release`. A lease that has a place keeps it.

        Raises:
            Unsatisfiable: no member would do even when idle.
        """
        held = self.holder(lease)
        if held is not None:
            return held.placed(lease)
        request = self._waiting.get(lease)
        if request is None:
            request = _Request(lease, needs, self._goal(needs))
            placed = self._try(request, tuple(self._waiting.values()))
            if placed is not None:
                return placed
            self._waiting[lease] = request
        return Waiting(lease=lease, reason=self._why(request))

    def release(self, lease: str) -> None:
        """Give back a place, or leave the line. What is unknown is not held."""
        self._waiting.pop(lease, None)
        held = self.holder(lease)
        if held is not None:
            del held.leases[lease]

    def grant(self) -> list[Placed | tuple[str, Unsatisfiable]]:
        """Serve those who wait and need not any more: with a place, or with why there will be none."""
        served: list[Placed | tuple[str, Unsatisfiable]] = []
        ahead: list[_Request] = []
        for request in list(self._waiting.values()):
            try:
                if not self._could(request.goal, request.needs):
                    request.goal = self._goal(request.needs)
                placed = self._try(request, ahead)
            except Unsatisfiable as error:
                del self._waiting[request.lease]
                served.append((request.lease, error))
                continue
            if placed is None:
                ahead.append(request)
            else:
                del self._waiting[request.lease]
                served.append(placed)
        return served

    def restore(self, lease: str, needs: Needs, node: str, incarnation: int, gpus: tuple[int, ...]) -> bool:
        """Enter what lives already, as a member announces it to a new authority. Whether it still counts.

        It does not where that member is unknown or another incarnation; where it does it is entered even if the books
        say that it does not fit: it is there.
        """
        member = self.members.get(node)
        if member is None or member.incarnation != incarnation:
            return False
        self._waiting.pop(lease, None)
        member.leases[lease] = _Lease(needs, gpus)
        return True

    def holder(self, lease: str) -> Member | None:
        """The member on which ``lease`` has a place."""
        return next((member for member in self.members.values() if lease in member.leases), None)

    def why_waiting(self, lease: str) -> str | None:
        """What a request that stands in line waits for, as of now."""
        request = self._waiting.get(lease)
        return None if request is None else self._why(request)

    # --- the choice ------------------------------------------------------------------------------------------------

    def _try(self, request: _Request, ahead: Iterable[_Request]) -> Placed | None:
        needs = request.needs
        fit = [member for member in self._able(needs) if not member.draining and not member.lacks(needs)]
        for member in sorted(fit, key=lambda member: member.preference(needs.strategy)):
            before = [(other, member.lacks(other.needs)) for other in ahead if other.goal == member.name]
            if any(_asks(needs, kind) for _, lacks in before for kind in lacks):
                continue
            placed = member.take(request.lease, needs)
            if all(member.lacks(other.needs).keys() == lacks.keys() for other, lacks in before):
                return placed
            del member.leases[request.lease]
        return None

    def _goal(self, needs: Needs) -> str:
        able = list(self._able(needs))
        if not able:
            raise Unsatisfiable(self._never(needs))
        return min(able, key=lambda member: (member.draining, len(member.lacks(needs)), len(member.leases))).name

    def _able(self, needs: Needs) -> Iterator[Member]:
        return (member for member in self.members.values() if not member.lacks(needs, idle=True))

    def _could(self, node: str, needs: Needs) -> bool:
        member = self.members.get(node)
        return member is not None and not member.draining and not member.lacks(needs, idle=True)

    # --- what is said ------------------------------------------------------------------------------------------------

    def _never(self, needs: Needs) -> str:
        if not self.members:
            return f"nothing can ever satisfy {needs}: there is no member; start one with `palmette node`"
        if needs.node is not None and needs.node not in self.members:
            return f"there is no member {needs.node!r} to place on; there are {', '.join(sorted(self.members))}"
        each = "; ".join(
            f"{name} {', '.join(member.lacks(needs, idle=True).values())}" for name, member in self.members.items()
        )
        return f"nothing can ever satisfy {needs}: {each}"

    def _why(self, request: _Request) -> str:
        each: list[str] = []
        for member in self._able(request.needs):
            lacks = "drains" if member.draining else ", ".join(member.lacks(request.needs).values())
            each.append(f"{member.name}: {lacks or 'what is free is kept for others who came first'}")
        return f"{request.needs} is in use ({'; '.join(each)})"


def _asks(needs: Needs, kind: str) -> bool:
    """Whether ``needs`` would take something of ``kind``."""
    return kind == "children" or (kind == "gpu" and needs.gpu > 0) or any(kind == name for name, _ in needs.counted())
