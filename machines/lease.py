"""A machine of a pool as a child in somebody's tree: leased when it starts, thrown away when it ends.

Supervisor.spec(strategy="rest_for_one", children=[child(LeasedMachine, name="machine"), child(Agent, name="agent")])
"""

from __future__ import annotations

from palmette.actors import Actor, Crashed, Exit, Reason, Ref, deadline, describe, endpoint
from palmette.machines.actor import MachineActor
from palmette.machines.errors import MachineLost
from palmette.machines.evidence import Evidence
from palmette.machines.pool import LEASE_SECONDS, MachinePool


class LeasedMachine(Actor):
    """A machine of the pool that is registered as ``pool``.

    Ends with the machine: for its reason where it says one, else (it was lost with its host, its process was killed)
    as :class:`~palmette.machines.MachineLost` with what is known of that.
    """

    trap_exit = True

    def __init__(self, pool: str = "machines") -> None:
        self._pool_path = pool
        self._machine: Ref[MachineActor] | None = None

    async def continued(self) -> None:
        with deadline(LEASE_SECONDS + 10.0):  # the pool gives up first, and says why
            self._machine = await self._pool.call(MachinePool.lease, self.ref)
        self.link(self._machine)

    async def receive(self, message: object) -> None:
        match message:
            case Exit(_, Crashed() as reason):
                self.stop(reason)
            case Exit(_, reason):
                text = "what the machine was kept from is gone"
                raise MachineLost(text, Evidence(cause="host_lost", detail=describe(reason)))
            case _:
                await super().receive(message)

    async def stopping(self, reason: Reason) -> None:
        # One that is killed does not get here: the pool watches it.
        if self._machine is not None and self._pool.is_alive():
            self._pool.cast(MachinePool.give_back, self._machine)

    @endpoint
    async def machine(self) -> Ref[MachineActor]:
        """The machine."""
        assert self._machine is not None, "continued() comes before any request"
        return self._machine

    @property
    def _pool(self) -> Ref[MachinePool]:
        return self.system.whereis(self._pool_path, MachinePool)
