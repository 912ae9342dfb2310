"""Run one command to its end, on the event loop, without a thread or a watcher per process.

``asyncio``'s own subprocesses wait until every pipe is closed, so that one daemon which inherited stdout holds them
for ever. Here the end of a command is the end of its first process (a pidfd says so); who still holds the pipes then
has :data:`GRACE` to finish, and is killed.

One coroutine does everything: the loop's callbacks only note which descriptor is ready. So an exception from
``on_output``, a cancellation and a deadline all arrive at the same place, and the same burial follows each:
process group killed, first process reaped, tree killed, pipes drained and closed. A process that its caller talks
with (:mod:`palmette.machines.local.process`) is the same, with other ends to its pipes.

Starting a process blocks the loop for about half a millisecond (``vfork``, under the interpreter lock: a thread
would not help). Everything after that which may wait is done in a thread.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import TypeVar

from palmette.machines.capture import Capture
from palmette.machines.contract import ExecResult, StreamName
from palmette.machines.errors import MachineLost
from palmette.machines.tree import KILL_DEADLINE, Tree

T = TypeVar("T")

GRACE = 0.1
"""Seconds for what outlives the command and holds its output (``tee`` in a process substitution) to end by itself."""
_CHUNK = 1 << 16
DRAIN = 1 << 21
"""Bytes read from a pipe after everything is dead: more than any pipe holds, so that only a survivor can fill it."""


class Execution:
    """One command, from its start to its burial: :meth:`start`, then at once :meth:`run`, each once."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        tree: Tree,
        env: Mapping[str, str],
        stdin: bytes,
        timeout: float,
        max_output: int,
        on_output: Callable[[StreamName, bytes], None] | None,
    ) -> None:
        self._argv = argv
        self._tree = tree
        self._env = env
        self._stdin = stdin
        self._sent = 0
        self._timeout = timeout
        self._on_output = on_output
        self._captures: dict[StreamName, Capture] = {"stdout": Capture(max_output), "stderr": Capture(max_output)}
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._readers: dict[int, StreamName] = {}
        self._writer = -1
        self._pidfd = -1
        self._ready: set[int] = set()
        self._status: os.waitid_result | None = None
        self._began = 0.0
        self._exited = False
        self._killed = False
        self._late = False

    def last_words(self) -> bytes:
        """The end of what went to standard error."""
        return self._captures["stderr"].value()

    def told(self, result: ExecResult) -> ExecResult:
        """The result as the caller is to have it."""
        return result

    def kill(self) -> None:
        """End the command from outside; :meth:`run` buries it and returns its result (signal 9)."""
        self._killed = True
        self._wake.set()

    def start(self, cwd: str) -> None:
        """Start the command in ``cwd``. Blocks for about half a millisecond.

        Raises:
            OSError: it could not be started; nothing is left of it.
        """
        self._began = time.monotonic()
        theirs: list[int] = []
        try:
            stdin, stdout, stderr = self._connect(theirs)
            for fd in (*self._readers, *([self._writer] if self._writer >= 0 else [])):
                os.set_blocking(fd, False)
            self._process = subprocess.Popen(
                self._argv,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                cwd=cwd,
                env=self._env,
                start_new_session=True,
            )
            self._pidfd = os.pidfd_open(self._process.pid)
        except BaseException as error:
            if self._process is not None:  # no descriptor left for the pidfd: it has run for microseconds
                self._process.kill()
                self._process.wait(KILL_DEADLINE)
                self._tree.kill()
            self._close()
            if isinstance(error, ProcessLookupError):  # ended, and reaped by somebody, before we could look
                raise self._stolen() from error
            raise
        finally:
            for fd in theirs:
                os.close(fd)

    def _connect(self, theirs: list[int]) -> tuple[int, int, int]:
        """Make the pipes: ours into ``_readers`` and ``_writer``, the command's into ``theirs`` and the result."""
        stdin = subprocess.DEVNULL
        if self._stdin:
            stdin, self._writer = os.pipe()
            theirs.append(stdin)
        names: tuple[StreamName, StreamName] = ("stdout", "stderr")
        for name in names:
            ours, other = os.pipe()
            self._readers[ours] = name
            theirs.append(other)
        return stdin, theirs[-2], theirs[-1]

    async def run(self) -> ExecResult:
        """Wait until the command, and all that it started, are gone.

        Raises:
            MachineLost: it could not be killed, or somebody else took its exit status.
        """
        try:
            try:
                self._watch()
                timed_out = await self._until_end()
                held = self._exited and bool(self._readers)
            finally:
                self._unwatch()
                await self._bury()
            held = self._drain() or held
        finally:
            self._close()
        if self._status is None:
            raise self._stolen()
        ended_itself = self._status.si_code == os.CLD_EXITED
        return ExecResult(
            exit_code=self._status.si_status if ended_itself else None,
            signal=None if ended_itself else self._status.si_status,
            stdout=self._captures["stdout"].value(),
            stderr=self._captures["stderr"].value(),
            timed_out=timed_out,
            bytes_left_out=sum(capture.left_out for capture in self._captures.values()),
            pipe_held=held,
            duration=time.monotonic() - self._began,
        )

    def _watch(self) -> None:
        for fd in (self._pidfd, *self._readers):
            self._loop.add_reader(fd, self._note, fd)
        if self._writer >= 0:
            self._loop.add_writer(self._writer, self._note, self._writer)

    def _unwatch(self) -> None:
        for fd in (self._pidfd, *self._readers):
            self._loop.remove_reader(fd)
        if self._writer >= 0:
            self._loop.remove_writer(self._writer)

    def _note(self, fd: int) -> None:
        self._ready.add(fd)
        self._wake.set()

    def _expire(self) -> None:
        self._late = True
        self._wake.set()

    async def _until_end(self) -> bool:
        """Serve the descriptors until the command and its output end, or the deadline. Whether it was the deadline."""
        deadline = self._loop.time() + self._timeout
        timer = self._loop.call_at(deadline, self._expire)
        in_grace = False
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                self._serve()
                if self._exited and not self._readers:
                    return False
                if self._killed or self._late:
                    return self._late and not self._exited
                if self._exited and not in_grace:
                    in_grace = True
                    timer.cancel()
                    timer = self._loop.call_at(min(deadline, self._loop.time() + GRACE), self._expire)
        finally:
            timer.cancel()

    def _serve(self) -> None:
        ready, self._ready = self._ready, set()
        if self._pidfd in ready and not self._exited:
            self._exited = True
            self._loop.remove_reader(self._pidfd)
            ready |= self._readers.keys()  # its last words are in the pipes by now
        if self._writer in ready:
            self._write()
        for fd in list(self._readers):
            if fd in ready:
                self._read(fd, DRAIN)

    def _write(self) -> None:
        try:
            self._sent += os.write(self._writer, memoryview(self._stdin)[self._sent : self._sent + (1 << 18)])
        except BlockingIOError:
            return
        except BrokenPipeError:  # it does not want to read (any more), which is its right
            self._sent = len(self._stdin)
        if self._sent == len(self._stdin):
            self._close_writer()

    def _close_writer(self) -> None:
        self._loop.remove_writer(self._writer)
        os.close(self._writer)
        self._writer = -1

    def _read(self, fd: int, room: int) -> bool:
        """Read what is there, at most about ``room`` bytes; whether the stream ended."""
        name = self._readers[fd]
        while room > 0:
            try:
                chunk = os.read(fd, _CHUNK)
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                chunk = b""  # a terminal that nobody has open any more
            if not chunk:
                self._loop.remove_reader(fd)
                del self._readers[fd]
                os.close(fd)
                return True
            room -= len(chunk)
            self._take(name, chunk)
        return False

    def _take(self, name: StreamName, chunk: bytes) -> None:
        self._captures[name].feed(chunk)
        if self._on_output is not None:
            self._on_output(name, chunk)

    def _drain(self) -> bool:
        """Read what the dead left in the pipes; whether something still holds them (it escaped the tree)."""
        ended = [self._read(fd, DRAIN) for fd in list(self._readers)]
        return not all(ended)

    async def _bury(self) -> None:
        assert self._process is not None, "start() came before"
        # Its first process is not reaped yet, so that the group's number cannot have been given to anybody else.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        if self._exited:
            self._reap(self._process)
            if self._tree.gone():
                return
        await uninterrupted(self._bury_in_thread)

    def _bury_in_thread(self) -> None:
        assert self._process is not None, "start() came before"
        if not self._exited:
            poller = select.poll()
            poller.register(self._pidfd, select.POLLIN)
            if not poller.poll(KILL_DEADLINE * 1000):
                raise MachineLost(
                    f"process {self._process.pid} survived SIGKILL for {KILL_DEADLINE:g} s; it hangs in the kernel, "
                    "the host needs a look"
                )
            self._reap(self._process)
        if not self._tree.gone():
            self._tree.kill()

    def _reap(self, process: subprocess.Popen[bytes]) -> None:
        """Take the exit status of a process that has ended. Not ``Popen.wait``: that says 0 when somebody else did."""
        process.returncode = 0  # Popen need not look for it any more
        with suppress(ChildProcessError):
            self._status = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)

    def _stolen(self) -> MachineLost:
        return MachineLost(
            f"somebody else in this program took the exit status of {self._argv[0]}; look for waitpid(-1) or an "
            "ignored SIGCHLD"
        )

    def _close(self) -> None:
        for fd in (*self._readers, self._writer, self._pidfd):
            if fd >= 0:
                os.close(fd)
        self._readers, self._writer, self._pidfd = {}, -1, -1


async def uninterrupted(work: Callable[[], T]) -> T:
    """Run blocking ``work`` in a thread and wait for its end; a cancellation meanwhile is delivered afterwards."""
    future = asyncio.get_running_loop().run_in_executor(_threads(os.getpid()), work)
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    result = future.result()
    if cancelled is not None:
        raise cancelled
    return result


@cache
def _threads(pid: int) -> ThreadPoolExecutor:
    """Threads of our own: a kill must not queue behind somebody's slow file. Per pid: threads do not survive fork."""
    del pid
    return ThreadPoolExecutor(max_workers=8, thread_name_prefix="palmette-machines")
