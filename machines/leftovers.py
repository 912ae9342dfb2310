"""What dead controllers have left behind, on every backend, and how to be rid of it.

Machines end with their controller where their backend can see to it (a lease, the end of a stream). What is left after
a ``kill -9`` (a directory, a container in its last minute, a sandbox within its lease) is labelled with the controller
that owned it, and removed here: when a run starts, and by ``palmette machines reap``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from palmette.machines.errors import MachineError, UnknownImage
from palmette.machines.images import backend_of
from palmette.machines.reaper import ReapReport
from palmette.machines.reaper import reap as reap_local
from palmette.machines.snapshots import split_image

LOCAL: Final = ("local", "local+bwrap")
"""Backends whose machines are directories and processes of this host."""
ELSEWHERE: Final = ("docker", "ssh", "e2b")
"""Backends of ours whose machines are somewhere else; one of somebody else's sees to its remains itself."""
SECONDS: Final = 60.0
"""That a run waits for what other runs have left."""


class Reaped(msgspec.Struct, frozen=True, kw_only=True):
    """What one pass over one backend found."""

    backend: str
    removed: tuple[str, ...] = ()
    """Machines, by id or name, and snapshots that belonged to them."""
    processes: int = 0
    """Processes that were killed."""
    alive: int = 0
    """Machines left alone as their controller lives."""
    elsewhere: tuple[str, ...] = ()
    """Machines of other hosts, left alone."""
    failed: tuple[str, ...] = ()
    """What could not be removed, and why. Empty when all went well."""


async def reap_all(images: Sequence[str] = (), *, owner: str | None = None) -> tuple[Reaped, ...]:
    """Remove what dead controllers left on this host, and on the backends that ``images`` name.

    A backend that cannot be asked (no daemon, no key) is one entry in its ``failed``: the others are done all the same.

    Args:
        images: image strings; of ``ssh://…`` each is a host of its own.
        owner: only what belongs to this run.

    Raises:
        UnknownImage: there is no such backend.
    """
    others = dict.fromkeys(image for image in images if backend_of(image) not in LOCAL)
    found = [_local(await asyncio.to_thread(reap_local, owner=owner))]
    for image in others:
        found.append(await reap_backend(image, owner=owner))
    return tuple(found)


async def reap_before_run(image: str) -> Reaped | None:
    """Remove what dead controllers left where the machines of ``image`` run; ``None`` where that is this host alone.

    Snapshots stay: somebody asked for them, and may want to start from them. Never raises for a backend that cannot be
    asked, and takes :data:`SECONDS` at most: a run whose machines cannot be had ends for that, and says it better.

    Raises:
        UnknownImage: the image string of one of them is misspelt.
    """
    if split_image(image)[0].partition(":")[0] not in ELSEWHERE:
        return None
    try:
        async with asyncio.timeout(SECONDS):
            return await reap_backend(image, snapshots=False)
    except TimeoutError:
        return Reaped(
            backend=image, failed=(f"it took more than {SECONDS:g} s; `palmette machines reap` has patience",)
        )


async def reap_backend(image: str, *, owner: str | None = None, snapshots: bool = True) -> Reaped:
    """Remove what dead controllers left where the machines of ``image`` run. A failure is in the report.

    Raises:
        UnknownImage: there is no such backend.
    """
    try:
        return await _reap(image, owner, snapshots)
    except UnknownImage:
        raise
    except MachineError as error:
        return Reaped(backend=image, failed=(str(error),))


async def _reap(image: str, owner: str | None, snapshots: bool) -> Reaped:
    match backend_of(image):
        case name if name in LOCAL:
            return _local(await asyncio.to_thread(reap_local, owner=owner))
        case "docker":
            from palmette.machines.docker.reaper import reap as reap_docker

            docker = await reap_docker(owner=owner, snapshots=snapshots)
            return Reaped(
                backend="docker",
                removed=(*docker.containers, *docker.images),
                alive=docker.alive,
                elsewhere=docker.elsewhere,
                failed=docker.failed,
            )
        case "e2b":
            from palmette.machines.e2b import reap as reap_e2b

            e2b = await reap_e2b(owner=owner)
            return Reaped(
                backend="e2b", removed=e2b.machines, alive=e2b.alive, elsewhere=e2b.elsewhere, failed=e2b.failed
            )
        case "ssh":
            from palmette.machines.ssh import reap as reap_ssh

            ssh = await reap_ssh(image, owner=owner)
            return Reaped(
                backend=image,
                removed=ssh.directories,
                processes=ssh.processes,
                alive=ssh.alive,
                elsewhere=ssh.elsewhere,
                failed=ssh.failed,
            )
        case other:
            return Reaped(backend=other, failed=("a backend of its own: it has to see to its remains itself",))


def _local(report: ReapReport) -> Reaped:
    return Reaped(
        backend="local",
        removed=report.directories,
        processes=report.processes,
        alive=report.alive,
        elsewhere=report.elsewhere,
        failed=report.failed,
    )
