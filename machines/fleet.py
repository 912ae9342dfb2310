"""Fleets: where the machines of a pool live.

Without a word of where, a pool has one fleet in this process. With ``on=needs(...)`` it has several, each a process on
a host that offers what is needed: one process per host, and in it an actor per machine, so that agents' commands run
there and not here::

    fleets               one_for_one
    ├── 1                keeps its fleet up, and waits for a place if need be; the others do not wait with it
    │   └── fleet        on=needs(...), dynamic: one actor per machine
    └── 2
        └── fleet

A fleet says to the pool that it is up; that it is not any more, its end says. A host that is lost is an ordinary end:
the fleet is started elsewhere, and its machines are not: whoever leased one leases another.
"""

from __future__ import annotations

import logging
import math
from typing import Final

import msgspec

from palmette.actors import Actor, Ref, deadline
from palmette.actors.cluster.needs import Needs
from palmette.machines.actor import MachineActor
from palmette.machines.gate import Gate
from palmette.machines.images import machine_for
from palmette.machines.leftovers import reap_all
from palmette.supervisors import Backoff, BadSpec, ChildSpec, DynamicSupervisor, Supervisor
from palmette.supervisors.policy import Directive

START_SECONDS: Final = 600.0
"""For one machine to come up, its turn at the gate included."""
BACKOFF: Final = Backoff(min=0.2, max=10.0, reset_after=10.0, give_up_after=math.inf)
"""Of a fleet. Its host may be away for as long as it likes: whoever needs a machine has a deadline."""
RULES: Final[dict[str, Directive]] = dict.fromkeys(
    ("retryable", "killed", "unreachable", "NodeError", "Unsatisfiable"), "backoff"
)
"""A lost host is no fault of the fleet's, and costs no budget. (A first start that fails is not tried again.)"""

logger: Final = logging.getLogger("palmette.machines")


class MachineUp(msgspec.Struct, frozen=True):
    """To the pool: a machine may be used."""

    machine: Ref[MachineActor]


class FleetUp(msgspec.Struct, frozen=True):
    """To the pool: machines may be started here."""

    fleet: Ref[DynamicSupervisor]


class PooledMachine(MachineActor):
    """A machine that comes up through the gate, and tells the pool when it is there."""

    def __init__(self, image: str, owner: str, gate: Ref[Gate], pool: Ref[Actor]) -> None:
        super().__init__(image, owner)
        self._gate = gate
        self._pool = pool

    async def continued(self) -> None:
        with deadline(START_SECONDS):
            await self._gate.call(Gate.enter, self.ref)
        await super().continued()
        self._gate.cast(Gate.leave, self.ref)
        self._pool.send(MachineUp(self.ref))


class Fleet(DynamicSupervisor):
    """The machines of a pool that live in one process.

    Args:
        pool: the registered name of the pool.
        image: of its machines, where this is a process of its own: its host must have what they take, and what killed
            ones have left there is removed.
    """

    def __init__(self, pool: str, image: str | None = None) -> None:
        super().__init__()
        self._pool = pool
        self._image = image

    async def started(self) -> None:
        if self._image is not None:
            machine_for(self._image, owner="check")

    async def continued(self) -> None:
        if self._image is not None:
            self.start_task(self._tidy(self._image))
        (await self.system.lookup(self._pool, Actor)).send(FleetUp(self.ref))

    async def _tidy(self, image: str) -> None:
        for found in await reap_all((image,)):
            if found.removed or found.processes:
                logger.info("%s: removed %d machines that killed runs had left", found.backend, len(found.removed))
            for problem in found.failed:
                logger.warning("%s: what killed runs have left is still there: %s", found.backend, problem)


def fleet_spec(pool: str) -> ChildSpec[Fleet]:
    """The one fleet of the pool that is registered as ``pool``, in this process."""
    return ChildSpec(
        actor=Fleet,
        kwargs={"pool": pool},
        name="fleet",
        register=f"{pool}.fleet",
        shutdown="infinity",
        supervisor=True,
        dynamic=True,
    )


def fleets_spec(pool: str, image: str, count: int, on: Needs) -> ChildSpec[Supervisor]:
    """``count`` fleets of the pool that is registered as ``pool``, each on a host that offers ``on``.

    Raises:
        BadSpec: there is to be none.
    """
    if count < 1:
        raise BadSpec(f"a pool has at least one fleet, got {count}")
    fleet = msgspec.structs.replace(
        fleet_spec(pool),
        kwargs={"pool": pool, "image": image},
        isolation="process",
        on=on,
        backoff=BACKOFF,
        rules=RULES,
    )
    keepers: list[ChildSpec[Supervisor]] = []
    for number in range(1, count + 1):
        numbered = msgspec.structs.replace(fleet, register=f"{pool}.fleet.{number}")
        keepers.append(Supervisor.spec(name=str(number), register=f"{pool}.fleets.{number}", children=[numbered]))
    return Supervisor.spec(name="fleets", register=f"{pool}.fleets", children=keepers)
