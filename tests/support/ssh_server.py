"""A real sshd for the tests: of this machine's own package, on loopback, with its own keys, and gone with the session.

It takes one client key and no password, shows nothing of the user's own configuration to a session (its home is an
empty directory, its PATH the system's), and logs to a file that a failing start is explained with. On Debian, as root,
a missing package is installed without starting the system's own server; where there can be no sshd, the tests that need
one are skipped and say why.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

_DEADLINE = 20.0
_POLICY = Path("/usr/sbin/policy-rc.d")


class NoSshd(Exception):
    """Why there can be no server here."""


class SshServer:
    """One sshd, with its files below ``home``. Servers share a client key if they are given the same ``key``."""

    def __init__(self, home: Path, program: Path, key: Path | None = None, *, max_sessions: int = 10) -> None:
        self.home = home
        self.user = pwd.getpwuid(os.geteuid()).pw_name
        self.host_key = generate_key(home / "host_key")
        self.key = key or generate_key(home / "client_key")
        self.known_hosts = home / "known_hosts"
        self.log = home / "log"
        self.port = _free_port()
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        (home / "empty").mkdir(mode=0o700)
        (home / "authorized_keys").write_text(self.key.with_suffix(".pub").read_text())
        self.know()
        python = Path(sys.executable).resolve().parent
        search = ["/usr/local/bin", "/usr/bin", "/bin", *([] if Path("/usr/bin/python3").exists() else [str(python)])]
        self._settings = {
            "ListenAddress": "127.0.0.1",
            "Port": str(self.port),
            "HostKey": str(self.host_key),
            "AuthorizedKeysFile": str(home / "authorized_keys"),
            "PidFile": "none",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "UsePAM": "no",
            "StrictModes": "no",  # pytest's directories may stand below one that others write to
            "PermitRootLogin": "prohibit-password",
            "MaxSessions": str(max_sessions),
            "MaxStartups": "100",
            "PrintMotd": "no",
            "SetEnv": f"HOME={home / 'empty'} PATH={':'.join(search)}",
            "Subsystem": "sftp internal-sftp",
        }

    @property
    def pid(self) -> int:
        """Of the process that takes connections."""
        assert self._process is not None
        return self._process.pid

    @property
    def address(self) -> str:
        """``user@host:port``."""
        return f"{self.user}@127.0.0.1:{self.port}"

    def image(self, *more: str) -> str:
        """An image string with this server's key and known hosts; ``more`` options as ``name=value``."""
        options = [f"identity={self.key}", f"known_hosts={self.known_hosts}", f"config={os.devnull}", *more]
        return f"ssh://{self.address}?{'&'.join(options)}"

    def know(self, *others: SshServer, key: Path | None = None) -> None:
        """Write known_hosts: this server's key (or another in its place), and those of ``others``."""
        lines = [
            f"[127.0.0.1]:{self.port},[localhost]:{self.port} {(key or self.host_key).with_suffix('.pub').read_text()}"
        ]
        lines += [f"[127.0.0.1]:{one.port} {one.host_key.with_suffix('.pub').read_text()}" for one in others]
        self.known_hosts.write_text("".join(lines))

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        configuration = self.home / "sshd_config"
        configuration.write_text("".join(f"{name} {value}\n" for name, value in self._settings.items()))
        words = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*words, self._program, "-D", "-e", "-f", configuration],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
            )  # fmt: skip
        deadline = time.monotonic() + _DEADLINE
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"sshd did not start:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.01)

    def answers(self) -> bool:
        """Whether it takes connections and says that it speaks SSH."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def family(self) -> list[psutil.Process]:
        """What the server has started: its process per connection, and below that the sessions' programs."""
        assert self._process is not None
        return psutil.Process(self._process.pid).children(recursive=True)

    def sessions(self) -> list[psutil.Process]:
        """Its processes per connection, those of privilege separation included."""
        return [process for process in self.family() if _name(process) == "sshd"]

    def kill_sessions(self) -> None:
        """``kill -9`` of the server's processes for its connections; their programs live on."""
        for process in self.sessions():
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def kill_master(self) -> None:
        """``kill -9`` of the process that takes connections; those that are open live on."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(_DEADLINE)
        self._process = None

    @contextmanager
    def frozen(self) -> Generator[None]:
        """SIGSTOP to the server and its processes per connection; its programs go on."""
        assert self._process is not None
        frozen = [psutil.Process(self._process.pid), *self.sessions()]
        for process in frozen:
            process.suspend()
        try:
            yield
        finally:
            for process in frozen:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    def kill(self) -> None:
        """The server, its processes per connection and the programs they run."""
        if self._process is None:
            return
        try:
            family = self.family()
        except psutil.NoSuchProcess:
            family = []
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.kill_master()


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


@pytest.fixture(scope="session")
def sshd_program() -> Path:
    """Where sshd is."""
    try:
        return _program()
    except NoSshd as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def ssh_server(sshd_program: Path) -> Iterator[SshServer]:
    """One running server for the whole session. Ask for it from a fixture of module scope or wider, or as an argument:
    it must be there before a test's own processes are counted."""
    with running_server(sshd_program) as server:
        yield server


