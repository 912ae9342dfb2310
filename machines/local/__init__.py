"""Machines on this host: ``local``, a directory and process groups, and ``local+bwrap``, with a wall around them.

See :mod:`palmette.machines.local.machine` and :mod:`palmette.machines.local.bwrap`.
"""

from palmette.machines.local.machine import LocalMachine

__all__ = ["LocalMachine"]
