"""The host process: it runs the Thespian system that starts the node processes of one palmette system.

``python -m palmette.actors.host DIRECTORY`` reads orders, one JSON object a line, from its standard input, which is a
socket to the head. It ends, and takes the Thespian processes and the nodes with it, when that closes, when the head
dies, or when Thespian's admin or the keeper dies (the head then starts another host). Thespian lives here and not in
the head because it replaces the root logger of its process, and because its children must not inherit an event loop.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, Final, NoReturn, cast

import msgspec

from palmette.actors.orphans import adopt_orphans, descendants, wait_for_death

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

KEEPER_SECONDS: Final = 30.0
"""For Thespian's processes to come up."""
END_SECONDS: Final = 3.0
"""For killed processes to be gone. One in an uninterruptible wait is left to the operating system."""


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Seed:
    """What Thespian's system base wants of an ActorSystem that does not exist yet."""

    def __init__(self, capabilities: dict[str, object]) -> None:
        self.capabilities = capabilities


def main(directory: Path) -> NoReturn:
    """Serve orders until there is nobody to give them."""
    head = os.getppid()
    orders = _take_stdin()
    _set_environment(directory)
    _write_key(directory / "key")
    adopt_orphans()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _terminated)
    threading.Thread(target=_end_after, args=(head, directory), daemon=True).start()
    signal.signal(signal.SIGCHLD, _reap)

    from thespian.actors import ActorSystem

    from palmette.actors.keeper import WHO_IS_THERE, Keeper
    from palmette.actors.sealed import SealedBase

    try:
        seed = Seed({"Process Startup Method": "spawn", "Admin Port": free_port()})
        system = ActorSystem(systemBase=SealedBase(seed, logDefs=quiet()), capabilities=seed.capabilities)
        keeper = system.createActor(Keeper)
        answer = system.ask(keeper, WHO_IS_THERE, timedelta(seconds=KEEPER_SECONDS))
        if answer is None:
            raise RuntimeError(f"the keeper did not answer within {KEEPER_SECONDS:g} s")
        for pid in msgspec.json.decode(cast("bytes", answer), type=list[int]):
            threading.Thread(target=_end_after, args=(pid, None), daemon=True).start()
        for line in orders:
            system.tell(keeper, line.strip())
        end(directory)
    except BaseException:  # noqa: BLE001 - whatever it is, nothing that was started may be left
        traceback.print_exc()
        end(status=1)


def _take_stdin() -> BinaryIO:
    """The orders. Nobody whom we start shall hold the socket: its end must mean ours."""
    orders = os.fdopen(os.dup(0), "rb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return orders


def _set_environment(directory: Path) -> None:
    # sys.path is as it should be, and our children are given it; programs that nodes start want the user's own.
    own = os.environ.pop("PALMETTE_PYTHONPATH", None)
    os.environ.pop("PYTHONPATH", None)
    if own is not None:
        os.environ["PYTHONPATH"] = own
    os.environ["PALMETTE_HOST_DIR"] = str(directory)
    os.environ["PALMETTE_HOST_PID"] = str(os.getpid())
    os.environ["THESPIAN_BASE_IPADDR"] = "127.0.0.1"
    os.environ["THESPLOG_FILE_MAXSIZE"] = "0"  # it would write what it receives into a file


def _write_key(path: Path) -> None:
    # A name of its own first: nobody, of an earlier host for example, may read half a key.
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(secrets.token_bytes(32))
    new.replace(path)


def _terminated(*_: object) -> None:
    end()


def _end_after(pid: int, directory: Path | None) -> None:
    wait_for_death(pid)
    end(directory)


def _reap(*_: object) -> None:
    """Take note of ended processes that were left to us."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def end(directory: Path | None = None, *, status: int = 0) -> NoReturn:
    """Kill everything that descends from this process, and go. ``directory`` is removed; the head keeps its own.

    Thespian's own shutdown would wait ten seconds for a node that is busy. Where orphans cannot be adopted, its
    processes end themselves when they see this one gone.
    """
    if directory is not None:
        shutil.rmtree(directory, ignore_errors=True)
    until = time.monotonic() + END_SECONDS
    while time.monotonic() < until and (left := descendants()):
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        _reap()
        time.sleep(0.002)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def quiet() -> dict[str, object]:
    """A logging set-up for Thespian's logger process that says nothing: nodes report over their links."""
    return {
        "version": 1,
        "formatters": {},
        "handlers": {"none": {"class": "logging.NullHandler"}},
        "root": {"level": "ERROR", "handlers": ["none"]},
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
