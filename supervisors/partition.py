"""A supervisor of N copies of one child, among which work is divided by key.

Elixir's ``PartitionSupervisor``. It is for a single actor that has become the place where everybody queues: a rate
limiter, a writer, a dynamic supervisor whose starts take a while. Work on one key always goes to the same copy, so
what has to stay in order stays in order; copies that are restarted disturb no other.

>>> import asyncio
>>> from palmette.actors import Actor, System, endpoint
>>> from palmette.supervisors import PartitionSupervisor, Supervisor, child
>>> class Counter(Actor):
...     def __init__(self) -> None:
...         self.seen: dict[str, int] = {}
...     @endpoint
...     async def add(self, word: str) -> int:
...         self.seen[word] = self.seen.get(word, 0) + 1
...         return self.seen[word]
>>> counters = PartitionSupervisor.spec(child(Counter, name="counter"), name="counters", partitions=4)
>>> async def main() -> None:
...     async with System.start(Supervisor.spec(children=[counters])) as system:
...         for word in "to be or not to be".split():
...             counter = PartitionSupervisor.via(system, "counters", Counter, word)
...             print(word, await counter.call(Counter.add, word), "at", counter.path)
>>> asyncio.run(main())
to 1 at /counters/0
be 1 at /counters/2
or 1 at /counters/3
not 1 at /counters/1
to 2 at /counters/0
be 2 at /counters/2

The copies are called ``0``, ``1`` and so on. They, and what lives below them, have no registered names: :meth:`via` is
how they are found.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TypeVar

import msgspec

from palmette.actors.actor import Actor
from palmette.actors.cell import Cell
from palmette.actors.endpoints import endpoint
from palmette.actors.errors import ActorDied, NodeError, Refused
from palmette.actors.exits import NoProcess
from palmette.actors.ref import Ref
from palmette.actors.system import System
from palmette.supervisors.errors import BadSpec
from palmette.supervisors.policy import Backoff, Restart
from palmette.supervisors.spec import ChildSpec
from palmette.supervisors.spec import Shutdown as ShutdownTime
from palmette.supervisors.supervisor import Strategy, Supervisor

A = TypeVar("A", bound=Actor)

Key = int | str | bytes
"""What work is divided by. Neither floats, whose equality is a trap, nor objects, whose hashes differ by process."""


def partition_of(key: Key, partitions: int) -> int:
    """The partition of ``key``: the same in every process and in every run.

    ``abs(key) % partitions`` for an integer, as in Elixir, so that consecutive ones spread evenly.

    >>> partition_of(10, 4), partition_of(-3, 4), partition_of("episode-17", 4)
    (2, 3, 1)
    """
    match key:
        case bool():
            pass  # True is 1, and yet nobody who passes it means partition 1
        case int():
            return abs(key) % partitions
        case str() | bytes():
            # Marked by type: "a" and b"a" are two keys.
            mark, data = (b"s", key.encode("utf-8", "surrogatepass")) if isinstance(key, str) else (b"b", key)
            return int.from_bytes(blake2b(data, digest_size=8, person=mark).digest()) % partitions
    raise TypeError(f"work is divided by an int, a str or bytes, not by {key!r}")


class PartitionSupervisor(Supervisor):
    """See the module's text. Describe one with :meth:`spec`."""

    @staticmethod
    def spec(  # pyright: ignore[reportIncompatibleMethodOverride] - it describes, nobody calls it on an instance
        child: ChildSpec[Actor],
        *,
        name: str,
        partitions: int,
        strategy: Strategy = "one_for_one",
        max_restarts: int = 3,
        max_seconds: float = 5.0,
        restart: Restart = "permanent",
        shutdown: ShutdownTime = "infinity",
        backoff: Backoff | None = None,
        register: str | None = None,
        start_timeout: float = 120.0,
    ) -> ChildSpec[PartitionSupervisor]:
        """Describe ``partitions`` copies of ``child``, whose name is replaced by its number, from 0.

        Raises:
            BadSpec: before anything starts.
        """
        if isinstance(partitions, bool) or partitions < 1:
            raise BadSpec(f"partitions is a number from 1, not {partitions!r}")
        if child.register is not None:
            raise BadSpec(f"{child!r} is registered as {child.register!r}, which its {partitions} copies cannot share")
        if child.significant:
            raise BadSpec(f"{child!r} is significant, which means nothing for one partition among others")
        kwargs: dict[str, object] = {
            "children": tuple(msgspec.structs.replace(child, name=str(number)) for number in range(partitions)),
            "strategy": strategy,
            "max_restarts": max_restarts,
            "max_seconds": max_seconds,
        }
        PartitionSupervisor(**kwargs)  # pyright: ignore[reportArgumentType] - built once for its checks alone
        return ChildSpec(
            actor=PartitionSupervisor,
            kwargs=kwargs,
            name=name,
            restart=restart,
            shutdown=shutdown,
            backoff=backoff,
            register=register,
            start_timeout=start_timeout,
            supervisor=True,
            dynamic=True,
        )

    # --- routing ---------------------------------------------------------------------------------------------------

    @staticmethod
    def partitions(system: System, name: str) -> int:
        """How many partitions the supervisor called ``name`` has.

        Raises:
            ActorDied: it is not there.
            NodeError: it lives in another process. Ask it for ``count_children``, and use :func:`partition_of`.
        """
        supervisor = system.whereis(name, PartitionSupervisor)
        target = supervisor._slot.target  # pyright: ignore[reportPrivateUsage]
        if target is None:
            raise ActorDied(supervisor.path, NoProcess(supervisor.path))
        actor = target.actor if isinstance(target, Cell) else None
        if not isinstance(actor, PartitionSupervisor):
            raise NodeError(f"{supervisor.path} is no partition supervisor of this process, but a {target.kind}")
        return len(actor._specs)

    @staticmethod
    def via(system: System, name: str, actor: type[A], key: Key) -> Ref[A]:
        """The copy that ``key`` belongs to, alive or not. Raises as :meth:`partitions`, and TypeError for the key."""
        number = partition_of(key, PartitionSupervisor.partitions(system, name))
        return system.ref_at(f"{system.whereis(name, PartitionSupervisor).path}/{number}", actor)

    # --- administration: the number of partitions stands -------------------------------------------------------------

    @endpoint
    async def start_child(  # pyright: ignore[reportIncompatibleVariableOverride] - an endpoint's class is its actor's
        self, spec: ChildSpec[Actor]
    ) -> str:
        """Refused: a further partition would send keys elsewhere than before."""
        raise Refused(f"{self.path} has its {len(self._specs)} partitions; it takes no {spec.name!r}")

    @endpoint
    async def delete_child(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, name: str
    ) -> None:
        """Refused: there would be keys without a partition."""
        raise Refused(f"{self.path} keeps its {len(self._specs)} partitions; {name!r} can be terminated and restarted")
