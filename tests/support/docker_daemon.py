"""A real Docker daemon for the tests: private, with an image made offline, and gone with the session.

Nothing of it is shared with a daemon that runs on this host already: it has a socket, a state, a control group and a
containerd of its own below one directory, and no network but ``none`` and ``host`` (so no bridge, no rule of the
firewall, no forwarding). On Debian, as root, a missing package is installed; where that or the daemon itself cannot be,
the tests that need one are skipped and say why.

Its directory is named like a machine, so that a later session finds out whose it was, and takes away what a killed
session has left.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.docker_image import ENVIRONMENT, write_image

from palmette.machines.identity import MachineId

if TYPE_CHECKING:
    from docker import APIClient

# pyright: reportUnknownMemberType=false

IMAGE = "palmette-test:python"
PACKAGES = ("docker.io", "busybox-static")
_OWNER = "pd"  # short: the path of a unix socket has 107 bytes
_DEADLINE = 60.0
_CGROUPS = Path("/sys/fs/cgroup")


class NoDocker(Exception):
    """Why there can be no daemon here."""


class DockerDaemon:
    """One daemon in a directory of its own."""

    def __init__(self, *, disk: str | None = None) -> None:
        """``disk``: bound its disk to so much, as in ``150m``."""
        self.home = _parent() / str(MachineId.new(_OWNER))
        self.home.mkdir(0o700)
        if disk is not None:
            root = self.home / "root"
            root.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={disk}", "tmpfs", root], check=True, timeout=_DEADLINE)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What ``DOCKER_HOST`` is to be."""
        return f"unix://{self.home}/docker.sock"

    def start(self, *options: str) -> None:
        """Start it and wait until it answers; its images are those that it had before.

        Raises:
            NoDocker: it ended, or said nothing for a minute.
        """
        # One that was killed leaves these, and its successor believes them.
        for stale in ("docker.pid", "exec/containerd/containerd.pid"):
            (self.home / stale).unlink(missing_ok=True)
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    "setpriv", "--pdeathsig", "TERM",
                    "dockerd", "--host", self.url, "--data-root", self.home / "root", "--exec-root", self.home / "exec",
                    "--pidfile", self.home / "docker.pid", "--bridge=none", "--iptables=false", "--ip6tables=false",
                    "--ip-forward=false", "--shutdown-timeout=1", "--exec-opt", "native.cgroupdriver=cgroupfs",
                    "--cgroup-parent", f"/{self.home.name}", *options,
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + _DEADLINE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise NoDocker(f"dockerd does not run here:\n{(self.home / 'log').read_text()[-1000:]}")
            time.sleep(0.01)

    def load(self, archive: Path) -> None:
        """Import the root file system of :data:`IMAGE`."""
        repository, _, tag = IMAGE.partition(":")
        with contextlib.closing(self.client()) as client:
            client.import_image_from_file(str(archive), repository=repository, tag=tag, changes=[f"ENV {ENVIRONMENT}"])

    def client(self) -> APIClient:
        """The SDK's own, for looking past palmette. To be closed."""
        import docker

        return docker.APIClient(self.url, version="auto", timeout=30)

    def kill(self) -> None:
        """``kill -9`` of the daemon alone: containerd and the containers live on."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_DEADLINE)
            self._process = None

    def freeze(self) -> None:
        """It takes connections and says nothing, until :meth:`thaw`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it and its containers, at once: in order it would take a second. Its images stay."""
        self.kill()
        _clear(self.home)

    def remove(self) -> None:
        """Stop it, and take away all that it and its containers are made of."""
        self.stop()
        _bury(self.home)

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as connection:  # the SDK leaves its own open when nobody is there
                connection.connect(self.url.removeprefix("unix://"))
        except OSError:
            return False
        with contextlib.closing(self.client()) as client:
            return client.ping()


@contextlib.contextmanager
def made_image() -> Generator[Path]:
    """The archive that :data:`IMAGE` is imported from.

    Raises:
        NoDocker: there is no daemon to import it into, and none can be installed.
    """
    _provide()
    _sweep()
    archive = _parent() / f"{MachineId.new(_OWNER)}.tar"
    try:
        write_image(archive)
        yield archive
    finally:
        archive.unlink(missing_ok=True)


@contextlib.contextmanager
def running_daemon(image: Path, *, disk: str | None = None) -> Generator[DockerDaemon]:
    """A daemon that runs and has :data:`IMAGE`; nothing of it is left afterwards.

    Raises:
        NoDocker: it does not run here.
    """
    daemon = DockerDaemon(disk=disk)
    try:
        daemon.start()
        daemon.load(image)
        yield daemon
    finally:
        daemon.remove()


@pytest.fixture(scope="session")
def docker_image() -> Iterator[Path]:
    """The archive that daemons are given; here is where a host without Docker is noticed."""
    with _skipping(), made_image() as image:
        yield image


@pytest.fixture(scope="session")
def docker_daemon(docker_image: Path) -> Iterator[DockerDaemon]:
    """One running daemon for the whole session (of each parallel worker). Ask for it from a fixture of module scope or
    wider: it must be there before a test's own processes are counted."""
    with _skipping(), running_daemon(docker_image) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def mortal_docker_home(docker_image: Path) -> Iterator[DockerDaemon]:
    """A daemon that is not running, and has the image: its images outlive it."""
    with _skipping(), running_daemon(docker_image) as daemon:
        daemon.stop()
        yield daemon


