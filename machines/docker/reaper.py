"""Remove what docker machines of killed controllers left on a daemon, while others go on living.

A container ends and removes itself when its lease has run out, so there is little to do: containers within their last
minute, such as were created and never started, and the images of snapshots and forks. All of them are labelled with
the machine's id (:mod:`palmette.machines.identity`), which names the controlling process.

    >>> report = await reap()                          # doctest: +SKIP
    >>> report.containers, report.images               # doctest: +SKIP
    (('palmette-run-7.1234.99887.0a1b2c3d4e5f.9f8e7d6c',), ())

What a living process controls is not touched. What cannot be judged from here (another host that uses the same daemon)
is removed only when it cannot be in use: a container that does not run and is older than its own lease.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from palmette.machines.docker.calls import Daemon, sorted_errors
from palmette.machines.docker.options import DockerOptions
from palmette.machines.errors import MachineError
from palmette.machines.identity import Controller, MachineId

if TYPE_CHECKING:
    from docker import APIClient

# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

SNAPSHOTS = "palmette-snapshot"
FORKS = "palmette-fork"
"""Repositories of the images that are made of containers."""
MACHINE_LABEL = "palmette.machine"
OWNER_LABEL = "palmette.owner"
KIND_LABEL = "palmette.kind"
LEASE_LABEL = "palmette.lease"
STARTING = 120.0
"""Seconds after which a container that does not run is not one that is just being started, whatever its lease."""
_REMOVAL = 30.0
"""Seconds for one container to be gone."""
_SWEEP = 300.0


class DockerReapReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one pass found."""

    containers: tuple[str, ...] = ()
    """Names of those that were removed."""
    images: tuple[str, ...] = ()
    """Snapshots and images of forks that were removed."""
    alive: int = 0
    """Containers left alone as their controller lives."""
    elsewhere: tuple[str, ...] = ()
    """Names of containers of another host or pid namespace, left alone."""
    failed: tuple[str, ...] = ()
    """What could not be removed, and why. Empty when all went well."""


async def reap(*, owner: str | None = None, snapshots: bool = True) -> DockerReapReport:
    """Remove the containers and images of machines whose controller is dead.

    Args:
        owner: only machines of this run.
        snapshots: snapshots too. Without them, only what nobody can have asked to keep.

    Raises:
        MachineLost: the daemon is gone or frozen.
        MachineError: there is no SDK, or no permission to talk to the daemon.
    """
    daemon = Daemon()
    return await daemon.call(
        lambda client: _Reaper(client, daemon.url, owner).reap(snapshots),
        "reap docker machines",
        timeout=_SWEEP,
        to_its_end=False,
    )


async def delete_snapshot(image: str) -> None:
    """Remove a snapshot's image; none is fine. Machines that were started from it go on.

    Args:
        image: as :class:`~palmette.machines.contract.Snapshot` has it.

    Raises:
        ValueError: it is not the image string of a snapshot.
        MachineError: the daemon would not, or did not answer.
    """
    options = DockerOptions.parse(image.removeprefix("docker:"))
    if not options.image.startswith(f"{SNAPSHOTS}:"):
        raise ValueError(f"a snapshot's image is docker:{SNAPSHOTS}:NAME, got {image!r}; `docker rmi` removes others")
    await Daemon().call(
        lambda client: remove_image(client, options.image), f"delete snapshot {options.image}", timeout=_REMOVAL
    )


def remove_container(client: APIClient, name: str) -> None:
    """Kill and remove a container, with its anonymous volumes, and see that it is gone. None is fine. Blocks.

    Raises:
        MachineError: it is still there.
    """
    from docker.errors import APIError, NotFound

    deadline = time.monotonic() + _REMOVAL
    while True:
        try:
            client.remove_container(name, force=True, v=True)
            client.inspect_container(name)
        except NotFound:
            return
        except APIError as error:
            if error.status_code != 409:  # 409: somebody else, the daemon for one, is removing it just now
                raise
        if time.monotonic() > deadline:
            raise MachineError(f"container {name} is still there {_REMOVAL:g} s after its removal")
        time.sleep(0.02)


def remove_image(client: APIClient, name: str) -> None:
    """Remove an image, or the name of one that others are built on. None is fine. Blocks."""
    from docker.errors import ImageNotFound

    try:
        client.remove_image(name, force=True)
    except ImageNotFound:
        return


class _Container(msgspec.Struct, rename="pascal"):
    names: list[str]
    created: int
    state: str
    labels: dict[str, str]


class _Image(msgspec.Struct, rename="pascal"):
    labels: dict[str, str]
    repo_tags: list[str] | None = None


class _Reaper:
    def __init__(self, client: APIClient, url: str, owner: str | None) -> None:
        self._client = client
        self._url = url
        self._owner = owner
        self._known: dict[tuple[int, int, str], Controller] = {}
        self._failed: list[str] = []

    def reap(self, snapshots: bool) -> DockerReapReport:
        containers: list[str] = []
        images: list[str] = []
        elsewhere: list[str] = []
        alive = 0
        chosen = {"label": [MACHINE_LABEL]}
        for container in msgspec.convert(self._client.containers(all=True, filters=chosen), list[_Container]):
            name = container.names[0].lstrip("/")
            verdict = self._verdict(container.labels)
            if verdict is None:
                continue
            if verdict == "dead" or _abandoned(container):
                if self._removed(name, remove_container):
                    containers.append(name)
            elif verdict == "elsewhere":
                elsewhere.append(name)
            else:
                alive += 1
        # After the containers: an image that one is made of cannot go before it.
        for image in msgspec.convert(self._client.images(filters=chosen), list[_Image]):
            kept = image.labels.get(KIND_LABEL) == "snapshot" and not snapshots
            if not kept and self._verdict(image.labels) == "dead":
                images += [tag for tag in image.repo_tags or () if self._removed(tag, remove_image)]
        return DockerReapReport(
            containers=tuple(containers),
            images=tuple(images),
            alive=alive,
            elsewhere=tuple(elsewhere),
            failed=tuple(self._failed),
        )

    def _verdict(self, labels: dict[str, str]) -> Controller | None:
        """On what is labelled so; ``None`` when it is none of our business."""
        machine = MachineId.parse(labels.get(MACHINE_LABEL, ""))
        if machine is None or (self._owner is not None and machine.owner != self._owner):
            return None
        key = (machine.pid, machine.start, machine.place)
        if key not in self._known:
            self._known[key] = machine.controller()
        return self._known[key]

    def _removed(self, name: str, remove: Callable[[APIClient, str], None]) -> bool:
        try:
            with sorted_errors(f"remove {name}", self._url):
                remove(self._client, name)
        except MachineError as error:
            self._failed.append(str(error))
            return False
        return True


def _abandoned(container: _Container) -> bool:
    """Whether it does not run, and has not for so long that nobody can be starting it."""
    try:
        lease = float(container.labels.get(LEASE_LABEL, ""))
    except ValueError:
        return False
    stands = container.state in ("created", "exited", "dead")
    return stands and time.time() - container.created > lease + STARTING
