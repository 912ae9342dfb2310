"""Keep all that a job starts in one place: below a *keeper*, a process per job.

::

    runner
    ├── keeper of job 1     a child subreaper: orphans of job 1 become its children, not the runner's
    │   └── the command, with all that it starts
    ├── keeper of job 2
    │   └── the command, with all that it starts
    └── keeper              of a job that has ended: without children, until there is another

So that job 1 can be killed to its last process, whatever that did to its session, its group or its environment, while
job 2 runs on. The keeper tells the runner, in lines of JSON, how the command ended and when nothing is left of it; then
it may be given the next. SIGUSR1 tells it to kill; the kernel sends it too when the runner dies. A keeper that was told
to kill has no further job: the signal might come when its own is gone, and would be taken for another's.

A keeper is a fork of the runner that never returns. The command's first process is spawned, which takes a third of the
time of another fork, or is a fork of the keeper where it has to do something before it executes.
"""

import contextlib
import errno
import fcntl
import json
import os
import resource
import signal
import termios
from collections.abc import Callable, Generator

from palmette.machines.runner.libc import PR_SET_CHILD_SUBREAPER, PR_SET_DUMPABLE, PR_SET_PDEATHSIG, prctl
from palmette.machines.runner.processes import kill_descendants, kill_tagged, reap, send

EXEC_TAG = "PALMETTE_EXEC"
MACHINE_TAG = "PALMETTE_MACHINE"
RUNNER_TAG = "PALMETTE_RUNNER"
"""In the environment of runner and keepers, and of nothing else."""
HELD_BACK = {signal.SIGCHLD, signal.SIGUSR1}
"""Blocked in the runner and waited for in the keeper: so none is missed between a fork and a wait."""
IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGTSTP, signal.SIGUSR2)
"""By runner and keepers: ``kill -TERM -1`` of a command is no reason to end."""
_RESTORED = (*IGNORED, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTTIN, signal.SIGTTOU)
_LIMITS = {
    "memory": resource.RLIMIT_AS,
    "file_size": resource.RLIMIT_FSIZE,
    "processes": resource.RLIMIT_NPROC,
}
_FIRST_TO_GO = 500
"""The command's oom_score_adj: when memory runs out it dies before the runner does."""


class Launch:
    """What a keeper needs to know."""

    def __init__(self, argv: "list[str]", env: "dict[str, str]", limits: "dict[str, int]") -> None:
        self.argv = argv
        self.env = env
        self.limits = limits
        self.chore: Callable[[], None] | None = None
        """Run instead of ``argv``, in the same kind of process."""
        self.cwd = -1
        self.stdin = -1
        self.stdout = -1
        self.stderr = -1
        self.terminal = False
        self.acknowledge = False
        """Whether to report that the program was executed."""


def keep(what: Launch, orders: "Callable[[], Launch | None]", report: int, runner: int) -> None:
    """In a process of its own: run ``what`` to its burial, and what ``orders`` says next. Returns when that is nothing.

    ``orders`` blocks; it says ``None`` when the runner is gone or has no use for this keeper any more.
    """
    subreaper = prctl(PR_SET_CHILD_SUBREAPER, 1)
    told = prctl(PR_SET_PDEATHSIG, signal.SIGUSR1)
    os.umask(0o022)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    priority = OomPriority()
    following: Launch | None = what
    while following is not None and os.getppid() == runner:
        if not _keep_one(following, report, runner, priority, subreaper, 60.0 if told else 1.0) or not subreaper:
            return
        following = orders()


def _keep_one(
    what: Launch, report: int, runner: int, priority: "OomPriority", subreaper: bool, patience: float
) -> bool:
    """One job from its start to its burial; whether nothing is left of it."""
    try:
        with priority.first_to_go():
            pid = _start(what, report)
    finally:
        for fd in {what.cwd, what.stdin, what.stdout, what.stderr}:
            os.close(fd)
    if pid is None:
        return True
    ended = False
    while True:
        statuses, more = reap()
        more = more or not subreaper
        if pid in statuses:
            ended = True
            _report(report, {"status": statuses[pid], "gone": not more})
        elif ended and not more:
            _report(report, {"gone": True})
        if ended and not more:
            return True
        got = signal.sigtimedwait(HELD_BACK, patience)
        if os.getppid() != runner or (got is not None and got.si_signo == signal.SIGUSR1):
            break
    if subreaper:
        statuses, left = kill_descendants()
    else:
        send(-pid, signal.SIGKILL)
        left = kill_tagged(EXEC_TAG, what.env.get(EXEC_TAG, ""), frozenset((os.getpid(), runner)))
        statuses, _ = reap()
    message: dict[str, object] = {"gone": left == 0, "left": left}
    if not ended:
        message["status"] = statuses.get(pid, int(signal.SIGKILL))
    _report(report, message)
    return left == 0


