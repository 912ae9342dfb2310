"""Machines on hosts reached over SSH: ``ssh://USER@HOST``. See :mod:`palmette.machines.ssh.backend`."""

from palmette.machines.ssh.backend import SshBackend, machine, reap

__all__ = ["SshBackend", "machine", "reap"]
