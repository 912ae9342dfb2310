"""A supervisor of children that come and go: episodes, sessions, connections.

Children are started at run time, each from its own spec; they are supervised one for one, stopped in parallel, and
forgotten when they have ended for good, or decline to start again. ``max_children`` is admission control (children that
wait for a restart count).
"""

from __future__ import annotations

from typing import TypeVar

from palmette.actors.actor import Actor
from palmette.actors.endpoints import endpoint
from palmette.actors.exits import Reason
from palmette.supervisors.children import Child, Restarter, declined
from palmette.supervisors.errors import BadSpec, ChildExists, StartDeclined, StartRefused, TooManyChildren
from palmette.supervisors.policy import Backoff, Budget, Restart
from palmette.supervisors.spec import ChildSpec
from palmette.supervisors.spec import Shutdown as ShutdownTime

D = TypeVar("D", bound="DynamicRestarter")


class DynamicRestarter(Restarter):
    """What supervisors of children that come and go do with them. Not for direct use."""

    def __init__(self, *, max_children: int | None = None, max_restarts: int = 3, max_seconds: float = 5.0) -> None:
        if max_children is not None and max_children < 1:
            raise BadSpec(f"max_children is at least 1, or None for no bound; got {max_children}")
        self._max_children = max_children
        self._budget = Budget(max_restarts, max_seconds)
        self._members: dict[str, Child] = {}

    async def stopping(self, reason: Reason) -> None:
        for member in self._members.values():
            member.state = "stopped"
        await self._stop(*self._members.values())

    async def _exited(self, member: Child, reason: Reason) -> None:
        match self._judge(member, reason, lived=self._lived(member)):
            case "restart":
                await self._restart(member)
            case "finished":
                self._drop(member)
            case _:
                pass  # a Retry is on its way, or stopping() ends the others

    async def _restart(self, member: Child) -> None:
        failure = await self._try(member)
        if member.state == "declined" or (failure is not None and self._judge(member, failure.reason) == "finished"):
            self._drop(member)

    async def _admit(self, spec: ChildSpec[Actor]) -> Child:
        """Take a child in and start it; for the errors see :meth:`DynamicSupervisor.start_child`."""
        if self._max_children is not None and len(self._members) >= self._max_children:
            raise TooManyChildren(f"{self.path} has its {self._max_children} children; wait, or raise max_children")
        if spec.name in self._members:
            raise ChildExists(f"{self.path} has a child {spec.name!r} already")
        if spec.significant:
            raise StartRefused(f"{spec.name!r} is significant, which means nothing under a dynamic supervisor")
        member = self._add(spec)
        failure = await self._try(member)
        if failure is not None:
            self._drop(member)
            raise StartRefused(str(failure))
        if member.state == "declined":
            self._drop(member)
            raise StartDeclined(declined(member))
        return member

    @endpoint
    async def terminate_child(self, name: str) -> None:
        """Stop a child and forget it; one that is not here (any more) is fine."""
        member = self._members.get(name)
        if member is not None:
            member.state = "stopped"
            await self._stop(member)
            self._drop(member)


def dynamic_spec(
    actor: type[D],
    kwargs: dict[str, object],
    *,
    name: str,
    restart: Restart,
    shutdown: ShutdownTime,
    backoff: Backoff | None,
    register: str | None,
) -> ChildSpec[D]:
    """Describe a supervisor of this kind. Raises BadSpec."""
    actor(**kwargs)  # pyright: ignore[reportArgumentType] - built once for its checks alone
    return ChildSpec(
        actor=actor,
        kwargs=kwargs,
        name=name,
        restart=restart,
        shutdown=shutdown,
        backoff=backoff,
        register=register,
        supervisor=True,
        dynamic=True,
    )


class DynamicSupervisor(DynamicRestarter):
    """See the module's text. Describe one with :meth:`spec`."""

    @staticmethod
    def spec(
        *,
        name: str,
        max_children: int | None = None,
        max_restarts: int = 3,
        max_seconds: float = 5.0,
        restart: Restart = "permanent",
        shutdown: ShutdownTime = "infinity",
        backoff: Backoff | None = None,
        register: str | None = None,
    ) -> ChildSpec[DynamicSupervisor]:
        """Describe a dynamic supervisor. Raises BadSpec before anything starts."""
        return dynamic_spec(
            DynamicSupervisor,
            {"max_children": max_children, "max_restarts": max_restarts, "max_seconds": max_seconds},
            name=name,
            restart=restart,
            shutdown=shutdown,
            backoff=backoff,
            register=register,
        )

    @endpoint
    async def start_child(self, spec: ChildSpec[Actor]) -> str:
        """Start a child and return its path.

        Raises:
            TooManyChildren: ``max_children`` are here.
            ChildExists: one of that name is here.
            StartRefused: it did not start; it is not kept.
            StartDeclined: it declined to start; it is not kept either.
        """
        return (await self._admit(spec)).slot.path