@pytest.fixture
def mortal_docker(mortal_docker_home: DockerDaemon) -> Iterator[DockerDaemon]:
    """A running daemon that a test may kill or freeze."""
    mortal_docker_home.start()
    yield mortal_docker_home
    mortal_docker_home.stop()


@contextlib.contextmanager
def _skipping() -> Generator[None]:
    try:
        yield
    except NoDocker as error:
        pytest.skip(str(error))


def _parent() -> Path:
    """Memory rather than a disk that may be busy with others, where there is enough of it."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2**30
    return memory if roomy else Path("/tmp")


def _provide() -> None:
    """Have the programs.

    Raises:
        NoDocker: they are not here and cannot be installed.
    """
    if os.geteuid() != 0:
        raise NoDocker("a Docker daemon of the tests' own can only be started by root")
    programs = ("dockerd", "containerd", "runc", "busybox", "setpriv")
    if all(map(shutil.which, programs)):
        return
    if shutil.which("apt-get") is None:
        missing = ", ".join(program for program in programs if shutil.which(program) is None)
        raise NoDocker(f"there is no Docker daemon here (missing: {missing}); install your system's packages for it")
    with open("/tmp/palmette-apt.lock", "w") as lock:  # parallel workers: the second one finds it done
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not all(map(shutil.which, programs)):
            _install()


def _install() -> None:
    get = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *PACKAGES]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done: subprocess.CompletedProcess[str] | None = None
    for command in (get, ["apt-get", "update", "-qq"], get):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
        if command is get and done.returncode == 0:
            return
    assert done is not None
    raise NoDocker(f"apt-get could not install {' '.join(PACKAGES)}: {done.stderr.strip()[-300:]}")


def _sweep() -> None:
    """Take away what sessions have left that were killed."""
    for place in (Path("/dev/shm"), Path("/tmp")):
        for entry in place.glob(f"{_OWNER}.*"):
            owner = MachineId.parse(entry.name.removesuffix(".tar"))
            if owner is None or owner.controller() != "dead":
                continue
            if entry.is_dir():
                _bury(entry)
            else:
                entry.unlink(missing_ok=True)


def _clear(home: Path) -> None:
    """Kill the containers and what runs below ``home``, and unmount it."""
    _kill(lambda process: home.name in (process / "cgroup").read_text())
    # Shims have their sockets elsewhere and leave them when they are killed.
    sockets = [address.read_text().removeprefix("unix://") for address in home.glob("exec/containerd/**/address")]
    _kill(lambda process: bytes(home) in (process / "cmdline").read_bytes())
    for path in sockets:
        Path(path).unlink(missing_ok=True)
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in reversed(mounts):
        if mount.startswith(f"{home}/"):
            subprocess.run(["umount", "-l", mount], check=False, capture_output=True, timeout=_DEADLINE)


def _bury(home: Path) -> None:
    """Remove ``home``, and what there is of it elsewhere, whatever state it is in."""
    _clear(home)
    for group in sorted(_CGROUPS.glob(f"**/{home.name}/**/"), reverse=True):
        with contextlib.suppress(FileNotFoundError):
            group.rmdir()
    shutil.rmtree(home)


def _kill(chosen: Callable[[Path], bool]) -> None:
    """``kill -9`` until nothing is left that is ``chosen`` by its directory in /proc."""
    deadline = time.monotonic() + _DEADLINE
    while True:
        left = 0
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                state = (process / "stat").read_text().rpartition(")")[2].split()[0]
                if state not in "ZX" and int(process.name) != os.getpid() and chosen(process):
                    os.kill(int(process.name), signal.SIGKILL)
                    left += 1
        if not left:
            return
        assert time.monotonic() < deadline, f"{left} processes of the Docker daemon outlived kill -9"
        time.sleep(0.01)
