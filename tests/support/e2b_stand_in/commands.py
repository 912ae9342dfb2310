"""A command in a sandbox, handled as envd handles it."""

from __future__ import annotations

import asyncio
import base64
import fcntl
import os
import pty
import signal
import struct
import termios
from collections.abc import AsyncIterator, Callable

from support.e2b_stand_in.namespaces import HOME, Inside, inner_pid
from support.e2b_stand_in.wire import Message, RpcError, child, number, text, texts, words

CHUNK = 1 << 15
QUEUED = 64
"""Events that wait for a slow reader; then the command's output is held up, for all its readers."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Queue = asyncio.Queue[Message | None]


class Command:
    """One started command: its leader, its pipes and whoever reads them."""

    def __init__(self, inside: Inside, request: Message, envs: dict[str, str], gone: Callable[[Command], None]) -> None:
        self.config = child(request, "process")
        self.tag = text(request, "tag")
        self._gone = gone
        self._readers: list[Queue] = []
        self._stdin_lock = asyncio.Lock()
        self._terminal = "pty" in request
        self._writable: asyncio.Future[None] | None = None
        stdin, stdout, stderr = self._pipes(request)
        env = {"PATH": _PATH, "HOME": HOME, "USER": "user", "LOGNAME": "user", "E2B_SANDBOX": "true"}
        try:
            self._process = inside.start(
                [text(self.config, "cmd"), *words(self.config, "args")],
                env | envs | texts(self.config, "envs"),
                text(self.config, "cwd") or HOME,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                tty=self._terminal,
            )
            self.pid = inner_pid(self._process.pid)
        except OSError as error:
            self._close()
            raise RpcError("invalid_argument", f"error starting process: {error}") from error
        finally:
            for descriptor in {stdin, stdout, stderr}:
                os.close(descriptor)
        loop = asyncio.get_running_loop()
        self._pumps = [loop.create_task(self._pump(name, source)) for name, source in self._sources.items()]
        self._wait = loop.create_task(self._until_end())

    def _pipes(self, request: Message) -> tuple[int, int, int]:
        """The command's ends of its streams; ours are kept."""
        self._stdin: int | None = None
        if self._terminal:
            master, slave = pty.openpty()
            self._sources = {"pty": master}
            self._stdin = os.dup(master)
            self.resize(request)
            return slave, os.dup(slave), os.dup(slave)
        out, stdout = os.pipe2(os.O_CLOEXEC)
        err, stderr = os.pipe2(os.O_CLOEXEC)
        self._sources = {"stdout": out, "stderr": err}
        if request.get("stdin", True):
            stdin, self._stdin = os.pipe2(os.O_CLOEXEC)
        else:
            stdin = os.open(os.devnull, os.O_RDONLY)
        return stdin, stdout, stderr

    def listen(self) -> Queue:
        """For :meth:`events`: what happens from now on is put in here."""
        queue: Queue = asyncio.Queue(QUEUED)
        self._readers.append(queue)
        return queue

    async def events(self, queue: Queue) -> AsyncIterator[Message]:
        """All to the end event. A reader that goes away changes nothing for the command."""
        try:
            yield {"start": {"pid": self.pid}}
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._readers.remove(queue)
            while not queue.empty():  # whoever waits to put goes on
                queue.get_nowait()

    def when_ended(self, call: Callable[[], None]) -> None:
        self._wait.add_done_callback(lambda _: call())

    def kill_leader(self) -> None:
        """What the end of the request's timeout does."""
        self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        if number in (signal.SIGKILL, signal.SIGTERM):
            for pump in self._pumps:  # the end event does not wait for the pipes any more
                pump.cancel()
        if self._process.poll() is None:
            self._process.send_signal(number)

    async def write(self, data: bytes, *, terminal: bool) -> None:
        """All of it into the command's input; returns when the pipe has taken it."""
        if terminal != self._terminal:
            raise RpcError("internal", "the input is of the wrong kind for this process")
        async with self._stdin_lock:
            view = memoryview(data)
            while view:
                if self._stdin is None:
                    raise RpcError("internal", "error writing to stdin: stdin not enabled or closed")
                os.set_blocking(self._stdin, False)
                try:
                    view = view[os.write(self._stdin, view) :]
                except BlockingIOError:
                    self._writable = asyncio.get_running_loop().create_future()
                    await _ready(self._stdin, asyncio.get_running_loop().add_writer, self._writable)
                except OSError as error:
                    raise RpcError("internal", f"error writing to stdin: {error}") from error

    async def close_stdin(self) -> None:
        if self._terminal:
            raise RpcError("unknown", "cannot close stdin for PTY process")
        async with self._stdin_lock:
            if self._stdin is not None:
                os.close(self._stdin)
                self._stdin = None

    def resize(self, request: Message) -> None:
        size = child(child(request, "pty"), "size")
        if not self._terminal:
            raise RpcError("internal", "tty not assigned to process")
        packed = struct.pack("HHHH", number(size, "rows", 24), number(size, "cols", 80), 0, 0)
        fcntl.ioctl(self._sources["pty"], termios.TIOCSWINSZ, packed)

    def described(self) -> Message:
        described: Message = {"config": self.config, "pid": self.pid}
        if self.tag:
            described["tag"] = self.tag
        return described

    async def ended(self) -> None:
        await asyncio.wait([self._wait])

    async def _pump(self, name: str, source: int) -> None:
        os.set_blocking(source, False)
        while True:
            try:
                data = os.read(source, CHUNK)
            except BlockingIOError:
                await _ready(source, asyncio.get_running_loop().add_reader)
                continue
            except OSError:  # the last holder of a terminal went away
                return
            if not data:
                return
            await self._tell({"data": {name: base64.b64encode(data).decode()}})

    async def _tell(self, event: Message | None) -> None:
        for queue in tuple(self._readers):
            if queue in self._readers:
                await queue.put(event)

    async def _until_end(self) -> None:
        await asyncio.wait(self._pumps)  # which may be until a grandchild closes them
        pidfd = os.pidfd_open(self._process.pid)
        await _ready(pidfd, asyncio.get_running_loop().add_reader)
        os.close(pidfd)
        code = self._process.wait()
        self._close()
        end: Message = {"exitCode": code, "exited": True, "status": f"exit status {code}"}
        if code < 0:
            end = {"exitCode": -1, "exited": False, "status": f"signal: {signal.strsignal(-code) or -code}".lower()}
        if code != 0:
            end["error"] = end["status"]
        self._gone(self)
        await self._tell({"end": end})
        await self._tell(None)

    def _close(self) -> None:
        for descriptor in self._sources.values():
            os.close(descriptor)
        if self._stdin is not None:
            if self._writable is not None:
                asyncio.get_running_loop().remove_writer(self._stdin)
                if not self._writable.done():
                    self._writable.set_result(None)  # who waits to write finds it closed
            os.close(self._stdin)
        self._stdin = None


async def _ready(descriptor: int, add: Callable[..., None], future: asyncio.Future[None] | None = None) -> None:
    loop = asyncio.get_running_loop()
    waited = loop.create_future() if future is None else future
    add(descriptor, lambda: waited.done() or waited.set_result(None))
    try:
        await waited
    finally:
        (loop.remove_reader if add == loop.add_reader else loop.remove_writer)(descriptor)