def _start(what: Launch, report: int) -> "int | None":
    """The command's first process; ``None`` if there is none, which was reported."""
    stage = "start"
    try:
        if not (what.chore or what.terminal or what.limits) and hasattr(os, "posix_spawn"):  # Python 3.8
            with contextlib.suppress(NotImplementedError):  # a C library that makes no sessions
                stage = "cwd"
                os.fchdir(what.cwd)
                stage = "execute"
                pid = _spawn(what)
                if what.acknowledge:
                    _report(report, {"started": True})
                return pid
        stage = "start"
        executed, failing = os.pipe()
        pid = os.fork()
        if pid == 0:
            _become(what, report)
        os.close(failing)
        if what.acknowledge:
            os.read(executed, 1)  # ends when the program was executed, or the process has ended
            _report(report, {"started": True})
        os.close(executed)
        return pid
    except (OSError, ValueError, MemoryError) as error:
        _report_failure(report, stage, error, gone=True)
        return None


def _spawn(what: Launch) -> int:
    """Execute the program in a new process. Raises OSError of the kind that ``os.execvpe`` would."""
    streams = ((what.stdin, 0), (what.stdout, 1), (what.stderr, 2))
    failure: OSError | None = None
    for place in [""] if "/" in what.argv[0] else what.env.get("PATH", os.defpath).split(":"):
        path = os.path.join(place, what.argv[0])
        if place and not os.path.exists(path):  # a spawn to find that out would cost more
            continue
        try:
            return os.posix_spawn(
                path,
                what.argv,
                what.env,
                file_actions=[(os.POSIX_SPAWN_DUP2, fd, target) for fd, target in streams],
                setsid=True,
                setsigmask=(),
                setsigdef=_RESTORED,
            )
        except (FileNotFoundError, NotADirectoryError) as error:
            failure = failure or error
        except OSError as error:  # it is there, and cannot be executed: the best that can be said, if no other can
            failure = error
    raise failure or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), what.argv[0])


def _become(what: Launch, report: int) -> None:
    """In the command's own first process: everything up to its execution."""
    stage = "start"
    try:
        os.setsid()
        for fd, target in ((what.stdin, 0), (what.stdout, 1), (what.stderr, 2)):
            os.dup2(fd, target)
        if what.terminal:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        stage = "cwd"
        os.fchdir(what.cwd)
        if what.chore is not None:
            what.chore()
            os._exit(0)
        stage = "limits"
        for name, number in _LIMITS.items():
            if name in what.limits:
                resource.setrlimit(number, (what.limits[name], what.limits[name]))
        if "cpu" in what.limits:
            # Soft before hard: SIGXCPU names the cause; SIGKILL a second later for who ignores it.
            resource.setrlimit(resource.RLIMIT_CPU, (what.limits["cpu"], what.limits["cpu"] + 1))
        stage = "execute"
        for number in _RESTORED:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
        os.execvpe(what.argv[0], what.argv, what.env)
    except (OSError, ValueError, MemoryError) as error:
        _report_failure(report, stage, error)
    except BaseException:  # noqa: BLE001 - a fork must not return into the keeper's loop
        complain()
    finally:
        os._exit(127)


class OomPriority:
    """So that what this process starts is killed for memory before the process itself, from the first moment."""

    def __init__(self) -> None:
        self._fd = -1
        self._own = b"0"
        prctl(PR_SET_DUMPABLE, 1)  # else the file is root's
        with contextlib.suppress(OSError):  # there is none, or it is not for us
            self._fd = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
            self._own = os.read(self._fd, 16).strip()
        prctl(PR_SET_DUMPABLE, 0)

    @contextlib.contextmanager
    def first_to_go(self) -> "Generator[None]":
        """For what is started meanwhile."""
        self._set(max(_FIRST_TO_GO, int(self._own)))
        try:
            yield
        finally:
            self._set(int(self._own))

    def _set(self, value: int) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):  # it may not be lowered again
                os.pwrite(self._fd, b"%d" % value, 0)


def complain() -> None:
    """Of what is our own mistake."""
    import sys
    import traceback

    traceback.print_exc()
    sys.stderr.flush()


def _report_failure(report: int, stage: str, error: BaseException, *, gone: bool = False) -> None:
    number = error.errno if isinstance(error, OSError) and error.errno is not None else 0
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    message: dict[str, object] = {"failed": stage, "errno": number, "text": text}
    if gone:
        message["gone"] = True
    _report(report, message)


def _report(report: int, message: "dict[str, object]") -> None:
    try:
        os.write(report, json.dumps(message).encode("ascii") + b"\n")
    except OSError as error:
        if error.errno != errno.EPIPE:  # the runner is dead
            raise
