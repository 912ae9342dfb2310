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

from collections.abc import Iterable, Iterator

import msgspec

from palmette.actors.cluster.books import Member, Placed
from palmette.actors.cluster.capabilities import Capabilities
from palmette.actors.cluster.needs import Needs
from palmette.actors.errors import NodeError


class Unsatisfiable(NodeError):
    """No member offers what a child needs, however idle: the text says what each of them lacks."""

    retryable = True
    """One that does may join."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """There is a place, but it is in use; :meth:`Accounts.grant` says when it is free."""

    lease: str
    reason: str


class _Request(msgspec.Struct):
    lease: str
    needs: Needs
    goal: str | None
    """The member on which it is kept from starving; ``None`` while there is none that would do."""


class Accounts:
    """All members' books, and those who wait, first come first."""

    def __init__(self, *, complete: bool = True) -> None:
        self.members: dict[str, Member] = {}
        self.complete = complete
        """Whether all members are here. An authority that has just been restarted says no until they had the time to
        come back: nothing is unsatisfiable before, it waits."""
        self._waiting: dict[str, _Request] = {}

    # --- members ---------------------------------------------------------------------------------------------------

    def add(self, node: str, incarnation: int, capabilities: Capabilities, limit: int | None = None) -> tuple[str, ...]:
        """A member has come, with a bound on its children where there is one; returns the leases that are void.

        One of the same name and incarnation has come back (it may say anew what it offers, and keeps its leases);
        under another incarnation nothing lives any more of what was there.
        """
        old = self.members.get(node)
        new = Member(node, incarnation, capabilities, limit)
        self.members[node] = new
        if old is None:
            return ()
        if old.incarnation != incarnation:
            return tuple(old.leases)
        new.inherit(old)
        return ()

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
            held.drop(lease)

    def grant(self) -> list[Placed | tuple[str, Unsatisfiable]]:
        """Serve those who wait and need not any more: with a place, or with why there will be none."""
        served: list[Placed | tuple[str, Unsatisfiable]] = []
        ahead: list[_Request] = []
        for request in list(self._waiting.values()):
            try:
                if request.goal is None or not self._could(request.goal, request.needs):
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
        member.enter(lease, needs, gpus)
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
            if all(member.lacks(other.needs) == lacks for other, lacks in before):
                return placed
            member.drop(request.lease)
        return None

    def _goal(self, needs: Needs) -> str | None:
        able = list(self._able(needs))
        if not able and not self.complete:
            return None
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
        each = "; ".join(f"{name} {member.explain(needs, idle=True)}" for name, member in self.members.items())
        return f"nothing can ever satisfy {needs}: {each}"

    def _why(self, request: _Request) -> str:
        each: list[str] = []
        for member in self._able(request.needs):
            lacks = "drains" if member.draining else member.explain(request.needs)
            each.append(f"{member.name}: {lacks or 'what is free is kept for others who came first'}")
        if not each:
            return f"{request.needs} is not there; not all members are back since the head was restarted"
        return f"{request.needs} is in use ({'; '.join(each)})"


def _asks(needs: Needs, kind: str) -> bool:
    """Whether ``needs`` would take something of ``kind``."""
    return kind == "children" or (kind == "gpu" and needs.gpu > 0) or any(kind == name for name, _ in needs.counted())
