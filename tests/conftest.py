"""What every test proves when it ends: it left no task, no process, no socket and no directory behind.

The checks wait up to :data:`GRACE` seconds for things that are just going away, and cost well under a millisecond
where nothing is left. Temporary files of the whole session lie in a folder of its own, so that what other programs
on this machine do meanwhile is none of our business.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import multiprocessing
import os
import signal
import stat
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, settings
from support.docker_daemon import docker_daemon as docker_daemon
from support.docker_daemon import docker_image as docker_image
from support.docker_daemon import mortal_docker as mortal_docker
from support.docker_daemon import mortal_docker_home as mortal_docker_home
from support.postgres_server import mortal_postgres as mortal_postgres
from support.postgres_server import postgres_server as postgres_server
from support.postgres_server import postgres_template as postgres_template
from support.ssh_server import mortal_sshd as mortal_sshd
from support.ssh_server import ssh_jump_server as ssh_jump_server
from support.ssh_server import ssh_server as ssh_server
from support.ssh_server import sshd_program as sshd_program

GRACE = 3.0

# Made once per process by libraries, for the process's whole life: multiprocessing's temporary directory, and the
# compile cache of torch.
_KEPT_BY_LIBRARIES = ("pymp-", "torchinductor_")

_THREADS = "/proc/self/task"
_PROC_LISTS_CHILDREN = Path(_THREADS, str(os.getpid()), "children").exists()

# A loaded machine is slow, not wrong: no time limits per example.
settings.register_profile("palmette", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("palmette")


# With several processes, a long file that is begun last is waited for by all. Longest first, as measured.
_BEGIN_WITH = (
    "trainers/test_training_run.py", "console/test_command_killed.py", "house/test_readme.py",
    "console/test_command_demo.py", "console/test_command_errors.py", "bench/test_bench_smoke.py",
    "nodes/test_host_deaths.py", "trainers/test_policy_server.py", "console/test_command_run.py",
    "console/test_command_control.py", "trainers/test_warm_start.py", "trainers/test_grpo_training.py",
)  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Make this process one that can be interrupted, and one of several no heavier than its share of the cores."""
    # A shell that runs something in the background has it ignore these, and so would all programs that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    if hasattr(config, "workerinput"):
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(name, "1")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the longest files first where the tests are shared out; the order within a file stays."""
    if hasattr(config, "workerinput"):
        rank = {Path(__file__).parent / name: number for number, name in enumerate(_BEGIN_WITH)}
        items.sort(key=lambda item: rank.get(item.path, len(rank)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests recorded as their ``summary``, in whatever process: a title, and maybe a text below it."""
    for report in terminalreporter.getreports("passed"):
        for name, told in report.user_properties:
            if name == "summary":
                title, _, text = str(told).partition("\n")
                terminalreporter.section(title)
                if text:
                    terminalreporter.write_line(text)


@pytest.fixture(scope="session", autouse=True)
def scratch_parent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory that temporary files of this session, its child processes included, are made in."""
    folder = tmp_path_factory.getbasetemp() / "scratch"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def nothing_left_behind(scratch_parent: Path) -> Iterator[None]:
    """Fails a test that leaves a child process, a socket or a temporary directory."""
    probes: dict[str, Callable[[], set[str]]] = {
        "processes": _children,
        "sockets": _sockets,
        "temporary directories": lambda: _directories(scratch_parent),
    }
    before = {what: probe() for what, probe in probes.items()}
    yield
    left: dict[str, set[str]] = {}
    deadline = time.monotonic() + GRACE
    for what, probe in probes.items():
        while new := probe() - before[what]:
            if time.monotonic() > deadline:
                left[what] = {_described(item) for item in new} if what == "processes" else new
                break
            gc.collect()
            multiprocessing.active_children()  # waits for those of its own that have ended
            time.sleep(0.01)
    if left:
        pytest.fail("left behind: " + "; ".join(f"{what}: {sorted(items)}" for what, items in left.items()))


@pytest.fixture(autouse=True)
def no_task_left(request: pytest.FixtureRequest, nothing_left_behind: None) -> None:
    """Fails an asynchronous test that leaves a task; the other tests are spared a loop."""
    function = getattr(request.node, "obj", None)
    function = getattr(getattr(function, "hypothesis", None), "inner_test", function)
    if inspect.iscoroutinefunction(function):
        request.getfixturevalue("_loop_without_new_tasks")


@pytest.fixture
async def _loop_without_new_tasks() -> AsyncIterator[None]:  # pyright: ignore[reportUnusedFunction]
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=GRACE)
    if left:
        pytest.fail(f"left behind: tasks: {sorted(map(repr, left))}")


def _children() -> set[str]:
    """Process ids of the children of this process, those not yet waited for included."""
    if _PROC_LISTS_CHILDREN:
        pids = {int(pid) for thread in os.listdir(_THREADS) for pid in _children_of(thread)}
    else:
        pids = {child.pid for child in psutil.Process().children()}
    return {str(pid) for pid in pids if not _is_resource_tracker(pid)}


def _children_of(thread: str) -> list[str]:
    try:
        return Path(_THREADS, thread, "children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):  # the thread ended meanwhile
        return []


def _is_resource_tracker(pid: int) -> bool:
    # multiprocessing starts it once and keeps it until this process ends.
    try:
        return any("multiprocessing.resource_tracker" in word for word in psutil.Process(pid).cmdline())
    except psutil.NoSuchProcess:
        return False


def _described(pid: str) -> str:
    try:
        process = psutil.Process(int(pid))
        return f"{pid} ({process.status()}) {' '.join(process.cmdline()) or process.name()}"
    except psutil.NoSuchProcess:
        return pid


def _sockets() -> set[str]:
    """Open sockets of this process, by inode; empty where there is no /proc."""
    found: set[str] = set()
    folder = "/proc/self/fd"
    for descriptor in os.listdir(folder) if os.path.isdir(folder) else ():
        try:
            target = os.readlink(f"{folder}/{descriptor}")
        except OSError:  # listdir's own descriptor
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


def _directories(parent: Path) -> set[str]:
    """Directories and unix sockets in ``parent``."""
    found: set[str] = set()
    for entry in os.scandir(parent):
        if entry.name.startswith(_KEPT_BY_LIBRARIES):
            continue
        if entry.is_dir(follow_symlinks=False) or stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode):
            found.add(entry.path)
    return found
