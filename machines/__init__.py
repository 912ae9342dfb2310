"""Machines: where an agent's commands run. Backends, image strings and the reaper."""

from palmette.machines.actor import MachineActor, RemoteMachine
from palmette.machines.contract import ExecResult, Limits, Machine, StreamName
from palmette.machines.errors import (
    CommandNotStarted,
    FileTooLarge,
    MachineError,
    MachineLost,
    NotAFile,
    PathEscapes,
    UnknownImage,
)
from palmette.machines.images import images, machine_for
from palmette.machines.local import LocalMachine
from palmette.machines.pool import LeasedMachine, MachinePool, machine_pool
from palmette.machines.reaper import ReapReport, reap

__all__ = [
    "CommandNotStarted",
    "ExecResult",
    "FileTooLarge",
    "LeasedMachine",
    "Limits",
    "LocalMachine",
    "Machine",
    "MachineActor",
    "MachineError",
    "MachineLost",
    "MachinePool",
    "NotAFile",
    "PathEscapes",
    "ReapReport",
    "RemoteMachine",
    "StreamName",
    "UnknownImage",
    "images",
    "machine_for",
    "machine_pool",
    "reap",
]
