"""A machine on this host with walls: bubblewrap's namespaces, over an overlay of the system.

``local+bwrap`` runs commands in their own pid, ipc, uts, cgroup and (unless ``?network=host``) network namespaces,
without capabilities and without this program's environment. They see the host's ``/usr`` through an overlay: they may
install and delete there what they like, and the host's stays as it is. Nothing else of the host's files can be seen.
Everything that was changed lies in one directory, which makes ``snapshot`` a copy of it::

    <machine>/root       the machine's root: /work, /tmp, /etc, …
    <machine>/upper      what was changed in /usr
    <machine>/ovl        the overlay's own

Two kinds of process keep it up. The *holder* has the mount namespace with the overlay in it, so that no mount is ever
visible outside, and ends at the end of its input, that is with the controller. Each channel is a ``bwrap`` in that
namespace, with a pid namespace of its own that dies as a whole with its first process, and that with the controller.
So a ``kill -9`` of the controller leaves a directory and nothing else, and the reaper takes that.

Needs ``bwrap`` and ``unshare``/``nsenter`` (util-linux), as root or where users may make namespaces.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal, Self
from urllib.parse import parse_qsl

import msgspec

from palmette.machines.backend import Backend, Channel, Place
from palmette.machines.errors import MachineError, MachineLost, UnknownImage
from palmette.machines.evidence import Evidence
from palmette.machines.files import remove_tree
from palmette.machines.hosted import HostedMachine
from palmette.machines.identity import MachineId
from palmette.machines.pipes import END_SECONDS, PipeChannel
from palmette.machines.process import uninterrupted
from palmette.machines.scratch import parent_directory, prepare_parent
from palmette.machines.tree import MACHINE_TAG

Network = Literal["none", "host"]
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,200}")
"""Of a snapshot: a file's name, and nothing that leads elsewhere."""

START_SECONDS: Final = 20.0
COPY_SECONDS: Final = 300.0
WORKDIR: Final = "/work"
DIRECTORIES: Final = ("etc", "tmp", "work", "root", "var/tmp", "usr", "proc", "dev", "run")
LINKS: Final = ("bin", "sbin", "lib", "lib32", "lib64")
"""On a system with a merged /usr, links into it."""
SHOWN: Final = (
    "/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/ssl",
    "/etc/ca-certificates", "/etc/nsswitch.conf", "/etc/mime.types", "/etc/services", "/etc/protocols",
)  # fmt: skip
"""What of /etc can be read inside: nothing that says who uses this host, or what they are called."""
PASSWD: Final = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
GROUP: Final = "root:x:0:\nnogroup:x:65534:\n"


class _Walled(PipeChannel):
    """A channel to the first process of a pid namespace; its end is that of all in it."""

    _first = -1

    @classmethod
    async def inside(cls, enter: Sequence[str], rest: Sequence[str]) -> Self:
        """Start ``bwrap``. Raises OSError where it fails."""
        told, tell = os.pipe()
        try:
            # Without our environment: a process's first one can be read in /proc/1/environ inside.
            channel = cls.start([*enter, "--info-fd", str(tell), *rest], env={"PATH": os.defpath}, pass_fds=(tell,))
            os.close(tell)
            tell = -1
            seen: list[dict[str, int]] = []
            try:
                # To its end, also where the caller gives up: without the number, nobody could wait for the namespace's.
                await uninterrupted(lambda: seen.append(_first_words(told)))
            except ValueError as error:
                complaint = channel.complaint
                await channel.end()
                raise OSError(f"bwrap made no namespace: {complaint or error}") from error
            except asyncio.CancelledError:
                channel._watch(seen)
                await channel.end()
                raise
            channel._watch(seen)
            return channel
        finally:
            for fd in (told, tell):
                if fd >= 0:
                    os.close(fd)

    def _watch(self, seen: Sequence[dict[str, int]]) -> None:
        with suppress(ProcessLookupError):  # it has ended already, and so have all others
            for info in seen:
                self._first = os.pidfd_open(info["child-pid"])

    async def end(self) -> None:
        try:
            await super().end()
            if self._first >= 0:
                # bwrap itself is gone; its child, by whose end the kernel has ended all others, may take a moment.
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._first, signal.SIGKILL)
                await uninterrupted(self._wait_first)
        finally:
            if self._first >= 0:
                os.close(self._first)
                self._first = -1

    def _wait_first(self) -> None:
        poller = select.poll()
        poller.register(self._first, select.POLLIN)
        if not poller.poll(END_SECONDS * 1000):
            raise MachineLost(f"a namespace survived SIGKILL for {END_SECONDS:g} s; the host needs a look")


