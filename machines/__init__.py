"""Machines: where an agent's commands run. Backends, image strings and the reaper."""

from palmette.machines.actor import MachineActor
from palmette.machines.backend import Backend, Channel, Place
from palmette.machines.contract import (
    ExecResult,
    Limits,
    Machine,
    MachineDescription,
    Process,
    Snapshot,
    SnapshotGrade,
    StreamName,
    TerminalSize,
)
from palmette.machines.errors import (
    CommandNotStarted,
    FileTooLarge,
    ImageUnusable,
    MachineBroken,
    MachineError,
    MachineLost,
    NotAFile,
    PathEscapes,
    SnapshotNotPossible,
    UnknownImage,
)
from palmette.machines.evidence import Evidence
from palmette.machines.hosted import HostedMachine
from palmette.machines.images import images, machine_for, register_backend
from palmette.machines.lease import LeasedMachine
from palmette.machines.local import LocalMachine
from palmette.machines.pool import MachinePool, machine_pool
from palmette.machines.reaper import ReapReport, reap
from palmette.machines.remote import RemoteMachine
from palmette.machines.snapshots import delete_snapshot
from palmette.machines.transfer import download, upload

__all__ = [
    "Backend",
    "Channel",
    "CommandNotStarted",
    "Evidence",
    "ExecResult",
    "FileTooLarge",
    "HostedMachine",
    "ImageUnusable",
    "LeasedMachine",
    "Limits",
    "LocalMachine",
    "Machine",
    "MachineActor",
    "MachineBroken",
    "MachineDescription",
    "MachineError",
    "MachineLost",
    "MachinePool",
    "NotAFile",
    "PathEscapes",
    "Place",
    "Process",
    "ReapReport",
    "RemoteMachine",
    "Snapshot",
    "SnapshotGrade",
    "SnapshotNotPossible",
    "StreamName",
    "TerminalSize",
    "UnknownImage",
    "delete_snapshot",
    "download",
    "images",
    "machine_for",
    "machine_pool",
    "reap",
    "register_backend",
    "upload",
]
