"""A machine in a Docker container: ``docker:python:3.12``, or ``docker:IMAGE?memory=4g&cpus=2&network=bridge``.

::

    machine = machine_for("docker:python:3.12-slim?memory=512m", owner="run-1")
    await machine.start()
    result = await machine.exec("python3 -c 'print(6 * 7)'", timeout=10)
    await machine.stop()

The image must be on the daemon already (``docker pull``) and hold ``python3``; the daemon is the one that
``DOCKER_HOST`` names, as for the docker command. What a container may use, and how little that is by default, is in
:class:`~palmette.machines.docker.options.DockerOptions`.

**What it holds.** Memory, processor time and processes are bounded; no capability, no setuid, Docker's seccomp
filter, no network unless asked for; nothing of the host's environment or files is inside. There is no bound on disk:
Docker has one only for some file systems (``--storage-opt size``).

**What it leaves.** Nothing. The container's first process (:mod:`palmette.machines.docker.keeper`) ends it when
the controller has said nothing for the lease, and a container that ends is removed. For what that cannot
reach (a container that was created and never started, images of forks and snapshots) there are labels and
:func:`palmette.machines.docker.reaper.reap`.

**Snapshots** are images (``docker commit``): all files, but no process, no tmpfs and no volume. The container is frozen
while one is made. A fork is a container from such an image, which goes when the fork is stopped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import msgspec

from palmette.machines.backend import Backend, Place
from palmette.machines.contract import Machine, SnapshotGrade
from palmette.machines.docker import keeper as docker_keeper
from palmette.machines.docker.calls import Daemon, in_line
from palmette.machines.docker.channel import DockerChannel
from palmette.machines.docker.evidence import examine
from palmette.machines.docker.options import DockerOptions
from palmette.machines.docker.reaper import (
    FORKS,
    KIND_LABEL,
    LEASE_LABEL,
    MACHINE_LABEL,
    OWNER_LABEL,
    SNAPSHOTS,
    remove_container,
    remove_image,
)
from palmette.machines.errors import MachineError
from palmette.machines.evidence import Evidence
from palmette.machines.identity import MachineId

if TYPE_CHECKING:
    from docker import APIClient

# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

LEASE = 60.0
"""Seconds that a container outlives the last word of its controller."""
START = 60.0
"""Seconds for creating and starting a container, for restarting, for removing one."""
CHANNEL = 20.0
"""Seconds for the daemon to make an exec."""
COMMIT = 600.0
"""Seconds for an image of a container's files: the daemon copies all that changed."""
EXAMINE = 2.5
"""Seconds for the daemon to tell a container's state: with the pulse before it less than the 5 in which a waiter must
learn that it is frozen."""
_LEASE_FILE = "/dev/shm/palmette.lease"  # a tmpfs in every container: not in its images, and not full when its disk is
_ROOT = ("", "0", "root")