class BwrapBackend(Backend):
    """See the module's text."""

    name = "local+bwrap"
    isolation = "namespaces"
    snapshot_grade = "filesystem"

    def __init__(self, id: str, *, network: Network = "none", source: Path | None = None) -> None:
        self._id = id
        self._network: Network = network
        self._source = source
        """A snapshot to start from."""
        self._directory = parent_directory(None) / id
        self._holder: PipeChannel | None = None
        self._channels: set[_Walled] = set()

    def __repr__(self) -> str:
        return f"<BwrapBackend {self._id}>"

    # --- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> Place:
        missing = [program for program in ("bwrap", "unshare", "nsenter") if shutil.which(program) is None]
        if missing:
            raise MachineError(
                f"local+bwrap needs {' and '.join(missing)} on PATH; install bubblewrap and util-linux "
                "(apt-get install bubblewrap util-linux)"
            )
        with _boundary("start"):
            # To its end, also where the caller gives up: what is still being made cannot be removed.
            await uninterrupted(self._lay_out)
            try:
                async with asyncio.timeout(START_SECONDS):
                    await self._hold()
            except BaseException:
                await self.stop()
                raise
        return Place(workdir=WORKDIR, environment={"PATH": _path()}, network=self._network == "host")

    async def stop(self) -> None:
        holder, self._holder = self._holder, None
        for channel in [*self._channels, *([] if holder is None else [holder])]:
            await channel.end()
        self._channels.clear()
        try:
            await asyncio.to_thread(remove_tree, str(self._directory))
        except OSError as error:
            raise MachineError(
                f"{self._directory} could not be removed ({error.strerror}); `palmette machines reap` tries again"
            ) from error

    def _lay_out(self) -> None:
        """Make the directories. Blocks."""
        prepare_parent(self._directory.parent)
        self._directory.mkdir(0o700)
        if self._source is not None:
            for part in ("root", "upper"):
                _copy(self._source / part, self._directory / part)
        root = self._directory / "root"
        for name in ("upper", "ovl", *(f"root/{each}" for each in DIRECTORIES)):
            (self._directory / name).mkdir(parents=True, exist_ok=True)
        for name in LINKS:
            if os.path.islink(f"/{name}") and not os.path.lexists(root / name):
                (root / name).symlink_to(f"usr/{name}")
        (root / "tmp").chmod(0o1777)
        for name, text in (("passwd", PASSWD), ("group", GROUP), ("hostname", "machine\n")):
            if not (root / "etc" / name).exists():
                (root / "etc" / name).write_text(text)

    async def _hold(self) -> None:
        directory = shlex.quote(str(self._directory))
        options = f"lowerdir=/usr,upperdir={directory}/upper,workdir={directory}/ovl"
        if os.geteuid() != 0:
            options += ",userxattr"  # what a user's overlay keeps its marks in
        # Where the kernel has no overlay for us, /usr is shown as it is, read-only: `bwrap` is told below.
        script = f"mount -t overlay overlay -o {options} {directory}/root/usr && echo overlay || echo plain; exec cat"
        own = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        argv = ["unshare", *own, "--mount", "--propagation", "private", "sh", "-c", script]
        self._holder = PipeChannel.start(argv, env={"PATH": os.environ.get("PATH", os.defpath), MACHINE_TAG: self._id})
        said = b""
        while b"\n" not in said:
            piece = await self._holder.read()
            if not piece:
                raise MachineError(
                    f"this host lets no namespace be made: {self._holder.complaint or 'unshare ended'}; "
                    "run as root, or allow unprivileged user namespaces"
                )
            said += piece
        self._has_overlay = said.startswith(b"overlay")

    # --- inside ------------------------------------------------------------------------------------------------------

    async def open_channel(self, argv: Sequence[str]) -> Channel:
        holder = self._holder
        if holder is None or holder.exit_code is not None:
            raise MachineLost(f"machine {self._id} is gone", await self.examine())
        enter = ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt"]
        if os.geteuid() != 0:
            enter += [f"--user=/proc/{holder.pid}/ns/user", "--preserve-credentials"]
        with _boundary("open a channel"):
            channel = await _Walled.inside([*enter, "--", "bwrap"], [*self._walls(), "--", *argv])
        ended = {each for each in self._channels if each.exit_code is not None}
        self._channels = self._channels - ended | {channel}
        for each in ended:
            await each.end()  # for its descriptors
        return channel

    def _walls(self) -> list[str]:
        root = str(self._directory / "root")
        usr = ["--bind", f"{root}/usr", "/usr"] if self._has_overlay else ["--ro-bind", "/usr", "/usr"]
        walls = [
            "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--hostname", "machine",
            "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv",
            "--bind", root, "/", *usr, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/run",
        ]  # fmt: skip
        if self._network == "none":
            walls.append("--unshare-net")
        else:
            walls += [
                "--ro-bind-try",
                "/etc/resolv.conf",
                "/etc/resolv.conf",
                "--ro-bind-try",
                "/etc/hosts",
                "/etc/hosts",
            ]
        for path in SHOWN:
            walls += ["--ro-bind-try", path, path]
        base = os.path.realpath(sys.base_prefix)
        if not base.startswith("/usr"):
            walls += ["--ro-bind", base, base]  # the interpreter that runs this program: the runner needs one
        return [*walls, "--chdir", WORKDIR, "--setenv", "PATH", _path(), "--setenv", "LANG", "C.UTF-8"]

    async def examine(self) -> Evidence | None:
        holder = self._holder
        if holder is None:
            return Evidence(cause="stopped")
        if not self._directory.is_dir():
            return Evidence(cause="machine_removed", detail=f"{self._directory} is gone")
        if holder.exit_code is not None:
            return Evidence(cause="machine_killed", detail=f"its holder ended with {holder.exit_code}")
        return None

    # --- snapshots ---------------------------------------------------------------------------------------------------

    async def snapshot(self, name: str) -> str:
        target = snapshots_directory() / name
        with _boundary("snapshot"):
            await uninterrupted(lambda: self._keep(target))
        network = "&network=host" if self._network == "host" else ""
        return f"local+bwrap:snapshot={name}{network}"

    async def fork(self, id: str) -> BwrapBackend:
        """See :meth:`Backend.fork`: a copy, and no snapshot on the way to it that a killed controller would leave."""
        twin = BwrapBackend(id, network=self._network, source=self._directory)
        await twin.start()
        return twin

    def _keep(self, target: Path) -> None:
        prepare_parent(target.parent)
        target.mkdir(0o700)
        try:
            for part in ("root", "upper"):
                _copy(self._directory / part, target / part)
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise


