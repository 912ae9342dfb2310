"""Start a job, and keep all that it starts in one place: a *keeper* process per job.

::

    runner
    ├── keeper of job 1     a child subreaper: orphans of job 1 become its children, not the runner's
    │   └── the command, with all that it starts
    └── keeper of job 2
        └── the command, with all that it starts

So that job 1 can be killed to its last process, whatever that did to its session, its group or its environment, while
job 2 runs on. The keeper tells the runner, in lines of JSON, how the command ended and when nothing is left of it.
SIGUSR1 tells it to kill; the kernel sends it too when the runner dies.

A keeper is a fork of the runner that never returns, and so is the command's first process until it executes.
"""

import errno
import fcntl
import json
import os
import resource
import signal
import termios
from collections.abc import Callable

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
_FIRST_TO_GO = b"500"
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
        self.report = -1
        self.terminal = False
        self.acknowledge = False
        """Whether to report that the program was executed."""


def launch(what: Launch, foreign: "list[int]") -> int:
    """Fork a keeper that runs ``what``; its process id. ``foreign`` are descriptors that it has no business with."""
    runner = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        for fd in foreign:
            os.close(fd)
        _keep(what, runner)
    except BaseException:  # noqa: BLE001 - a fork of the runner must not return into the runner's loop
        _complain()
    finally:
        os._exit(70)


def _keep(what: Launch, runner: int) -> None:
    subreaper = prctl(PR_SET_CHILD_SUBREAPER, 1)
    if prctl(PR_SET_PDEATHSIG, signal.SIGUSR1) and os.getppid() != runner:
        os._exit(0)
    executed, failing = os.pipe() if what.acknowledge else (-1, -1)
    try:
        pid = os.fork()
    except OSError as error:
        _report_failure(what.report, "fork", error)
        os._exit(0)
    if pid == 0:
        _become(what)
    for fd in {what.cwd, what.stdin, what.stdout, what.stderr, failing}:
        if fd >= 0:
            os.close(fd)
    if what.acknowledge:
        os.read(executed, 1)  # ends when the program was executed, or the process has ended
        _report(what.report, {"started": True})
    ended = False
    while True:
        statuses, more = reap()
        more = more or not subreaper
        if pid in statuses:
            ended = True
            _report(what.report, {"status": statuses[pid], "gone": not more})
        elif ended and not more:
            _report(what.report, {"gone": True})
        if ended and not more:
            os._exit(0)
        got = signal.sigtimedwait(HELD_BACK, 1.0)
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
    _report(what.report, message)
    os._exit(0)


def _become(what: Launch) -> None:
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
        _prefer_to_kill()
        stage = "limits"
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for name, number in _LIMITS.items():
            if name in what.limits:
                resource.setrlimit(number, (what.limits[name], what.limits[name]))
        if "cpu" in what.limits:
            # Soft before hard: SIGXCPU names the cause; SIGKILL a second later for who ignores it.
            resource.setrlimit(resource.RLIMIT_CPU, (what.limits["cpu"], what.limits["cpu"] + 1))
        stage = "execute"
        os.umask(0o022)
        for number in _RESTORED:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
        os.execvpe(what.argv[0], what.argv, what.env)
    except (OSError, ValueError, MemoryError) as error:
        _report_failure(what.report, stage, error)
    except BaseException:  # noqa: BLE001 - see launch
        _complain()
    finally:
        os._exit(127)


def _prefer_to_kill() -> None:
    prctl(PR_SET_DUMPABLE, 1)  # else the file is root's; what it executes would have become so anyway
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:  # no such file, or not ours
        return
    try:
        os.write(fd, _FIRST_TO_GO)
    except OSError:  # it was higher already, and only root lowers it
        pass
    finally:
        os.close(fd)


def _complain() -> None:
    """Of what is our own mistake."""
    import sys
    import traceback

    traceback.print_exc()
    sys.stderr.flush()


def _report_failure(report: int, stage: str, error: BaseException) -> None:
    number = error.errno if isinstance(error, OSError) and error.errno is not None else 0
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    _report(report, {"failed": stage, "errno": number, "text": text})


def _report(report: int, message: "dict[str, object]") -> None:
    try:
        os.write(report, json.dumps(message).encode("ascii") + b"\n")
    except OSError as error:
        if error.errno != errno.EPIPE:  # the runner is dead
            raise
