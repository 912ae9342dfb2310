"""Calls of the docker SDK from an event loop: in threads, with deadlines that hold, their failures sorted.

The SDK blocks, and a daemon that is stopped (SIGSTOP, a disk that hangs) accepts connections and says nothing. So each
call has a thread and a client of its own: no call waits for another's, none shares a connection with another thread,
nothing is left open between calls, and a thread that a frozen daemon holds ends with its socket's timeout, without
anybody waiting for it: neither the caller (who has a deadline of his own) nor the interpreter's end (the threads are
daemons; those of an executor are joined at exit). A client costs some 5 ms, and a machine makes about five calls.

:func:`sorted_errors` is the one place where the SDK's exceptions become ours.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import socket
import ssl
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, closing, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from palmette.machines.errors import ImageUnusable, MachineError, MachineLost, SnapshotNotPossible, UnknownImage
from palmette.machines.evidence import Cause, Evidence

if TYPE_CHECKING:
    from docker import APIClient
    from docker.tls import TLSConfig

T = TypeVar("T")

CONNECT = 4.0
"""Seconds for the daemon to say who it is: below the 5 in which a waiter must learn that it is frozen."""
_AT_ONCE = 8
"""Starts, forks and snapshots that may be under way at once: they are bound by the daemon's processors."""
_LINE = 600.0
"""Seconds that one of those may stand in line."""
_VARIABLES = ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")
_lines: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

# pyright: reportUnknownMemberType=false


class Daemon:
    """Where the daemon is: ``DOCKER_HOST`` and its companions, as they are now (contexts are not looked at)."""

    def __init__(self) -> None:
        if importlib.util.find_spec("docker") is None:
            raise UnknownImage("docker machines need the docker SDK; pip install 'palmette[docker]' brings it")
        self._environment = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
        self.url = self._environment.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
        if self.url.startswith("ssh://"):
            raise MachineError(
                f"DOCKER_HOST is {self.url!r}, over which streams cannot be opened; forward the socket with "
                "`ssh -L /tmp/docker.sock:/var/run/docker.sock HOST` and set DOCKER_HOST=unix:///tmp/docker.sock"
            )

    @cached_property
    def tls(self) -> TLSConfig | None:
        """The certificates that the environment names. Imports the SDK: for a thread, the first time."""
        from docker.utils import kwargs_from_env

        return kwargs_from_env(environment=self._environment).get("tls") or None

    @contextmanager
    def client(self, timeout: float) -> Generator[APIClient]:
        """A connection, for use in one thread; ``timeout`` for each of its reads. Blocks."""
        import docker

        tls = self.tls
        self._knock()
        # Its annotations ask for whole seconds; requests takes fractions.
        first: Any = min(CONNECT, timeout)
        client = docker.APIClient(self.url, version="auto", timeout=first, tls=tls or False)
        with closing(client):
            rest: Any = timeout
            client.timeout = rest
            yield client

    @cached_property
    def address(self) -> str:
        """The same in one form: ``http+unix:///path``, ``http://host:port`` or ``https://host:port``."""
        from docker.utils import parse_host

        return str(parse_host(self.url, is_win32=False, tls=self.tls is not None))

    def _knock(self) -> None:
        """Be told plainly that nobody is there; the SDK wraps it twice, and leaves the socket open."""
        scheme, _, path = self.address.partition("://")
        if scheme == "http+unix":
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(CONNECT)
                connection.connect(path)

    async def call(self, work: Callable[[APIClient], T], doing: str, *, timeout: float, to_its_end: bool = True) -> T:
        """What ``work`` returns, in a thread.

        Args:
            work: blocks.
            doing: for messages ("start container NAME").
            timeout: seconds for all of it.
            to_its_end: a cancellation is delivered when the work has ended or its deadline passed, so that whoever
                cleans up afterwards does so after it, and not at the same time.

        Raises:
            MachineLost: the daemon is gone or frozen, the container is gone.
            MachineError: another try would fail alike.
        """

        def run() -> T:
            with sorted_errors(doing, self.url), self.client(timeout) as client:
                return work(client)

        return await _ended(_in_thread(run), timeout, to_its_end, f"{doing} (daemon {self.url})")


@asynccontextmanager
async def in_line(doing: str) -> AsyncGenerator[None]:
    """One of the few starts, forks and snapshots at once; the others wait here, where waiting costs nothing.

    Raises:
        MachineLost: the line did not move for ten minutes.
    """
    line = _lines.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(_AT_ONCE))
    try:
        async with asyncio.timeout(_LINE):
            await line.acquire()
    except TimeoutError as error:
        seen = Evidence(cause="quota", detail=f"{_AT_ONCE} at once, and none of them ended")
        raise MachineLost(f"{doing} stood in line for {_LINE:g} s", seen) from error
    try:
        yield
    finally:
        line.release()