def machine(rest: str, owner: str) -> HostedMachine:
    """A machine of the image ``local+bwrap`` or ``local+bwrap:OPTIONS``.

    Options are written as in a URL's query: ``network=host`` shares the host's network (default ``none``),
    ``snapshot=NAME`` starts from what :meth:`BwrapBackend.snapshot` kept.

    Raises:
        UnknownImage: there is no such option.
    """
    network: Network = "none"
    source: str | None = None
    for name, value in (
        parse_qsl(rest, keep_blank_values=True, strict_parsing=bool(rest)) if "=" in rest else [(rest, "")]
    ):
        if name == "network" and value in ("none", "host"):
            network = value
        elif name == "snapshot" and NAME.fullmatch(value):
            source = value
        elif name or value:
            raise UnknownImage(f"local+bwrap takes network=none, network=host and snapshot=NAME, not {rest!r}")
    id = str(MachineId.new(owner))
    made = BwrapBackend(id, network=network, source=None if source is None else snapshots_directory() / source)
    return HostedMachine(made, id, f"local+bwrap:{rest}" if rest else "local+bwrap")


def snapshots_directory() -> Path:
    """Where snapshots are kept: outside of what a reaper looks at, for they outlive their run."""
    return parent_directory(None) / "snapshots"


async def delete_snapshot(image: str) -> None:
    """Remove the snapshot that an image string names; twice is fine."""
    name = dict(parse_qsl(image.removeprefix("local+bwrap:"))).get("snapshot", "")
    if NAME.fullmatch(name):
        await asyncio.to_thread(remove_tree, str(snapshots_directory() / name))


def _path() -> str:
    own = os.path.join(os.path.realpath(sys.base_prefix), "bin")
    return f"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin{'' if own.startswith('/usr') else f':{own}'}"


def _copy(source: Path, target: Path) -> None:
    """Everything in a directory, as it is. A mounted overlay is not looked into. Raises OSError."""
    done = subprocess.run(
        ["cp", "-a", "--one-file-system", "--reflink=auto", str(source), str(target)],
        check=False,
        capture_output=True,
        timeout=COPY_SECONDS,
    )
    if done.returncode:
        raise OSError(f"cp {source} {target}: {done.stderr.decode('utf-8', 'replace').strip()}")


def _first_words(fd: int) -> dict[str, int]:
    """What bwrap says of itself. Blocks. Raises ValueError."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    said = b""
    while poller.poll(START_SECONDS * 1000) and (piece := os.read(fd, 4096)):
        said += piece
    return msgspec.json.decode(said, type=dict[str, int])


@contextmanager
def _boundary(doing: str) -> Generator[None]:
    """What the host fails at is the machine's loss. Raises MachineLost."""
    try:
        yield
    except (OSError, subprocess.TimeoutExpired) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        seen = Evidence(cause="disk_full" if full else "unknown", detail=str(error))
        raise MachineLost(f"{doing}: the host failed", seen) from error
