"""What runs inside a machine: it starts commands, serves files, and ends with its controller.

It hears frames on descriptor 0 and speaks them on descriptor 1 (:mod:`palmette.machines.runner.wire`). Each command is
a :class:`~palmette.machines.runner.jobs.Job` below a keeper of its own. Small requests for files are answered at once,
longer ones are jobs too (:mod:`palmette.machines.runner.chores`).

At the end of its input, and after a lease without a word from the controller, it kills everything, removes what it was
told to remove, and ends.
"""

import json
import os
import signal
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from palmette.machines.errors import MachineError
from palmette.machines.files import give_access, list_directory, read_file, remove_tree, write_file
from palmette.machines.paths import check, open_inside, open_parent
from palmette.machines.runner import chores, wire
from palmette.machines.runner.gauges import Gauges
from palmette.machines.runner.jobs import Job
from palmette.machines.runner.keeper import EXEC_TAG, HELD_BACK, IGNORED, MACHINE_TAG, RUNNER_TAG, Launch
from palmette.machines.runner.keepers import Keeper
from palmette.machines.runner.libc import PR_SET_CHILD_SUBREAPER, PR_SET_DUMPABLE, prctl
from palmette.machines.runner.loop import Loop
from palmette.machines.runner.processes import KILL_DEADLINE, descendants, kill_descendants, kill_tagged, reap