async def _ended(future: asyncio.Future[T], timeout: float, to_its_end: bool, doing: str) -> T:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        left = deadline - loop.time()
        if left <= 0:
            future.cancel()
            if cancelled is not None:
                raise cancelled
            raise MachineLost(doing, Evidence(cause="daemon_frozen", detail=f"it did not answer for {timeout:g} s"))
        try:
            await asyncio.wait([future], timeout=left)
        except asyncio.CancelledError as error:
            if not to_its_end:
                future.cancel()
                raise
            cancelled = error
    if cancelled is not None:
        future.exception()
        raise cancelled
    return future.result()


def _in_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """``work`` in a thread of its own."""
    done: Future[T] = Future()
    done.set_running_or_notify_cancel()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is awaited
            done.set_exception(error)

    future = asyncio.wrap_future(done)
    threading.Thread(target=run, name="palmette-docker", daemon=True).start()
    return future


@contextmanager
def sorted_errors(doing: str, url: str) -> Generator[None]:
    """Turn what the SDK raises, and what lies below it, into a ``MachineError`` of the right kind."""
    from docker.errors import DockerException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (DockerException, HTTPError, OSError) as error:  # requests' own are OSErrors
        raise _sorted(doing, url, error) from error


def _sorted(doing: str, url: str, error: Exception) -> MachineError:
    from docker.errors import APIError

    if isinstance(error, APIError):
        return refusal(doing, error.status_code or 500, str(error.explanation or error))
    causes = list(_causes(error))
    if any(isinstance(cause, TimeoutError) for cause in causes):
        seen = Evidence(cause="daemon_frozen", detail=f"the daemon at {url} takes connections and says nothing")
        return MachineLost(doing, seen)
    for cause in causes:
        if isinstance(cause, PermissionError):
            return MachineError(
                f"{doing}: this user may not talk to the Docker daemon at {url}; "
                "add it to the group docker and log in again, or set DOCKER_HOST to a daemon of its own"
            )
        if isinstance(cause, ssl.SSLError):
            return MachineError(
                f"{doing}: no TLS with {url}: {cause}; see to DOCKER_TLS_VERIFY and DOCKER_CERT_PATH, "
                "and unset REQUESTS_CA_BUNDLE, which goes before them"
            )
    seen = Evidence(cause="daemon_gone", detail=f"nobody answers at {url}: {causes[-1]}")
    return MachineLost(f"{doing}; is dockerd running, and does DOCKER_HOST name it?", seen)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """``error`` and what it stands for: chained, or (requests, urllib3) among its arguments."""
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [*one.args, one.__cause__, one.__context__, getattr(one, "reason", None)]


class Refusal(NamedTuple):
    """How one of the daemon's texts is to be read."""

    pattern: re.Pattern[str]
    cause: Cause
    agents_doing: bool = False


# The daemon's status codes do not tell these apart (a missing user is a 500, a missing program a 400); its texts have
# been the same from Docker 17 to 28.
_LOST = (
    Refusal(re.compile(r"No such container", re.IGNORECASE), "machine_removed"),
    Refusal(re.compile(r"not running|in a stopped|No such exec|marked for removal|is paused"), "machine_killed"),
    Refusal(re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE), "disk_full"),
    Refusal(re.compile(r"resource temporarily unavailable"), "too_many_processes", agents_doing=True),
    Refusal(re.compile(r"cannot allocate memory", re.IGNORECASE), "out_of_memory"),
)
_NO_PYTHON = re.compile(r"python3.*(executable file not found|no such file|permission denied)", re.IGNORECASE)
_NO_IMAGE = re.compile(r"No such image: (\S+)")
_NO_USER_OR_NETWORK = re.compile(r"unable to find (user|group)|network \S+ not found|Range of CPUs|[Mm]inimum memory")


def refusal(doing: str, status: int, text: str) -> MachineError:
    """What the daemon's answer ``text`` with the HTTP ``status`` amounts to."""
    text = text.strip()
    missing = _NO_IMAGE.search(text)
    if missing is not None:
        return ImageUnusable(
            f"{doing}: the daemon has no image {missing[1]}; run `docker pull {missing[1]}` "
            "(if it is a snapshot of ours it was deleted)"
        )
    if _NO_PYTHON.search(text):
        return ImageUnusable(f"{doing}: the image has no python3 on its PATH, and a machine needs one; {text!r}")
    for lost in _LOST:
        if lost.pattern.search(text):
            return MachineLost(doing, Evidence(cause=lost.cause, detail=text, agents_doing=lost.agents_doing))
    if "max depth exceeded" in text:
        return SnapshotNotPossible(f"{doing}: the image has as many layers as Docker can stack; start from a fresh one")
    if status < 500 or _NO_USER_OR_NETWORK.search(text):
        return MachineError(f"{doing}: the daemon refuses: {text}; another try would fail alike")
    return MachineLost(doing, Evidence(cause="unknown", detail=f"the daemon failed with {status}: {text}"))
