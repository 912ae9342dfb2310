"""Image strings: what machine to make.

::

    local                          processes of this host
    local+bwrap                    processes of this host, behind kernel namespaces (bubblewrap)
    docker:python:3.12             a container of that image
    ssh://user@host:port           a directory of another host
    e2b:template                   a sandbox in E2B's cloud
    NAME:...                       whatever register_backend("NAME", ...) makes of it
    ANY OF THESE@/path/to.tar      the same, with a snapshot of a working directory in it

>>> images()
['docker', 'e2b', 'local', 'local+bwrap', 'ssh']
>>> machine = machine_for("local", owner="run-1")
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

from palmette.machines.backend import Backend
from palmette.machines.contract import Machine
from palmette.machines.errors import SnapshotNotPossible, UnknownImage
from palmette.machines.identity import MachineId
from palmette.machines.snapshots import split_image


@runtime_checkable
class Restorable(Protocol):
    """A machine that can start from a snapshot of a working directory."""

    def restore(self, archive: Path) -> None: ...


def machine_for(image: str, *, owner: str) -> Machine:
    """A machine, not yet started, of the backend that ``image`` names.

    Args:
        image: see the head of this module.
        owner: id of the run that the machine will belong to.

    Raises:
        UnknownImage: no backend has that name, or it does not take what follows, or its library is not installed.
    """
    base, archive = split_image(image)
    name, rest = _parse(base)
    make = _makers.get(name)
    if make is None:
        raise UnknownImage(f"there is no machine backend for the image {image!r}; those that exist are: {known()}")
    machine = make(rest, owner)
    if archive is not None:
        if not isinstance(machine, Restorable):
            raise UnknownImage(f"{name!r} machines start from no snapshot of a working directory, got {image!r}")
        machine.restore(archive)
    return machine


def images() -> list[str]:
    """The names of the backends, sorted."""
    return sorted(_makers)


def register_backend(name: str, make: Callable[[str, str], Backend]) -> None:
    """Have image strings ``NAME`` and ``NAME:REST`` mean machines over a backend of your own.

    Args:
        name: letters, digits, ``-``, ``+``.
        make: makes a backend, not started, of REST and the machine's id.

    Raises:
        ValueError: the name is taken, or cannot stand in an image string.
    """
    if not name or not name.replace("-", "").replace("+", "").isalnum():
        raise ValueError(f"a backend's name is letters, digits, '-' and '+', got {name!r}")
    if name in _makers:
        raise ValueError(f"there is a backend {name!r} already; take another name")

    def machine(rest: str, owner: str) -> Machine:
        from palmette.machines.hosted import HostedMachine

        id = str(MachineId.new(owner))
        return HostedMachine(make(rest, id), id, f"{name}:{rest}" if rest else name)

    _makers[name] = machine


async def snapshot_deleter(image: str) -> None:
    """Have the backend that made the snapshot ``image`` remove it.

    Raises:
        SnapshotNotPossible: it removes none.
    """
    name, rest = _parse(image)
    if name in _MODULES:
        delete = getattr(importlib.import_module(f"palmette.machines.{_MODULES[name][0]}"), "delete_snapshot", None)
        if delete is not None:
            await cast("Callable[[str], Awaitable[None]]", delete)(rest)
            return
    raise SnapshotNotPossible(f"{image!r} is no snapshot that can be removed from here; see to it where it is kept")


def backend_of(image: str) -> str:
    """The name of the backend that an image string means. Raises UnknownImage where there is none of that name."""
    name, _ = _parse(split_image(image)[0])
    if name not in _makers:
        raise UnknownImage(f"there is no machine backend for the image {image!r}; those that exist are: {known()}")
    return name


def known() -> str:
    """The names of the backends, for a message."""
    return ", ".join(repr(name) for name in images())


def unregister_backend(name: str) -> None:
    """Undo :func:`register_backend`. One that was never registered is fine."""
    if name not in _BUILT_IN:
        _makers.pop(name, None)


def _parse(image: str) -> tuple[str, str]:
    """Backend and what follows. ``ssh://…`` reads like the address that it is."""
    name, colon, rest = image.partition(":")
    if colon and not rest.removeprefix("//"):
        raise UnknownImage(f"the image {image!r} ends where its name should stand; write {name!r} and what it runs")
    return name, rest.removeprefix("//") if name == "ssh" else rest


def _local(rest: str, owner: str) -> Machine:
    from palmette.machines.local import LocalMachine

    if rest:
        raise UnknownImage(f"the image 'local' runs this host's own programs and takes nothing more, got {rest!r}")
    return LocalMachine(owner)


def _module(module: str, extra: str | None) -> Callable[[str, str], Machine]:
    """A backend in a module of its own, imported on use: ``machine(rest, owner)`` in it makes the machine."""

    def make(rest: str, owner: str) -> Machine:
        try:
            found = importlib.import_module(f"palmette.machines.{module}")
        except ModuleNotFoundError as error:
            if extra is None or (error.name or "").startswith("palmette"):
                raise
            raise UnknownImage(
                f"{module!r} machines need the {error.name!r} library; pip install 'palmette[{extra}]' brings it"
            ) from error
        return cast("Callable[[str, str], Machine]", found.machine)(rest, owner)

    return make


_MODULES: dict[str, tuple[str, str | None]] = {
    "local+bwrap": ("local.bwrap", None),
    "docker": ("docker", "docker"),
    "ssh": ("ssh", "ssh"),
    "e2b": ("e2b", "e2b"),
}
"""Backends in modules of their own, and the extra that brings what each needs."""
_makers: dict[str, Callable[[str, str], Machine]] = {
    "local": _local,
    **{name: _module(module, extra) for name, (module, extra) in _MODULES.items()},
}
_BUILT_IN = frozenset(_makers)