SHELL = "/bin/sh"
_SPARE = 2
"""Keepers that may wait for a job."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Runner:
    """All jobs of one machine."""

    def __init__(self, loop: Loop, configuration: "dict[str, object]") -> None:
        self._loop = loop
        self._machine = str(configuration["machine"])
        self._workdir = os.path.normpath(str(configuration["workdir"]))
        self._root = os.path.normpath(str(configuration["root"]))
        self._temporary = bool(configuration["temporary"]) and self._root != "/"
        self._lease = float(cast("float", configuration["lease"]))
        self._lease_file = cast("str | None", configuration["lease_file"])
        self._environment = {"PATH": _PATH, "LANG": "C.UTF-8", **os.environ}
        self._environment.pop(RUNNER_TAG, None)
        self._environment.update(cast("dict[str, str]", configuration["environment"]))
        self._gauges = Gauges()
        self._jobs: dict[int, Job] = {}
        self._keepers: list[Keeper] = []
        """Those that wait for a job."""
        self._heard = loop.now
        self._renewed = 0.0
        self._give_access()
        os.makedirs(self._workdir, 0o755 if self._root == "/" else 0o700, exist_ok=True)
        self._root_fd = os.open(self._root, os.O_PATH | os.O_DIRECTORY)
        os.chdir(self._workdir)
        self._subreaper = prctl(PR_SET_CHILD_SUBREAPER, 1)
        # So that a command of the same user cannot write to our descriptors or read our memory; root still can.
        prctl(PR_SET_DUMPABLE, 0)
        self._renew()
        # An earlier runner of this machine: frozen, or killed with its keepers before these could kill.
        spared = self._ancestors()
        left = kill_tagged(RUNNER_TAG, self._machine, spared)
        left += kill_tagged(EXEC_TAG, f"{self._machine}.", spared)
        self._send_json(
            wire.HELLO,
            0,
            {
                "python": sys.version.split()[0],
                "platform": " ".join((os.uname().sysname, os.uname().release, os.uname().machine)),
                "subreaper": self._subreaper,
                "shell": os.access(SHELL, os.X_OK),
                "left": left,
                "pid": os.getpid(),
            },
        )

    def run(self) -> None:
        """Until the controller goes."""
        loop = self._loop
        asked = False
        while not (asked or loop.ended):
            until = min([self._heard + self._lease, *(job.due for job in self._jobs.values())])
            loop.turn(until)
            if loop.incoming:
                self._heard = loop.now
                self._renew()
                frames, loop.incoming = loop.incoming, []
                for kind, number, payload in frames:
                    asked = asked or kind == wire.END_ALL
                    self._serve(kind, number, payload)
            elif loop.now >= self._heard + self._lease:
                loop.send(wire.EXPIRED, 0)
                break
            self._tend()
        self._end()

    def _end(self) -> None:
        for job in self._jobs.values():
            job.kill()
        until = time.monotonic() + KILL_DEADLINE + 2.0
        while self._jobs and time.monotonic() < until:
            self._loop.turn(min(until, *(job.due for job in self._jobs.values())))
            self._tend()
        self._loop.flush()
        kill_descendants()
        if self._temporary:
            remove_tree(self._root)
        if self._lease_file is not None:
            with suppress(OSError):  # its keeper has taken it
                os.unlink(self._lease_file)

    def _tend(self) -> None:
        if self._jobs:
            for job in list(self._jobs.values()):
                if job.due <= self._loop.now:
                    job.expire()
                if job.done:
                    del self._jobs[job.number]
                    self._dismiss(job)
        reap()

    def _serve(self, kind: int, number: int, payload: bytes) -> None:
        if kind == wire.START:
            self._start(number, *wire.unpack(payload))
            return
        if kind == wire.CALL:
            self._call(number, *wire.unpack(payload))
            return
        if kind == wire.PING:
            self._loop.send(wire.PONG, number)
            return
        job = self._jobs.get(number)
        if job is None:  # it has ended meanwhile
            return
        if kind == wire.STDIN:
            job.feed(payload)
        elif kind == wire.CLOSE_STDIN:
            job.close_input()
        elif kind == wire.KILL:
            job.kill()
        elif kind == wire.RESIZE:
            job.resize(json.loads(payload.decode("ascii")))
        elif kind == wire.CREDIT:
            job.give_credit(json.loads(payload.decode("ascii")))

    def _start(self, number: int, head: "dict[str, object]", data: bytes) -> None:
        job = Job(
            number,
            loop=self._loop,
            gauges=self._gauges,
            timeout=cast("float", head["timeout"]),
            keep=cast("int | None", head["keep"]),
            kill_strays=lambda: self._kill_strays(number),
        )
        what = Launch(
            cast("list[str]", head["argv"]),
            {
                **self._environment,
                **cast("dict[str, str]", head["env"]),
                MACHINE_TAG: self._machine,
                EXEC_TAG: f"{self._machine}.{number}",
            },
            cast("dict[str, int]", head["limits"]),
        )
        what.acknowledge = bool(head["acknowledge"])
        stage = "cwd"
        try:
            work = cast("dict[str, object] | None", head["chore"])
            if work is not None:
                what.chore = chores.chore(self._chore(work))
            what.cwd = self._open_directory(cast("str", head["cwd"]))
            stage = "start"
            try:
                job.start(
                    what,
                    self._keepers,
                    data=data if head["input"] else None,
                    size=cast("list[int] | None", head["terminal"]),
                    stream=head["input"] == "stream",
                )
            finally:
                os.close(what.cwd)
        except (OSError, ValueError, MachineError) as error:
            failed = {**chores.describe_error(error), "failed": stage}
            self._send_json(wire.ENDED, number, {"failed": failed})
            return
        self._jobs[number] = job

    def _dismiss(self, job: Job) -> None:
        """Its keeper waits for the next job, if it may have one and is not one too many."""
        keeper = job.keeper
        assert keeper is not None, "it was started"
        if not self._subreaper or not job.frees_keeper or len(self._keepers) == _SPARE:
            keeper.close()
            return
        self._keepers.append(keeper)
        self._loop.watch(keeper.report, lambda: self._lose(keeper))

    def _lose(self, keeper: Keeper) -> None:
        """One that waited was killed."""
        self._keepers.remove(keeper)
        keeper.close()

    def _chore(self, work: "dict[str, object]") -> "Callable[[], None]":
        root = self._root_fd
        name = work["name"]
        if name == "empty":
            self._give_access()
            spared = frozenset((os.getpid(),))
            return lambda: chores.empty(self._workdir, self._machine, spared | {os.getpid(), os.getppid()})
        path = self._inside(cast("str", work["path"]))
        if name == "write":
            mode, size = cast("int", work["mode"]), cast("int", work["size"])
            return lambda: chores.write(root, path, mode, size)
        if name == "unpack":
            links, size = bool(work["links"]), cast("int", work["size"])
            return lambda: chores.unpack(root, path, size, links, self._workdir)
        most = cast("int", work["max_bytes"])
        if name == "pack":
            return lambda: chores.pack(root, path, most)
        return lambda: chores.read(root, path, most)

    def _call(self, number: int, head: "dict[str, object]", data: bytes) -> None:
        reply: dict[str, object] = {}
        answer = b""
        name = head["name"]
        try:
            if name == "processes":
                jobs = {str(job.number): len(descendants(job.pid)) for job in self._jobs.values()}
                reply["jobs"] = jobs
            else:
                path = self._inside(cast("str", head["path"]))
                if name == "put":
                    self._workdir_exists()
                    write_file(self._root_fd, path, (data,), cast("int", head["mode"]))
                elif name == "list":
                    reply["names"] = list_directory(self._root_fd, path)
                    if len(json.dumps(reply)) > wire.MAX_PAYLOAD // 2:
                        raise ValueError(f"{path!r} holds too many names to list; take get_archive, or a command")
                else:
                    answer = read_file(self._root_fd, path, cast("int", head["max_bytes"]))
        except (MachineError, OSError, ValueError) as error:
            reply["error"] = chores.describe_error(error)
        self._loop.send(wire.REPLY, number, wire.pack(reply, answer))

    def _inside(self, path: str) -> str:
        """``path`` as one that starts at the root; a relative one must not go up past the working directory."""
        check(path)
        if not path.startswith("/"):
            return os.path.join(os.path.relpath(self._workdir, self._root), path)
        # Where the file system is shared, commands know the place by its real name.
        if self._root != "/" and (path == self._root or path.startswith(self._root + "/")):
            return path[len(self._root) :] or "/"
        return path

    def _open_directory(self, path: str) -> int:
        self._workdir_exists()
        return open_inside(self._root_fd, self._inside(path), os.O_PATH | os.O_DIRECTORY)

    def _give_access(self) -> None:
        for path in [self._root, self._workdir] if self._temporary else [self._workdir]:
            give_access(path)

    def _workdir_exists(self) -> None:
        """A command may have removed the working directory: then it has emptied it."""
        try:
            if stat.S_ISDIR(os.stat(self._workdir, follow_symlinks=False).st_mode):
                return
        except FileNotFoundError:
            pass
        parent, name = open_parent(self._root_fd, os.path.relpath(self._workdir, self._root))
        try:
            if os.path.lexists(self._workdir):
                os.unlink(name, dir_fd=parent)
            os.mkdir(name, 0o755, dir_fd=parent)
        finally:
            os.close(parent)

    def _kill_strays(self, number: int) -> int:
        """Kill what has become our child: its keeper was killed. How many would not die."""
        spared = {job.pid for job in self._jobs.values() if job.number != number}
        return kill_descendants(frozenset(spared.union(keeper.pid for keeper in self._keepers)))[1]

    def _ancestors(self) -> "frozenset[int]":
        found = {os.getpid()}
        pid = os.getppid()
        while pid > 1 and pid not in found:
            found.add(pid)
            try:
                with open(f"/proc/{pid}/stat", "rb") as file:
                    text = file.read()
            except OSError:
                break
            pid = int(text[text.rindex(b")") + 2 :].split(None, 2)[1])
        return frozenset(found)

    def _renew(self) -> None:
        if self._lease_file is not None and self._loop.now >= self._renewed + min(1.0, self._lease / 10):
            self._renewed = self._loop.now
            os.close(os.open(self._lease_file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            os.utime(self._lease_file)

    def _send_json(self, kind: int, number: int, value: object) -> None:
        self._loop.send(kind, number, json.dumps(value).encode("ascii"))


def main() -> None:
    """Serve descriptors 0 and 1 until the controller goes."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    # What a library prints must not land among the frames; and commands are forks of us.
    given, taken = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    loop = Loop(given, taken)
    loop.owned.update((given, taken))
    until = time.monotonic() + 60.0
    while not loop.incoming:
        loop.turn(until)
        if loop.ended or time.monotonic() > until:
            sys.exit("the controller went before it said anything")
    kind, _, payload = loop.incoming.pop(0)
    if kind != wire.CONFIGURE:
        raise wire.ProtocolError(f"frame {kind} came first")
    Runner(loop, wire.parse_object(payload)).run()