@pytest.fixture(scope="session")
def ssh_jump_server(sshd_program: Path, ssh_server: SshServer) -> Iterator[SshServer]:
    """A second one, with the same client key, to jump from; both are in the first one's known hosts."""
    with running_server(sshd_program, ssh_server.key) as server:
        ssh_server.know(server)
        yield server


@pytest.fixture
def mortal_sshd(sshd_program: Path) -> Iterator[SshServer]:
    """A running server that a test may freeze and kill."""
    with running_server(sshd_program) as server:
        yield server


@contextmanager
def running_server(
    program: Path | None = None, key: Path | None = None, *, max_sessions: int = 10
) -> Generator[SshServer]:
    """A server in a directory of its own; both are gone afterwards.

    Raises:
        NoSshd: there is none, and none can be installed.
    """
    program = program or _program()
    with tempfile.TemporaryDirectory(prefix="palmette-sshd-", dir="/tmp") as home:
        server = SshServer(Path(home), program, key, max_sessions=max_sessions)
        server.start()
        try:
            yield server
        finally:
            server.kill()


def generate_key(path: Path, passphrase: str = "") -> Path:
    """A key pair in ``path`` and ``path.pub``."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "palmette-test", "-f", path],
        check=True, capture_output=True, timeout=_DEADLINE,
    )  # fmt: skip
    return path


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _program() -> Path:
    found = _installed()
    if found is None:
        _install()
        found = _installed()
    if found is None or shutil.which("ssh-keygen") is None:
        raise NoSshd("there is no sshd (or no ssh-keygen) here: neither on PATH nor in /usr/sbin")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where its unprivileged half is locked up
    return found


def _installed() -> Path | None:
    # sshd starts itself anew for each connection and so wants to be called by an absolute path.
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    return Path(found).absolute() if found else None


def _install() -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NoSshd("there is no sshd here; install your system's package `openssh-server`")
    # Parallel workers of pytest come here at once.
    with open("/run/palmette-tests-install.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _installed() is None:
            with _no_daemons():
                _apt()


@contextmanager
def _no_daemons() -> Generator[None]:
    """Debian's own way to keep a package from starting its server: a policy that says no."""
    ours = not _POLICY.exists()
    if ours:
        _POLICY.write_text("#!/bin/sh\nexit 101\n")
        _POLICY.chmod(0o755)
    try:
        yield
    finally:
        if ours:
            _POLICY.unlink()


def _apt() -> None:
    options = ["-qq", "-y", "-o", "DPkg::Lock::Timeout=120", "--no-install-recommends"]
    get = ["apt-get", "install", *options, "openssh-server"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done: subprocess.CompletedProcess[str] | None = None
    for command in (get, ["apt-get", "update", "-qq"], get):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
        if command is get and done.returncode == 0:
            return
    assert done is not None
    raise NoSshd(f"apt-get could not install openssh-server: {done.stderr.strip()[-300:]}")
