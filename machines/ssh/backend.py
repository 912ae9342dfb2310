"""Machines on another host, by ssh: ``ssh://user@host`` runs commands there as that user.

Nothing stands between the commands and the rest of that user's account; what palmette sees to is that a machine leaves
nothing behind. It lives in a directory of its own on the host (0700, below ``/tmp`` or ``?directory=``), where a runner
starts its commands, knows all that they start, and kills that and removes the directory when it is told to, when the
connection ends, and when it has not heard of its controller for the lease (``?lease=``, 60 seconds).

    >>> machine = machine_for("ssh://build@farm?jump=gate", owner="run-1")           # doctest: +SKIP
    >>> await machine.start(); (await machine.exec("hostname")).text                 # doctest: +SKIP

Image strings are described in :mod:`palmette.machines.ssh.address`, whose keys are trusted in
:mod:`palmette.machines.ssh.login`. Machines with the same login share connections
(:mod:`palmette.machines.ssh.pool`), which need no thread per machine (:mod:`palmette.machines.ssh.channel`) and notice
within 4 seconds that the other side is dead (:mod:`palmette.machines.ssh.pulse`).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from typing import ClassVar, Literal

from palmette.machines.backend import Backend, Channel, Place
from palmette.machines.errors import MachineError, MachineLost, UnknownImage
from palmette.machines.evidence import Evidence
from palmette.machines.hosted import HostedMachine
from palmette.machines.identity import MachineId
from palmette.machines.reaper import ReapReport
from palmette.machines.ssh import errands as errands
from palmette.machines.ssh.address import Address, SshImage, parse_image, resolve
from palmette.machines.ssh.channel import SshChannel
from palmette.machines.ssh.connection import SessionsExhausted
from palmette.machines.ssh.pool import Seat, pool
from palmette.machines.ssh.threads import in_thread

_LOOK_UP = 10.0
"""Seconds for the configuration to be read: home directories may be on the network."""
_EXAMINE = 2.0
"""Seconds to look for a directory on a host that has just answered."""
_PART = 2.0
"""Seconds for a runner to be gone once its channel is closed; killing takes it milliseconds."""


class SshBackend(Backend):
    """A directory and a runner on a host that we log in at.

    Args:
        image: where.
        id: the machine's name; a :class:`~palmette.machines.identity.MachineId`, so that the reaper can judge it.
    """

    name: ClassVar[str] = "ssh"
    isolation: ClassVar[Literal["namespaces", "container", "host", "vm"]] = "host"

    def __init__(self, image: SshImage, id: str) -> None:
        self._image = image
        self._id = id
        self._directory = ""
        self._address: Address | None = None
        self._seat: Seat | None = None
        self._runner: SshChannel | None = None
        """The program on our own seat."""
        self._seat_taken = False
        """Whether one is being started there."""
        self._extras: dict[asyncio.Task[None], SshChannel] = {}
        """Other programs, each on a seat for its lifetime."""
        self._opened = False
        self._stopped = False

    async def start(self) -> Place:
        """Log in, or join those who are.

        Raises:
            ImageUnusable: the host is not who it should be, does not let us in, or lacks what machines need.
            MachineLost: it cannot be reached.
        """
        self._address = await _resolve(self._image)
        self._seat = await pool().seat(self._address)
        try:
            parent = await errands.check_host(pool(), self._address, self._seat, self._image.directory)
        except BaseException:
            await self._seat.release()
            self._seat = None
            raise
        self._directory = errands.directory_of(self._id, parent)
        work = f"{self._directory}/work"
        return Place(
            workdir=work,
            root=self._directory,
            temporary=True,
            lease=self._image.lease,
            lease_file=f"{self._directory}/lease",
            environment={"HOME": work, "TMPDIR": f"{self._directory}/tmp"},
        )

    async def open_channel(self, argv: Sequence[str]) -> Channel:
        """Run ``argv`` in the machine's environment: the first on our own seat, what is opened beside it on others."""
        seat, address = self._started()
        self._opened = True
        runner = self._runner
        if runner is not None and runner.given_up and not runner.has_ended:
            with suppress(TimeoutError):  # it was killed just now
                async with asyncio.timeout(_PART):
                    await runner.ended()
        if not self._seat_taken and (runner is None or runner.has_ended):
            self._seat_taken = True
            try:
                self._runner = await self._open(argv, seat)
            finally:
                self._seat_taken = False
            return self._runner
        extra = await pool().seat(address)
        try:
            channel = await self._open(argv, extra)
        except BaseException:
            await extra.release()
            raise
        task = asyncio.create_task(_hold(extra, channel), name=f"a program of {self._id}")
        self._extras[task] = channel
        task.add_done_callback(self._extras.pop)
        return channel

    async def _open(self, argv: Sequence[str], seat: Seat) -> SshChannel:
        mark = f"palmette-{secrets.token_hex(8)}"
        command = errands.wrapped(argv, self._directory, mark)
        while True:
            try:
                return await seat.connection.session(command, mark=f"{mark}\n".encode())
            except SessionsExhausted as error:  # fewer than MaxSessions' default
                await seat.move(error)

    async def examine(self) -> Evidence | None:
        """Whether the server answers, and the machine's directory is there."""
        if self._stopped:
            return Evidence(cause="stopped")
        seat, address = self._started()
        evidence = await seat.connection.examine()
        if evidence is not None:
            return evidence
        try:
            there = await errands.exists(pool(), address, seat, f"{self._directory}/work", seconds=_EXAMINE)
        except MachineLost as error:
            return error.evidence or Evidence(cause="unknown", detail=str(error))
        if not seat.connection.alive:  # by another one, then
            return await seat.connection.examine()
        if there:
            return None
        if self._runner is not None and self._runner.exit_status == 0:
            lease = f"it had not heard of its controller for {self._image.lease:g} s"
            return Evidence(cause="expired", detail=f"the runner on {address} ended and tidied up; {lease}")
        return Evidence(cause="machine_removed", detail=f"the directory {self._directory} on {address} is gone")

    async def kill_all(self) -> None:
        """Kill whatever carries the machine's tag, by another program than the runner."""
        seat, address = self._started()
        ended = await errands.kill(pool(), address, seat, self._id)
        if trouble := errands.complaint(ended):
            raise MachineLost(f"machine {self._id} on {address}: {trouble}")

    async def stop(self) -> None:
        """See that nothing is left on the host; by another connection if ours is dead."""
        self._stopped = True
        seat, self._seat = self._seat, None
        if seat is None or self._address is None:
            return
        try:
            if self._opened and not await self._has_tidied_up(seat, self._address):
                ended = await errands.end(pool(), self._address, seat, self._id, self._directory)
                if trouble := errands.complaint(ended):
                    raise MachineError(trouble)
        except MachineError as error:
            raise MachineError(
                f"machine {self._id} may still be in {self._directory} on {self._address}: {error}. Its runner ends it "
                f"when it has heard nothing of us for {self._image.lease:g} s; otherwise palmette.machines.ssh.reap() "
                "does, once the host can be reached"
            ) from error
        finally:
            for task in list(self._extras):
                task.cancel()
            if self._extras:
                await asyncio.wait(list(self._extras))
            await seat.release(stuck=self._runner is not None and not self._runner.has_ended)

    async def _has_tidied_up(self, seat: Seat, address: Address) -> bool:
        """Wait for the runner to go; whether it did so in good order, with its directory."""
        channels = [*self._extras.values(), *([] if self._runner is None else [self._runner])]
        for channel in channels:
            await channel.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_PART):
                for channel in channels:
                    await channel.ended()
        if self._runner is None or self._runner.exit_status != 0:
            return False
        if not seat.connection.alive:
            return True  # its word has to do
        return not await errands.exists(pool(), address, seat, self._directory, seconds=errands.SECONDS)

    def _started(self) -> tuple[Seat, Address]:
        if self._seat is None or self._address is None:
            raise MachineLost(f"machine {self._id} was stopped", Evidence(cause="stopped"))
        return self._seat, self._address


