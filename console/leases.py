"""One process plays a run at a time: the lease ``run:<id>`` in the journal says which.

The holder's name is a machine name (:class:`~palmette.machines.identity.MachineId`): it tells host, boot, process and
its start. So whoever finds a lease that has not lapsed can tell on the same host whether its holder still lives, and
a process that was killed keeps nobody from resuming; one that was merely stopped for long does, lapsed or not.
"""

from __future__ import annotations

import asyncio

import msgspec

from palmette.actors import Actor, TaskDone
from palmette.benchmarks.errors import LeaseHeld
from palmette.benchmarks.journal import JournalStore, Lease
from palmette.console.failures import RunBusy
from palmette.machines.identity import MachineId

SECONDS = 60.0
"""Without a renewal a lease lapses after this."""
RENEW_SECONDS = 15.0


def lease_name(run: str) -> str:
    return f"run:{run}"


def holder_of(run: str) -> str:
    """The name under which this process holds the lease of ``run``."""
    return str(MachineId.new(run))


def take(store: JournalStore, run: str, holder: str) -> None:
    """Take the run's lease, from a dead holder too. Blocks.

    Raises:
        RunBusy: another process plays the run.
    """
    for lease in store.leases(run=run):
        if lease.name == lease_name(run) and lease.holder != holder:
            match _controller(lease):
                case "alive":
                    raise _busy(run, lease.holder)
                case "dead":
                    store.release_lease(lease.name, holder=lease.holder)
                case _:  # of another host: only time can tell, and acquire_lease looks at the clock
                    pass
    try:
        renew(store, run, holder)
    except LeaseHeld as held:
        raise _busy(run, held.holder) from None


def renew(store: JournalStore, run: str, holder: str) -> None:
    """Keep the lease for :data:`SECONDS` more. Raises LeaseHeld."""
    store.acquire_lease(lease_name(run), holder=holder, seconds=SECONDS, run=run)


def release(store: JournalStore, run: str, holder: str) -> None:
    """Give it back."""
    store.release_lease(lease_name(run), holder=holder)


def is_played(leases: list[Lease], run: str, now: float) -> bool:
    """Whether, by these leases, some process plays ``run`` at the moment."""
    for lease in leases:
        if lease.name == lease_name(run):
            verdict = _controller(lease)
            return verdict == "alive" or (verdict != "dead" and lease.expires > now)
    return False


def _controller(lease: Lease) -> str | None:
    holder = MachineId.parse(lease.holder)
    return None if holder is None else holder.controller()


def _busy(run: str, holder: str) -> RunBusy:
    known = MachineId.parse(holder)
    where = holder if known is None else f"process {known.pid}"
    elsewhere = known is not None and known.controller() == "elsewhere"
    return RunBusy(
        f"run {run} is being played by {where}{' on another host' if elsewhere else ''}; look at it with "
        f"`palmette tree {run}`, or stop it before you resume it"
    )


class Renew(msgspec.Struct, frozen=True):
    """Time to renew."""


class LeaseKeeper(Actor):
    """Renews the lease of ``run``. It crashes when the lease is somebody else's: two must not play one run."""

    def __init__(self, url: str, run: str, holder: str) -> None:
        self._url = url
        self._run = run
        self._holder = holder

    async def continued(self) -> None:
        self.send_after(RENEW_SECONDS, Renew())

    async def receive(self, message: object) -> None:
        match message:
            case Renew():
                self.start_task(asyncio.to_thread(self._renew), tag="renew")
            case TaskDone():
                self.send_after(RENEW_SECONDS, Renew())
            case _:
                await super().receive(message)

    def _renew(self) -> None:
        with JournalStore(self._url, create=False) as store:
            renew(store, self._run, self._holder)
