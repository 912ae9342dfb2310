"""Machines in containers: ``docker:IMAGE``. See :mod:`palmette.machines.docker.backend`."""

from palmette.machines.docker.backend import DockerBackend, machine
from palmette.machines.docker.reaper import delete_snapshot

__all__ = ["DockerBackend", "delete_snapshot", "machine"]