class DockerBackend(Backend):
    """One container.

    Args:
        options: what it is made of.
        id: the machine's.
        lease: seconds that it outlives the last word of its controller.
        daemon: that of ``DOCKER_HOST``, unless another is given.
    """

    name: ClassVar[str] = "docker"
    isolation: ClassVar[Literal["namespaces", "container", "host", "vm"]] = "container"
    snapshot_grade: SnapshotGrade | None = "filesystem"

    def __init__(self, options: DockerOptions, id: str, *, lease: float = LEASE, daemon: Daemon | None = None) -> None:
        machine = MachineId.parse(id)
        if machine is None:
            raise ValueError(f"id must be a MachineId, by which a reaper can tell whose it was, got {id!r}")
        if not (math.isfinite(lease) and lease >= 1.0):
            raise ValueError(f"lease must be a finite number of seconds >= 1, got {lease!r}")
        self.options = options
        self.id = id
        self.container = f"palmette-{id}"
        """Its name on the daemon."""
        self._owner = machine.owner
        self._lease = lease
        self._daemon = daemon or Daemon()
        self._created = False
        self._committing = False
        self._restarting = False
        self._image: str | None = None
        self._channels: set[DockerChannel] = set()

    def __repr__(self) -> str:
        return f"<DockerBackend {self.container} of {self.options.image}>"

    async def start(self) -> Place:
        """See :meth:`Backend.start`.

        Raises:
            ImageUnusable: the daemon does not have the image, or it has no ``python3``.
            MachineError: the daemon refuses the options.
            MachineLost: the daemon is gone, frozen, or fails.
        """
        async with in_line(f"start of container {self.container}"):
            try:
                user = await self._daemon.call(self._start, f"start container {self.container}", timeout=START)
            except BaseException as error:
                try:
                    await self.stop()
                except MachineError as left:
                    error.add_note(str(left))
                raise
        return Place(
            # Anybody may write to /tmp, and only root to /.
            workdir="/work" if user.partition(":")[0] in _ROOT else "/tmp/work",
            lease=self._lease,
            lease_file=_LEASE_FILE,
            environment=_processors(self.options.cpus),
            cpus=self.options.cpus,
            memory=self.options.memory,
            network=self.options.network != "none",
        )

    def _start(self, client: APIClient) -> str:
        """Create and start the container; the user that it runs as."""
        options = self.options
        user = options.user or str(client.inspect_image(options.image)["Config"].get("User") or "")
        self._created = True  # from here on there may be something to remove, and not before
        client.create_container(
            options.image,
            name=self.container,
            entrypoint=["python3", "-ISc", _keeper(), str(self._lease), _LEASE_FILE],
            command=[],
            user=options.user or None,
            working_dir="/",
            use_config_proxy=False,  # by default the proxies of ~/.docker/config.json go inside, passwords and all
            labels=self._labels("machine"),
            stop_signal="SIGKILL",  # the first process is deaf to any other, and the daemon would wait ten seconds
            host_config=client.create_host_config(
                auto_remove=True,
                network_mode=options.network,
                mem_limit=options.memory,
                memswap_limit=options.memory,
                nano_cpus=round(options.cpus * 1e9),
                pids_limit=options.pids,
                shm_size=options.shm_size,
                cap_drop=["ALL"],
                cap_add=list(options.cap_add),
                security_opt=["no-new-privileges"],
                log_config={"Type": "none"},  # pyright: ignore[reportArgumentType]
            ),
            healthcheck={"test": ["NONE"]},  # pyright: ignore[reportArgumentType] # the image's own service does not run
        )
        client.start(self.container)
        return user

    async def open_channel(self, argv: Sequence[str]) -> DockerChannel:
        """See :meth:`Backend.open_channel`."""
        doing = f"open a channel to container {self.container}"

        def create(client: APIClient) -> tuple[str, str]:
            made = client.exec_create(self.container, list(argv), stdin=True, workdir="/")
            return str(made["Id"]), client.api_version

        exec_id, version = await self._daemon.call(create, doing, timeout=CHANNEL, to_its_end=False)
        channel = await DockerChannel.open(self._daemon, version, exec_id, doing)
        self._channels = {one for one in self._channels if not one.closed} | {channel}
        return channel

    async def examine(self) -> Evidence | None:
        """See :meth:`Backend.examine`."""
        if self._restarting:
            return None
        frozen = self._committing
        ended = any(channel.ended and not channel.closed for channel in self._channels)
        try:
            return await self._daemon.call(
                lambda client: examine(client, self.container, ended=ended, frozen=frozen),
                f"examine container {self.container}",
                timeout=EXAMINE,
                to_its_end=False,
            )
        except MachineError as error:
            return getattr(error, "evidence", None) or Evidence(cause="unknown", detail=str(error))

    async def kill_all(self) -> None:
        """See :meth:`Backend.kill_all`: a restart of the container, which nothing inside survives but its files."""
        self._restarting = True
        try:
            await self._daemon.call(
                lambda client: client.restart(self.container, timeout=0),
                f"kill everything in container {self.container}",
                timeout=START,
                to_its_end=False,
            )
        finally:
            self._restarting = False

    async def stop(self) -> None:
        """See :meth:`Backend.stop`."""
        for channel in self._channels:
            await channel.close()
        if not self._created:
            return
        try:
            await self._daemon.call(self._remove, f"remove container {self.container}", timeout=START)
        except MachineError as error:
            raise MachineError(
                f"container {self.container} may still be there: {error}. It ends by itself {self._lease:g} s after "
                f"its controller's last word; or run `docker rm -f {self.container}` when the daemon answers"
            ) from error
        self._created = False

    def _remove(self, client: APIClient) -> None:
        remove_container(client, self.container)
        if self._image is not None:
            remove_image(client, self._image)

    async def snapshot(self, name: str) -> str:
        """See :meth:`Backend.snapshot`. The image stays until
        :func:`~palmette.machines.docker.reaper.delete_snapshot`, or until its run's controller is dead and a reaper
        comes by."""
        await self._commit(SNAPSHOTS, name, self.id)
        return f"docker:{self._as_image(f'{SNAPSHOTS}:{name}')}"

    async def fork(self, id: str) -> DockerBackend:
        """See :meth:`Backend.fork`."""
        image = f"{FORKS}:{id}"
        twin = DockerBackend(self._as_image(image), id, lease=self._lease, daemon=self._daemon)
        twin._image, twin._created = image, True
        try:
            await self._commit(FORKS, id, id)
            await twin.start()
        except BaseException as error:
            try:
                await twin.stop()
            except MachineError as left:
                error.add_note(str(left))
            raise
        return twin

    async def _commit(self, repository: str, tag: str, owner_id: str) -> None:
        doing = f"keep the files of container {self.container} as image {repository}:{tag}"
        labels = {**self._labels(repository.removeprefix("palmette-")), MACHINE_LABEL: owner_id}
        changes = [f"LABEL {' '.join(f'{name}={value}' for name, value in labels.items())}"]

        def commit(client: APIClient) -> None:
            client.commit(self.container, repository=repository, tag=tag, changes=changes)

        async with in_line(doing):
            self._committing = True
            try:
                await self._daemon.call(commit, doing, timeout=COMMIT)
            finally:
                self._committing = False

    def _as_image(self, image: str) -> DockerOptions:
        return msgspec.structs.replace(self.options, image=image)

    def _labels(self, kind: str) -> dict[str, str]:
        return {
            MACHINE_LABEL: self.id,
            OWNER_LABEL: self._owner,
            KIND_LABEL: kind,
            LEASE_LABEL: f"{self._lease:g}",
        }


def machine(rest: str, owner: str) -> Machine:
    """The machine of the image string ``docker:<rest>``, not yet started.

    Raises:
        UnknownImage: ``rest`` cannot be read.
    """
    from palmette.machines.hosted import HostedMachine

    id = str(MachineId.new(owner))
    return HostedMachine(DockerBackend(DockerOptions.parse(rest), id), id, f"docker:{rest}")


def _processors(cpus: float) -> dict[str, str]:
    """For programs that count the host's processors and start as many threads: nproc, OpenMP, Python 3.13."""
    count = str(max(1, math.floor(cpus)))
    return {"OMP_NUM_THREADS": count, "PYTHON_CPU_COUNT": count}


@cache
def _keeper() -> str:
    return Path(docker_keeper.__file__).read_text(encoding="utf-8")
