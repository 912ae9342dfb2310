"""Image strings: ``local`` names a backend, as ``docker:python:3.12`` would name a backend and what it is to run.

>>> images()
['local']
>>> machine = machine_for("local", owner="run-1")
"""

from __future__ import annotations

from collections.abc import Callable

from palmette.machines.contract import Machine
from palmette.machines.errors import UnknownImage


def machine_for(image: str, *, owner: str) -> Machine:
    """A machine, not yet started, of the backend that ``image`` names.

    Args:
        image: ``<backend>`` or ``<backend>:<what it runs>``.
        owner: id of the run that the machine will belong to.

    Raises:
        UnknownImage: no backend has that name, or it does not take what follows the colon.
    """
    backend, colon, rest = image.partition(":")
    make = _BACKENDS.get(backend)
    if make is None:
        exist = ", ".join(repr(name) for name in sorted(_BACKENDS))
        raise UnknownImage(f"there is no machine backend for the image {image!r}; those that exist are: {exist}")
    if colon and not rest:
        raise UnknownImage(f"the image {image!r} ends in a colon; write {backend!r}")
    return make(rest, owner)


def images() -> list[str]:
    """The names of the backends, sorted."""
    return sorted(_BACKENDS)


def _local(rest: str, owner: str) -> Machine:
    from palmette.machines.local import LocalMachine

    if rest:
        raise UnknownImage(f"the image 'local' runs this host's own programs and takes nothing more, got {rest!r}")
    return LocalMachine(owner)


_BACKENDS: dict[str, Callable[[str, str], Machine]] = {"local": _local}
