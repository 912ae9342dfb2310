"""A byte stream to a program in an E2B sandbox, which outlives the connections that carry it.

The program runs under a relay (:mod:`palmette.machines.e2b.relay`, sent along as the command's text), itself a
background command of E2B's without a time limit. When the connection under it breaks (a proxy restarts, the sandbox
was paused for a snapshot), the channel attaches anew and goes on where it was: nothing is lost or doubled, whoever
reads or writes notices nothing. When that fails, the stream has ended, and :attr:`E2bChannel.lost` says that it was
not the program's end.

Measured against a server on the same host: 1.3 ms there and back, 10 MB there and back in 0.4 s.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import shlex
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from palmette.machines.e2b.account import CALL_DEADLINE, call
from palmette.machines.e2b.errors import e2b_boundary
from palmette.machines.e2b.relay import DATA, FRAME, LABEL, RESUME, TAKEN, WINDOW
from palmette.machines.errors import MachineError, MachineLost
from palmette.machines.evidence import Evidence

if TYPE_CHECKING:
    from e2b import AsyncCommandHandle, AsyncSandbox

OPEN_DEADLINE = 20.0
"""Seconds for the command to be started, or attached to."""
SEND_DEADLINE = 10.0
"""Seconds for one request; the relay takes everything at once, so it is the way that is slow."""
ATTACH_DEADLINE = 5.0
FRUITLESS = 5
"""Connections one after another that broke before anything came through them; the next is not made."""
_SEND = 1 << 19
"""Bytes in one request: a request costs a round trip."""
_COMPLAINT = 2000


class E2bChannel:
    """See :class:`~palmette.machines.backend.Channel`. Made by :meth:`open`.

    Args:
        overdue: whether the sandbox's time was up.
    """

    def __init__(self, sandbox: AsyncSandbox, overdue: Callable[[], bool]) -> None:
        self._commands = sandbox.commands
        self._overdue = overdue
        self.lost: Evidence | None = None
        """Why the stream ended, where the way to the sandbox did and not the program."""
        self.heard_at = asyncio.get_running_loop().time()
        """When something last came from the sandbox, on the loop's clock."""
        self._pid = 0
        self._mark = secrets.token_hex(4)
        self._follower: asyncio.Task[None] | None = None
        self._acknowledger: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._sending = asyncio.Lock()
        self._ended = False
        self._closing = False
        self._complaint = ""
        self._partial = ""
        self._lines = 0
        self._chunks: deque[bytes] = deque()
        self._received = 0
        self._read = 0
        self._acknowledged = 0
        self._sent = 0
        self._taken = 0

    @classmethod
    async def open(
        cls, sandbox: AsyncSandbox, argv: Sequence[str], *, machine: str, overdue: Callable[[], bool]
    ) -> E2bChannel:
        """Start ``argv`` in the sandbox.

        Args:
            machine: id of the machine, by which copies of the relay in a copied sandbox are known.
            overdue: whether the sandbox's time was up.

        Raises:
            MachineLost: it could not be started; a program that does not exist is the end of the stream.
        """
        channel = cls(sandbox, overdue)
        words = ["python3", "-I", "-S", "-c", _relay_source(), channel._mark, *argv]
        starting = channel._commands.run(
            f"exec {shlex.join(words)}",
            background=True,
            stdin=True,
            envs={LABEL: machine},
            timeout=0,  # its default is to kill the command after a minute
            on_stdout=channel._hear,
            on_stderr=channel._complain,
            retain_output=False,
        )
        handle = await call("start a program in the sandbox", starting, deadline=OPEN_DEADLINE, overdue=overdue)
        channel._pid = handle.pid
        channel._follower = asyncio.create_task(channel._follow(handle))
        return channel

    @property
    def complaint(self) -> str:
        return self._complaint.strip()

    @property
    def ended(self) -> bool:
        return self._ended

    def lose(self, evidence: Evidence) -> None:
        """End the stream: it is known from elsewhere that nothing comes any more."""
        self._end(str(evidence), evidence)

    async def read(self) -> bytes:
        while not self._chunks:
            if self._ended:
                return b""
            self._changed.clear()
            await self._changed.wait()
        chunk = self._chunks.popleft()
        self._read += len(chunk)
        if self._read - self._acknowledged >= WINDOW // 4 and (self._acknowledger is None or self._acknowledger.done()):
            self._acknowledger = asyncio.create_task(self._acknowledge())
        return chunk

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            piece, view = view[:_SEND], view[_SEND:]
            while self._sent - self._taken + len(piece) > WINDOW and not self._ended:
                self._changed.clear()
                await self._changed.wait()
            if self._ended:
                raise ConnectionError(f"the stream to the sandbox has ended. {self.complaint}")
            place = self._sent
            self._sent += len(piece)
            try:
                await self._send(DATA, place, bytes(piece))
            except MachineError as error:
                self._fail(error)
                raise ConnectionError(f"the stream to the sandbox has ended. {self.complaint}") from error
            except asyncio.CancelledError:
                self._end("a write was called off half-way")
                raise

    async def close(self) -> None:
        self._end()
        if not self._closing and self._follower is not None:
            self._closing = True
            self._follower.cancel()
            self._follower = asyncio.create_task(self._give_up(self._follower))

    @property
    def closed(self) -> bool:
        """Whether it was given up, and nothing of it is left in this process."""
        return self._closing and all(task is None or task.done() for task in (self._follower, self._acknowledger))

    async def gone(self) -> None:
        """After :meth:`close`: wait until nothing of it is left in this process; a few seconds at most."""
        tasks = [task for task in (self._follower, self._acknowledger) if task is not None]
        if tasks:
            await asyncio.wait(tasks)

    async def _give_up(self, follower: asyncio.Task[None]) -> None:
        """Let go of the connection, and let the program see the end of its input."""
        await asyncio.wait([follower])
        with suppress(MachineError):  # the program, or the sandbox, is gone already
            await call("close the stream", self._commands.close_stdin(self._pid), deadline=SEND_DEADLINE)

    async def _follow(self, handle: AsyncCommandHandle[None]) -> None:
        """Stay with the command to its end, over as many connections as that takes."""
        fruitless = 0
        while True:
            heard = self._lines
            lost = await self._until_end(handle)
            if lost is None or self._ended:
                self._end()
                return
            fruitless = fruitless + 1 if self._lines == heard else 0
            try:
                if fruitless > FRUITLESS:
                    raise lost
                handle = await self._attach()
                await self._send(RESUME, self._received)
            except MachineError as error:
                self._complain(f"\n{lost}")
                self._fail(error)
                return

    async def _until_end(self, handle: AsyncCommandHandle[None]) -> MachineError | None:
        """``None`` when the command has ended, otherwise how the connection was lost."""
        from e2b import CommandExitException

        try:
            with e2b_boundary("the connection to the sandbox was lost", overdue=self._overdue):
                try:
                    await handle.wait()
                except CommandExitException as ended:
                    self._complain(f"[ended with {ended.exit_code}]")
        except MachineError as error:
            return error
        finally:
            await handle.disconnect()
        return None

    async def _attach(self) -> AsyncCommandHandle[None]:
        self._partial = ""
        attaching = self._commands.connect(
            self._pid, timeout=0, on_stdout=self._hear, on_stderr=self._complain, retain_output=False
        )
        return await call(
            "attach to the program in the sandbox anew", attaching, deadline=ATTACH_DEADLINE, overdue=self._overdue
        )

    async def _send(self, kind: int, place: int, data: bytes = b"") -> None:
        """One frame, as one request. One that fails is sent once more: the relay drops what it has seen.

        Raises:
            MachineError: that failed too.
        """
        frame = FRAME.pack(kind, place, len(data)) + data
        async with self._sending:
            try:
                await self._request(frame)
            except MachineError:
                if self._ended:
                    raise
                await self._request(frame)

    async def _request(self, frame: bytes) -> None:
        sending = self._commands.send_stdin(self._pid, frame)
        await call("send to the sandbox", sending, deadline=SEND_DEADLINE, overdue=self._overdue)

    async def _acknowledge(self) -> None:
        """Tell the relay what was read; until it knows, it sends no more than the window."""
        while self._read - self._acknowledged >= WINDOW // 4 and not self._ended:
            place = self._read
            try:
                await self._send(TAKEN, place)
            except MachineError as error:
                self._fail(error)
                return
            self._acknowledged = place

    def _hear(self, text: str) -> None:
        self.heard_at = asyncio.get_running_loop().time()
        *lines, self._partial = (self._partial + text).split("\n")
        for line in lines:
            # A profile may print something first, and a new connection may begin within a line.
            if line.startswith(f"<{self._mark} "):
                _, place, taken, code, data, complained = line.split(" ")
                self._complain(base64.b64decode(complained).decode("utf-8", "replace"))
                self._take(int(place), int(taken), code, base64.b64decode(data))

    def _take(self, place: int, taken: int, code: str, data: bytes) -> None:
        self._lines += 1
        self._taken = max(self._taken, taken)
        fresh = data[max(0, self._received - place) :]
        if place <= self._received:  # beyond it lies what a lost connection swallowed, and what will be sent again
            if fresh:
                self._received += len(fresh)
                self._chunks.append(fresh)
            if code != "-":
                self._end("" if code == "0" else f"[ended with {code}]")
        self._changed.set()

    def _complain(self, text: str) -> None:
        self._complaint = f"{self._complaint}{text}"[-_COMPLAINT:]

    def _fail(self, error: MachineError) -> None:
        known = error.evidence if isinstance(error, MachineLost) else None
        # "unknown" is what E2B answers for a program that is gone: that is an end.
        self._end(str(error), known if known is not None and known.cause != "unknown" else None)

    def _end(self, complaint: str = "", lost: Evidence | None = None) -> None:
        if not self._ended:
            self.lost = lost
            if complaint:
                self._complain(f"\n{complaint}")
        self._ended = True
        self._changed.set()


async def end_copies(sandbox: AsyncSandbox, machine: str) -> int:
    """In a sandbox made from another's memory, end the relays, and their programs, of machines other than ``machine``.

    They would wait for a controller that does not know of them. How many there were.

    Raises:
        MachineError
    """
    found = await call("list what runs in the sandbox", sandbox.commands.list(request_timeout=CALL_DEADLINE))
    copies = [str(one.pid) for one in found if one.envs.get(LABEL, machine) != machine]
    if copies:
        killing = sandbox.commands.run(f"kill -TERM {' '.join(copies)} || true", timeout=CALL_DEADLINE)
        await call("end copies of our own processes", killing)
    return len(copies)


@cache
def _relay_source() -> str:
    return (files("palmette.machines.e2b") / "relay.py").read_text("utf-8")
