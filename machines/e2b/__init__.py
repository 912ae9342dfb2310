"""Machines in E2B's cloud, or in an E2B of one's own: ``e2b`` (its base template), ``e2b:TEMPLATE``. ::

    export E2B_API_KEY=e2b_...                   # read when a machine starts; it never reaches a sandbox
    machine = machine_for("e2b:my-template", owner="run-1")

A sandbox is a virtual machine that lives only as long as it is wanted: E2B ends it after a lease of a minute, which is
renewed while the machine is held. A controller that is killed leaves nothing for longer than that; whoever cannot
wait calls :func:`reap`. E2B's options are its SDK's environment variables (``E2B_DOMAIN``, and ``E2B_API_URL`` and
``E2B_SANDBOX_URL`` for who hosts it himself), or an :class:`E2bAccount` given to :class:`E2bBackend`.

**Snapshots and forks** are E2B's own: memory and files. A copy holds the processes as they were. Of them those that
obeyed the copied machine's controller are killed in the copy; what a command had left running goes on there, but
nobody reads its output any more. E2B keeps a snapshot until :func:`delete_snapshot`.

Needs ``pip install 'palmette[e2b]'``, imported on the first start. A process that has used it must not be forked (the
SDK's limits): start processes by ``spawn``.
"""

from __future__ import annotations

from importlib.util import find_spec

from palmette.machines.contract import Machine
from palmette.machines.e2b.account import E2bAccount, E2bReapReport, delete_snapshot, reap
from palmette.machines.e2b.backend import E2bBackend
from palmette.machines.hosted import HostedMachine
from palmette.machines.identity import MachineId

__all__ = ["E2bAccount", "E2bBackend", "E2bReapReport", "delete_snapshot", "machine", "reap"]


def machine(rest: str, owner: str) -> Machine:
    """What ``e2b`` and ``e2b:REST`` make: a machine from the template or snapshot ``rest``.

    Raises:
        ModuleNotFoundError: the SDK is not installed.
    """
    if find_spec("e2b") is None:  # which is imported on the start
        raise ModuleNotFoundError("the e2b SDK is not installed", name="e2b")
    id = str(MachineId.new(owner))
    return HostedMachine(E2bBackend(rest, id), id, f"e2b:{rest}" if rest else "e2b")
