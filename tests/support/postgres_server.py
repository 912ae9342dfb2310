"""A real PostgreSQL server for the tests: of this machine's own package, private, and gone with the session.

It runs as an unprivileged user (PostgreSQL refuses root), in a directory of its own, listens on a unix socket there and
nowhere else, asks for a password, and has all settings of durability as they are in earnest. On Debian, as
root, a missing package is installed; where that cannot be, the tests that need a server are skipped and say why.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from support.debian import NotInstalled, install

USER = "palmette"
PASSWORD = "geheim-5f1c"
_DEADLINE = 60.0


class PostgresServer:
    """One server with a data directory below ``home``."""

    def __init__(self, home: Path, binaries: Path, data: Path | None = None) -> None:
        """``data``: a stopped server's data directory to copy, which is quicker than making one."""
        self.home = home
        self.data = home / "data"
        self._binaries = binaries
        self._process: subprocess.Popen[bytes] | None = None
        self._names = itertools.count()
        self._user = _unprivileged()
        home.chmod(0o700)
        if data is None:
            self._make()
        else:
            shutil.copytree(data, self.data)
            _give(self.data, self._user)
        _give(home, self._user)

    def _make(self) -> None:
        secret = self.home / "secret"
        secret.write_text(PASSWORD + "\n")
        _give(self.home, self._user)
        subprocess.run(
            [
                *self._as_user(), self._binaries / "initdb", "--pgdata", self.data, "--username", USER,
                "--pwfile", secret, "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync",
                "--wal-segsize", "1",
            ],
            check=True, capture_output=True, timeout=_DEADLINE, cwd=self.home,
        )  # fmt: skip
        secret.unlink()

    def _as_user(self) -> list[str]:
        """Words before a command: another user where this one is root, and an end when this process is killed."""
        if self._user is None:
            return ["setpriv", "--pdeathsig", "QUIT"] if shutil.which("setpriv") else []
        ids = ["--reuid", str(self._user.pw_uid), "--regid", str(self._user.pw_gid)]
        return ["setpriv", *ids, "--clear-groups", "--pdeathsig", "QUIT"]

    def start(self, **settings: str) -> None:
        """Start it and wait until it takes connections."""
        fixed = {"listen_addresses": "", "unix_socket_directories": str(self.home), "max_connections": "40"}
        words = [f"--{name}={value}" for name, value in {**fixed, **settings}.items()]
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._as_user(), self._binaries / "postgres", "-D", self.data, *words],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.home,
            )  # fmt: skip
        state, deadline = self.data / "postmaster.pid", time.monotonic() + _DEADLINE
        while not (state.exists() and _is_ready(state.read_text().splitlines(), self._process.pid)):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"PostgreSQL did not start:\n{(self.home / 'log').read_text()[-2000:]}")
            time.sleep(0.01)

    def stop(self) -> None:
        """An end without ceremony: what it would write down now is thrown away in a moment."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)  # "immediate shutdown"
            self._process.wait(_DEADLINE)
            self._process = None

    def kill(self) -> None:
        """``kill -9`` of the server and all of its processes, as when the power fails."""
        if self._process is not None:
            family = psutil.Process(self._process.pid)
            family.suspend()  # it would start others in their place
            processes = [*family.children(recursive=True), family]
            for process in processes:
                process.kill()
            self._process.wait(_DEADLINE)
            self._process = None
            deadline = time.monotonic() + _DEADLINE
            while not all(_has_ended(process) for process in processes):
                assert time.monotonic() < deadline, "a process of the server outlived kill -9"
                time.sleep(0.005)

    def adopt(self, folder: Path) -> None:
        """Give it an empty folder, for a tablespace."""
        _give(folder, self._user)

    def url(self, database: str = "postgres") -> str:
        """As a person would write it, password and all."""
        return f"postgresql://{USER}:{PASSWORD}@/{database}?host={self.home}"

    def new_database(self, options: str = "") -> str:
        """The URL of an empty database."""
        name = f"d{next(self._names)}"
        self.execute(f"CREATE DATABASE {name} {options}")
        return self.url(name)

    def new_schema(self) -> str:
        """The URL of an empty schema: as good as a database, and a tenth of its time."""
        name = f"s{next(self._names)}"
        self.execute(f"CREATE SCHEMA {name}")
        return f"{self.url()}&options=-csearch_path%3D{name}"

    def execute(self, statement: str, url: str | None = None) -> list[tuple[object, ...]]:
        """Outside of any transaction, past palmette."""
        with psycopg.connect(url or self.url(), autocommit=True, connect_timeout=10) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="session")
def postgres_template() -> Iterator[tuple[Path, Path]]:
    """Where the programs are, and the data directory of a server that never ran."""
    try:
        binaries = _binaries()
    except NotInstalled as error:
        pytest.skip(str(error))
    with _home() as home:
        yield binaries, PostgresServer(Path(home), binaries).data


@pytest.fixture(scope="session")
def postgres_server(postgres_template: tuple[Path, Path]) -> Iterator[PostgresServer]:
    """One running server for the whole session. Ask for it from a fixture of module scope or wider, or as an argument:
    it must be there before a test's own processes are counted."""
    with _home() as home:
        server = PostgresServer(Path(home), *postgres_template)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def mortal_postgres(postgres_template: tuple[Path, Path]) -> Iterator[PostgresServer]:
    """A running server that a test may kill and start again."""
    with _home() as home:
        server = PostgresServer(Path(home), *postgres_template)
        server.start()
        try:
            yield server
        finally:
            server.kill()


def _home() -> tempfile.TemporaryDirectory[str]:
    # Not below pytest's own directory: another user cannot pass through that, and a socket's path must be short. What a
    # killed process had flushed is in memory as safely as on a disk, and the disk may be busy with others.
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2**28
    return tempfile.TemporaryDirectory(prefix="palmette-pg-", dir=memory if roomy else "/tmp")


def _has_ended(process: psutil.Process) -> bool:
    try:  # what nobody has waited for yet holds nothing any more
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _is_ready(lines: list[str], pid: int) -> bool:
    # https://www.postgresql.org/docs/current/storage-file-layout.html: a killed server leaves the file as it was.
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _unprivileged() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return known.get("postgres") or known["nobody"]


def _give(path: Path, user: pwd.struct_passwd | None) -> None:
    if user is not None:
        for entry in (path, *path.rglob("*")):
            os.chown(entry, user.pw_uid, user.pw_gid)


def _binaries() -> Path:
    install("postgresql", lambda: _installed() is not None)
    found = _installed()
    assert found is not None
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        raise NotInstalled("PostgreSQL refuses to run as root, and there is no setpriv to become another user")
    return found


def _installed() -> Path | None:
    """The directory of ``initdb`` and ``postgres``; of several versions the newest."""
    onpath = shutil.which("initdb")
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    places = [Path(onpath).resolve().parent] if onpath else []
    return next((place for place in (*reversed(packaged), *places) if (place / "postgres").exists()), None)
