"""Remove what killed controllers left behind, while others go on living.

Everything local that a machine makes bears the name of its controller (:mod:`palmette.machines.identity`). The reaper
looks at three places (control groups, processes with our tag, scratch directories) and takes what names a controller
that does not live any more. What a living process controls is not touched, nor what cannot be judged from here
(another host or pid namespace that shares the directory).

    >>> report = reap()                     # doctest: +SKIP
    >>> report.directories, report.processes  # doctest: +SKIP
    (('run-7.1234.99887.0a1b2c3d4e5f.9f8e7d6c',), 2)

It blocks; call it in a thread. Two reapers at once do not disturb each other.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from palmette.machines.errors import MachineError
from palmette.machines.files import remove_tree
from palmette.machines.identity import Controller, MachineId
from palmette.machines.scratch import parent_directory, prepare_parent
from palmette.machines.tree import GROUP_PREFIX, MACHINE_TAG, group_mount, kill_group, kill_tagged


class ReapReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one pass of the reaper found."""

    directories: tuple[str, ...] = ()
    """Machines whose scratch directory was removed."""
    processes: int = 0
    """Processes that were killed."""
    groups: int = 0
    """Control groups that were removed."""
    alive: int = 0
    """Scratch directories left alone as their controller lives."""
    elsewhere: tuple[str, ...] = ()
    """Machines of another host or pid namespace, left alone."""
    failed: tuple[str, ...] = ()
    """What could not be killed or removed, and why. Empty when all went well."""


def reap(*, owner: str | None = None, root: Path | None = None) -> ReapReport:
    """Kill the processes and remove the directories of machines whose controller is dead. Blocks.

    Args:
        owner: only machines of this run.
        root: where the scratch directories are; the default of :class:`~palmette.machines.local.LocalMachine`.

    Raises:
        MachineError: ``root`` is not a directory of ours.
    """
    return _Reaper(owner, parent_directory(root)).reap()


class _Reaper:
    def __init__(self, owner: str | None, parent: Path) -> None:
        self._owner = owner
        self._parent = parent
        self._known: dict[tuple[int, int, str], Controller] = {}
        self._failed: list[str] = []

    def reap(self) -> ReapReport:
        groups, processes = self._groups()
        # A process may have left its group; and without groups the tag is all there is.
        try:
            processes += kill_tagged(MACHINE_TAG, lambda name: self._verdict(name) == "dead")
        except MachineError as error:
            self._failed.append(str(error))
        directories: list[str] = []
        elsewhere: list[str] = []
        alive = 0
        for name in self._names():
            verdict = self._verdict(name)
            if verdict == "dead" and self._remove(name):
                directories.append(name)
            elif verdict == "elsewhere":
                elsewhere.append(name)
            elif verdict == "alive":
                alive += 1
        return ReapReport(
            directories=tuple(directories),
            processes=processes,
            groups=groups,
            alive=alive,
            elsewhere=tuple(elsewhere),
            failed=tuple(self._failed),
        )

    def _verdict(self, name: str) -> Controller | None:
        """On the machine called ``name``; ``None`` when it is none of our business."""
        machine = MachineId.parse(name)
        if machine is None or (self._owner is not None and machine.owner != self._owner):
            return None
        key = (machine.pid, machine.start, machine.place)
        if key not in self._known:
            self._known[key] = machine.controller()
        return self._known[key]

    def _groups(self) -> tuple[int, int]:
        """Kill the dead controllers' control groups, wherever in the hierarchy; (groups, processes)."""
        mount = group_mount()
        groups = processes = 0
        for directory, names, _ in os.walk(mount) if mount is not None else ():
            for name in [name for name in names if name.startswith(GROUP_PREFIX)]:
                names.remove(name)
                path = Path(directory, name)
                if self._verdict(name.removeprefix(GROUP_PREFIX).rpartition(".")[0]) != "dead":
                    continue
                try:
                    if path.stat().st_uid == os.geteuid():
                        processes += kill_group(path)
                        groups += 1
                except FileNotFoundError:
                    continue
                except (OSError, MachineError) as error:
                    self._failed.append(f"{path}: {error}")
        return groups, processes

    def _names(self) -> list[str]:
        if not os.path.lexists(self._parent):
            return []
        prepare_parent(self._parent)
        return sorted(os.listdir(self._parent))

    def _remove(self, name: str) -> bool:
        try:
            remove_tree(str(self._parent / name))
        except OSError as error:
            self._failed.append(f"{self._parent / name}: {error}")
            return False
        return True