async def _resolve(image: SshImage) -> Address:
    try:
        return await in_thread(partial(resolve, image), seconds=_LOOK_UP)
    except TimeoutError:
        raise MachineLost(f"the ssh configuration {image.config} was not read within {_LOOK_UP:g} s") from None


async def _hold(seat: Seat, channel: SshChannel) -> None:
    try:
        await channel.ended()
    finally:
        await seat.release(stuck=not channel.has_ended)


def machine(rest: str, owner: str) -> HostedMachine:
    """The machine of the image ``ssh://REST``, not started.

    Raises:
        UnknownImage: REST cannot be understood, or paramiko is not installed.
    """
    image = parse_image(rest)
    if find_spec("paramiko") is None:
        raise UnknownImage("ssh machines need the 'paramiko' library; pip install 'palmette[ssh]' brings it")
    id = str(MachineId.new(owner))
    return HostedMachine(SshBackend(image, id), id, f"ssh://{rest}")


async def reap(image: str, *, owner: str | None = None, unheard: float = 3600.0) -> ReapReport:
    """End machines on a host that no living controller has: their processes, their directories.

    Whether a controller lives can be told of those on this host. Machines of another controller's host are ended when
    their directory has heard nothing for ``unheard`` seconds, which a runner that lives does not let happen.

    Args:
        image: an image string, ``ssh://…``.
        owner: only machines of this run.

    Raises:
        UnknownImage, ImageUnusable, MachineLost: as a machine of that image would.
    """
    if not image.startswith("ssh://"):
        raise UnknownImage(f"the machines of an ssh host can be reaped, got the image {image!r}")
    parsed = parse_image(image.removeprefix("ssh://"))
    address = await _resolve(parsed)
    return await errands.reap(pool(), address, parsed, owner=owner, unheard=unheard)
