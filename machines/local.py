"""A machine on this host: a scratch directory, and commands that run in it as ordinary processes.

The cheapest machine (a command costs 1 to 3 ms, a machine with ten files under 2 ms) and the least closed one. ::

    machine = LocalMachine("run-1")
    await machine.start()
    await machine.put("hello.py", b"print('hello')")
    result = await machine.exec(["python3", "hello.py"], timeout=10)
    await machine.stop()

**What it holds.** Everything a command started is dead when :meth:`LocalMachine.exec` returns, however it returns.
``put``, ``get`` and ``list`` cannot be led out of the scratch directory. The environment is built from an allow-list.

**What it does not hold.** Commands run as this user on this host: they can read and write whatever this user can, by
absolute paths. In particular a process may read ``/proc/<pid>/environ`` of every process of the same user, so that an
API key given to the controller *through its environment* is readable from inside (and taking it out of ``os.environ``
does not remove it there). Keep keys in files with tight permissions read by another user, run the controller as
another user than its commands, or take a backend with a pid namespace (a container) for commands you do not trust.

**If the controller is killed** (``kill -9``) its commands run on until :func:`palmette.machines.reaper.reap` is called:
call it when a program starts, in a thread. ``PR_SET_PDEATHSIG`` would cost another exec per command (0.7 ms,
half of the whole) and would reach the first process only.

**What runs where.** ``put`` and ``get`` up to :data:`SMALL` bytes are done on the event loop (some 50 µs); larger ones,
``list`` and removals in a thread, with :data:`FILE_DEADLINE`. Each running command takes three file descriptors,
four with stdin.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeVar

from palmette.machines.contract import ExecResult, Limits, StreamName
from palmette.machines.errors import (
    CommandNotStarted,
    FileTooLarge,
    MachineError,
    MachineLost,
    boundary,
)
from palmette.machines.files import list_directory, read_file, remove_tree, write_file
from palmette.machines.identity import MachineId
from palmette.machines.paths import open_inside
from palmette.machines.process import Execution, uninterrupted
from palmette.machines.scratch import parent_directory, prepare_parent
from palmette.machines.tree import EXEC_TAG, KILL_DEADLINE, MACHINE_TAG, group_known, open_tree, writable_group
from palmette.machines.wrapper import check_program, raise_not_started, raise_own_failure, wrap

T = TypeVar("T")

SMALL = 1 << 16
"""Bytes up to which a file is read or written on the event loop."""
FILE_DEADLINE = 60.0
"""Seconds for one put, get, list or removal."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class LocalMachine(AbstractAsyncContextManager["LocalMachine"]):
    """A :class:`~palmette.machines.contract.Machine` made of a directory and processes of this host.

    Args:
        owner: id of the run that the machine belongs to: letters, digits, ``-`` and ``_``.
        root: where the scratch directory goes; default ``$PALMETTE_MACHINES`` or a directory of this user's in the
            temporary directory.
    """

    def __init__(self, owner: str, *, root: Path | None = None) -> None:
        self._id = str(MachineId.new(owner))
        self._parent = parent_directory(root)
        self._directory = f"{self._parent}/{self._id}"
        self._work = f"{self._directory}/work"
        self._tmp = f"{self._directory}/tmp"
        self._inode = (0, 0)
        self._state: Literal["new", "running", "stopping", "stopped"] = "new"
        self._count = 0
        self._running: set[Execution] = set()
        self._idle = asyncio.Event()
        self._stop_lock = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<LocalMachine {self._id} {self._state}>"

    @property
    def id(self) -> str:
        """``<run>.<controller pid>.<its start>.<place>.<nonce>``: also the name of the scratch directory."""
        return self._id

    @property
    def directory(self) -> Path:
        """The working directory, as the host sees it."""
        return Path(self._work)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Make the scratch directory.

        Raises:
            MachineError: started before, or the parent directory is not ours alone.
            MachineLost: the host cannot make directories now.
        """
        if self._state != "new":
            raise MachineError(f"machine {self._id} was started before; make another one")
        with boundary("start", alive=lambda: True):
            prepare_parent(self._parent)
            os.mkdir(self._directory, 0o700)
            self._state = "running"
            os.mkdir(self._work, 0o700)
            self._inode = _inode(os.lstat(self._work))

    async def exec(
        self,
        command: str | Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float = 60.0,
        env: Mapping[str, str] | None = None,
        cwd: str = ".",
        limits: Limits | None = None,
        max_output: int = 1 << 20,
        on_output: Callable[[StreamName, bytes], None] | None = None,
    ) -> ExecResult:
        """Run ``command`` and return when it, and all that it started, are gone.

        The environment is ``PATH`` (the host's), ``LANG``, ``HOME`` (the working directory), ``TMPDIR``, two tags of
        ours, and ``env``. A command still running at ``timeout`` is killed with its descendants; what it printed is in
        the result. Something it left in the background is killed at once when the command ends (after a tenth of a
        second if it holds the output). An exception from ``on_output`` kills the command and comes out here.

        Raises:
            MachineLost: the scratch directory is gone, the machine was stopped, or the command could not be killed.
            CommandNotStarted: no such program or directory, not executable, too long, or a limit the host refuses.
            ValueError: ``timeout`` is not a finite positive number, or another argument makes no sense.
        """
        self._check_running()
        if not (math.isfinite(timeout) and timeout > 0):
            raise ValueError(f"timeout must be a finite number of seconds > 0, got {timeout!r}")
        if not group_known():
            await asyncio.to_thread(writable_group)
            self._check_running()
        self._count += 1
        exec_id = f"{self._id}.{self._count}"
        with boundary(f"exec {_short(command)}", alive=self._alive):
            execution = self._launch(
                command, exec_id, stdin, timeout, self._environment(exec_id, env), cwd, limits, max_output, on_output
            )
        self._running.add(execution)
        try:
            result = await execution.run()
        finally:
            self._running.discard(execution)
            if not self._running:
                self._idle.set()
        if self._state != "running":
            raise MachineLost(f"machine {self._id} was stopped while the command ran")
        if not self._alive():
            raise MachineLost(
                f"the scratch directory of machine {self._id} went away while the command ran; "
                "its result says nothing, start another machine"
            )
        raise_own_failure(result.exit_code, result.stderr, mark=_mark(exec_id))
        return result

    async def put(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """Write a file, atomically; directories above it are made, a symbolic link in its place is replaced.

        Raises:
            PathEscapes, NotAFile, IsADirectoryError, NotADirectoryError: the path is no place for a file.
            MachineLost: the scratch directory is gone, or the host failed (no space).
        """
        doing = f"put {path!r}"
        if len(data) <= SMALL:
            self._at_root(doing, lambda root: write_file(root, path, (data,), mode))
        else:
            await self._in_thread(doing, lambda root: write_file(root, path, (data,), mode))

    async def get(self, path: str, *, max_bytes: int = 64 << 20) -> bytes:
        """Read a regular file.

        Raises:
            FileNotFoundError, IsADirectoryError, NotAFile, PathEscapes: there is no such file.
            FileTooLarge: it holds more than ``max_bytes``.
            MachineLost: the scratch directory is gone, or the host failed.
        """
        doing = f"get {path!r}"
        try:
            return self._at_root(doing, lambda root: read_file(root, path, min(max_bytes, SMALL)))
        except FileTooLarge:
            if max_bytes <= SMALL:
                raise
        return await self._in_thread(doing, lambda root: read_file(root, path, max_bytes))

    async def list(self, path: str = ".") -> list[str]:
        """Names in a directory, sorted.

        Raises:
            FileNotFoundError, NotADirectoryError, PathEscapes: there is no such directory.
            MachineLost: the scratch directory is gone, or the host failed.
        """
        return await self._in_thread(f"list {path!r}", lambda root: list_directory(root, path))

    async def reset(self) -> None:
        """Kill what runs (its ``exec`` returns with signal 9) and empty the working directory.

        Raises:
            MachineLost: the scratch directory is gone, or something would not die.
        """
        self._check_running()
        await self._silence()
        with boundary("reset", alive=self._alive):
            os.close(self._open_root())
            await uninterrupted(self._empty)

    async def stop(self) -> None:
        """Kill what runs (its ``exec`` raises ``MachineLost``) and remove the scratch directory. Twice is fine.

        Raises:
            MachineError: something would not die or could not be removed; another ``stop`` tries again.
        """
        if self._state == "new":
            self._state = "stopped"
        async with self._stop_lock:
            if self._state == "stopped":
                return
            self._state = "stopping"
            try:
                await self._silence()
            finally:
                await uninterrupted(self._remove)
            self._state = "stopped"

    def _launch(
        self,
        command: str | Sequence[str],
        exec_id: str,
        stdin: bytes,
        timeout: float,
        env: dict[str, str],
        cwd: str,
        limits: Limits | None,
        max_output: int,
        on_output: Callable[[StreamName, bytes], None] | None,
    ) -> Execution:
        directory = self._open_directory(cwd)
        try:
            where = f"/proc/self/fd/{directory}"  # the directory that was checked, whatever its name leads to by now
            if not isinstance(command, str):
                check_program(command, search=env["PATH"], cwd=os.readlink(where))
            tree = open_tree(exec_id)
            try:
                execution = Execution(
                    wrap(command, entry=tree.entry(), limits=limits, mark=_mark(exec_id)),
                    tree=tree,
                    env=env,
                    stdin=stdin,
                    timeout=timeout,
                    max_output=max_output,
                    on_output=on_output,
                )
                execution.start(where)
            except BaseException as error:
                tree.gone()
                if isinstance(error, OSError):
                    raise_not_started(error, command)
                raise
            return execution
        finally:
            os.close(directory)

    def _environment(self, exec_id: str, extra: Mapping[str, str] | None) -> dict[str, str]:
        tags = {MACHINE_TAG: self._id, EXEC_TAG: exec_id}
        if extra is not None and (taken := tags.keys() & extra.keys()):
            raise ValueError(f"{min(taken)} is how the machine finds its processes; env cannot set it")
        return {
            "PATH": os.environ.get("PATH", _PATH),
            "LANG": "C.UTF-8",
            "HOME": self._work,
            "TMPDIR": self._tmp,
            **(extra or {}),
            **tags,
        }

    def _check_running(self) -> None:
        if self._state == "new":
            raise MachineError(f"machine {self._id} is not started; await start() first")
        if self._state != "running":
            raise MachineLost(f"machine {self._id} was stopped; start another one")

    def _alive(self) -> bool:
        try:
            return _inode(os.lstat(self._work)) == self._inode
        except OSError:
            return False

    def _open_root(self) -> int:
        root = os.open(self._work, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
        if _inode(os.fstat(root)) != self._inode:
            os.close(root)
            raise MachineLost(f"somebody replaced the scratch directory of machine {self._id}; start another machine")
        return root

    def _open_directory(self, cwd: str) -> int:
        root = self._open_root()
        try:
            if not os.path.isdir(self._tmp):
                os.mkdir(self._tmp, 0o700)
            try:
                return open_inside(root, cwd, os.O_PATH | os.O_DIRECTORY)
            except (FileNotFoundError, NotADirectoryError) as error:
                if not self._alive():
                    raise
                raise CommandNotStarted(f"there is no directory {cwd!r} in the machine to run a command in") from error
        finally:
            os.close(root)

    def _at_root(self, doing: str, work: Callable[[int], T]) -> T:
        self._check_running()
        with boundary(doing, alive=self._alive):
            root = self._open_root()
            try:
                return work(root)
            finally:
                os.close(root)

    async def _in_thread(self, doing: str, work: Callable[[int], T]) -> T:
        try:
            async with asyncio.timeout(FILE_DEADLINE):
                return await asyncio.to_thread(self._at_root, doing, work)
        except TimeoutError as error:
            raise MachineLost(f"{doing} took more than {FILE_DEADLINE:g} s; the file system hangs") from error

    async def _silence(self) -> None:
        """Kill the commands that run and wait until they are buried."""
        if not self._running:
            return
        self._idle.clear()
        for execution in self._running:
            execution.kill()
        try:
            async with asyncio.timeout(3 * KILL_DEADLINE):
                await self._idle.wait()
        except TimeoutError as error:
            raise MachineLost(f"{len(self._running)} command(s) of machine {self._id} would not die") from error

    def _empty(self) -> None:
        remove_tree(self._tmp)
        remove_tree(self._work)
        os.mkdir(self._work, 0o700)
        self._inode = _inode(os.lstat(self._work))

    def _remove(self) -> None:
        try:
            remove_tree(self._directory)
        except OSError as error:
            raise MachineError(f"the scratch directory {self._directory} could not be removed: {error}") from error


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _mark(exec_id: str) -> str:
    return f"palmette-wrapper:{exec_id}"


def _short(command: str | Sequence[str]) -> str:
    text = repr(command if isinstance(command, str) else list(command))
    return text if len(text) <= 80 else text[:77] + "..."
