"""A channel to a program that is started here: what every backend with a command of its own is built on.

``bwrap``, ``kubectl exec -i``, ``podman exec -i``: whatever carries standard input and output to a program elsewhere is
a :class:`PipeChannel`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Self, cast

from palmette.machines.process import uninterrupted

_PIECE = 1 << 18
COMPLAINT = 2000
"""Bytes of standard error that are kept for messages: the last ones."""
END_SECONDS = 5.0
"""For a killed program to be gone."""


class PipeChannel:
    """See :class:`~palmette.machines.backend.Channel`. Made by :meth:`start`."""

    def __init__(self, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        self._process = process
        self._errors = errors
        self._last_words = ""
        self._loop = asyncio.get_running_loop()
        self._output = cast("IO[bytes]", process.stdout).fileno()
        self._input = cast("IO[bytes]", process.stdin).fileno()
        os.set_blocking(self._output, False)
        os.set_blocking(self._input, False)
        self._is_closed = False
        self._waiting: set[asyncio.Future[None]] = set()

    @classmethod
    def start(cls, argv: Sequence[str], *, env: Mapping[str, str], pass_fds: Sequence[int] = ()) -> Self:
        """Start ``argv`` with nothing but ``env`` in its environment. Blocks for about a millisecond.

        Raises:
            OSError: it cannot be started.
        """
        # Errors go to a file: nobody has to read it, and a program that complains at length is not held up by it.
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the channel
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=dict(env),
                start_new_session=True,
                bufsize=0,
                pass_fds=pass_fds,
            )
        except BaseException:
            errors.close()
            raise
        return cls(process, errors)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Of the program; ``None`` while it runs, negative where a signal ended it."""
        return self._process.poll()

    @property
    def complaint(self) -> str:
        if self._errors.closed:
            return self._last_words
        size = os.fstat(self._errors.fileno()).st_size
        return os.pread(self._errors.fileno(), COMPLAINT, max(0, size - COMPLAINT)).decode("utf-8", "replace").strip()

    async def read(self) -> bytes:
        while not self._is_closed:
            try:
                return os.read(self._output, _PIECE)
            except BlockingIOError:
                await self._ready(self._output, to_read=True)
        return b""

    async def write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            if self._is_closed:
                raise ConnectionError("the channel was closed")
            try:
                left = left[os.write(self._input, left[:_PIECE]) :]
            except BlockingIOError:
                await self._ready(self._input, to_read=False)
            except BrokenPipeError as error:
                raise ConnectionError("the program at the other end has ended, or closed its input") from error

    async def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._loop.remove_reader(self._output)  # before the numbers are given to others
        self._loop.remove_writer(self._input)
        for future in self._waiting:
            _wake(future)
        process = self._process
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        # The end of its input is what it should end by; nobody waits to see whether it does.
        process.poll()
        self._last_words = self.complaint
        self._errors.close()

    async def end(self) -> None:
        """Close the channel, kill the program with its session, and wait until it is gone."""
        await self.close()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await uninterrupted(lambda: self._process.wait(END_SECONDS))

    async def _ready(self, fd: int, *, to_read: bool) -> None:
        loop = self._loop
        watch, forget = (loop.add_reader, loop.remove_reader) if to_read else (loop.add_writer, loop.remove_writer)
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.add(future)
        watch(fd, _wake, future)
        try:
            await future
        finally:
            self._waiting.discard(future)
            if not self._is_closed:
                forget(fd)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
