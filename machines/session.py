"""One conversation with a runner, from its first frame to the end of its channel.

A :class:`Session` ends once, for whatever reason, and everybody who waits on it gets :class:`SessionEnded`: it does not
know what the end means. Its owner (:class:`~palmette.machines.hosted.HostedMachine`) asks the backend.

Nothing written is ever cut by a cancellation: frames go into a queue that one task writes. What may wait there is
bounded, by the credit of each job's input and the size of a request.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TypeVar, cast

import msgspec

from palmette.machines.backend import Channel, Place
from palmette.machines.contract import StreamName
from palmette.machines.evidence import Evidence
from palmette.machines.runner import wire
from palmette.machines.runner_records import End, Ending, Greeting, Reply, Specification

T = TypeVar("T")


AGAIN = 0.5
"""Seconds that what was cancelled has to end, before it is cancelled once more."""


class SessionEnded(Exception):
    """No more will be heard of the runner. The text says what was seen."""


class Job:
    """One job of a session, from here. Its output goes to ``on_output``, in the session's own task."""

    def __init__(self, session: Session, number: int, on_output: Callable[[StreamName, bytes], None]) -> None:
        loop = asyncio.get_running_loop()
        self.number = number
        self.on_output = on_output
        self.started: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[Ending] = loop.create_future()
        self.on_silence: Callable[[], None] = lambda: None
        """Called when both streams have ended."""
        self._session = session
        self._room = wire.INPUT_WINDOW
        self._taken = 0
        self._input_gone = False
        self._room_came = asyncio.Event()

    def kill(self) -> None:
        """Twice, or after its end, is fine."""
        self._session.send(wire.KILL, self.number)

    def resize(self, rows: int, columns: int) -> None:
        self._session.send_json(wire.RESIZE, self.number, [rows, columns])

    def give_credit(self, taken: int) -> None:
        """So many bytes of output are dealt with. The runner is told by the quarter window."""
        self._taken += taken
        if self._taken >= wire.OUTPUT_WINDOW // 4:
            self._session.send_json(wire.CREDIT, self.number, self._taken)
            self._taken = 0

    async def write(self, data: bytes | memoryview) -> None:
        """Raises BrokenPipeError when it has ended or reads no more, SessionEnded."""
        view = memoryview(data)
        while True:
            self._session.check()
            if self._input_gone or self.ended.done():
                raise BrokenPipeError(f"the command has ended or closed its input, {len(view)} bytes were not written")
            if not view:
                return
            if self._room > 0:
                piece = view[: min(self._room, wire.PIECE)]
                view = view[len(piece) :]
                self._room -= len(piece)
                self._session.send(wire.STDIN, self.number, bytes(piece))
            else:
                self._room_came.clear()
                await self._room_came.wait()

    def close_input(self) -> None:
        self._session.send(wire.CLOSE_STDIN, self.number)

    def hear(self, kind: int, payload: bytes) -> None:
        """A frame of the runner."""
        if kind == wire.OUT:
            self.on_output("stdout", payload)
        elif kind == wire.ERR:
            self.on_output("stderr", payload)
        elif kind == wire.STDIN_TAKEN:
            taken = wire.parse(payload)
            if not isinstance(taken, int) or not 0 <= taken <= wire.INPUT_WINDOW:
                raise wire.ProtocolError(f"{taken!r} bytes of input were taken")
            self._room = min(self._room + taken, wire.INPUT_WINDOW)
            self._room_came.set()
        elif kind == wire.STDIN_GONE:
            self._input_gone = True
            self._room_came.set()
        elif kind == wire.OUTPUT_ENDED:
            self.on_silence()
        elif kind == wire.STARTED:
            if not self.started.done():
                self.started.set_result(None)
        elif kind == wire.ENDED:
            self._end(_convert(wire.parse(payload), Ending))

    def _end(self, ending: Ending) -> None:
        self._room_came.set()
        self.on_silence()
        if not self.started.done():
            self.started.set_result(None)
        if not self.ended.done():
            self.ended.set_result(ending)

    def lose(self, error: SessionEnded) -> None:
        """The session is over."""
        self._room_came.set()
        self.on_silence()
        for future in (self.started, self.ended):
            if not future.done():
                future.set_exception(error)
            with suppress(asyncio.CancelledError):
                future.exception()  # whoever waits will see it; nobody has to


class Session:
    """A runner at the other end of ``channel``, greeted."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._numbers = itertools.count(1)
        self._jobs: dict[int, Job] = {}
        self._calls: dict[int, asyncio.Future[Reply]] = {}
        self._greeting: asyncio.Future[Greeting] = asyncio.get_running_loop().create_future()
        self._outgoing: list[bytes] = []
        self._outgoing_came = asyncio.Event()
        self.heard_at = asyncio.get_running_loop().time()
        """When the last byte came from the runner, on the loop's clock."""
        self._tasks: list[asyncio.Task[None]] = []
        self.ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self.verdict: asyncio.Future[Evidence] = asyncio.get_running_loop().create_future()
        """What its end means; its owner says so."""

    @classmethod
    async def open(cls, channel: Channel, source: bytes, machine: str, place: Place) -> tuple[Session, Greeting]:
        """Send the runner, and wait for its first word. The caller sets a deadline.

        Raises:
            SessionEnded: the channel ended first.
        """
        session = cls(channel)
        session._outgoing.append(source)
        session.send_json(
            wire.CONFIGURE,
            0,
            {
                "machine": machine,
                "workdir": place.workdir,
                "root": place.root,
                "temporary": place.temporary,
                "lease": place.lease,
                "lease_file": place.lease_file,
                "environment": place.environment,
            },
        )
        session._start(session._read())
        session._start(session._write())
        try:
            return session, await asyncio.shield(session._greeting)
        except BaseException:
            await session.close()
            raise

    @property
    def complaint(self) -> str:
        return self._channel.complaint

    def check(self) -> None:
        """Raises SessionEnded."""
        if self.ended.done():
            raise SessionEnded(self.ended.result().seen)

    def send(self, kind: int, number: int, payload: bytes = b"") -> None:
        """Queue a frame. After the end it goes nowhere."""
        if not self.ended.done():
            self._outgoing.append(wire.frame(kind, number, payload))
            self._outgoing_came.set()

    def send_json(self, kind: int, number: int, value: object) -> None:
        self.send(kind, number, wire.json_frame(kind, number, value)[wire.HEADER.size :])

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for an answer of the runner's."""
        return bool(self._jobs or self._calls)

    @property
    def jobs(self) -> list[Job]:
        """Those that run."""
        return list(self._jobs.values())

    def start(
        self,
        what: Specification,
        on_output: Callable[[StreamName, bytes], None],
        *,
        data: bytes = b"",
        stream: bool = False,
    ) -> Job:
        """Start a job. ``data``, at most INLINE bytes, is its input, or the beginning of it (``stream``).

        Raises:
            SessionEnded
            ValueError: it does not fit into a frame.
        """
        self.check()
        number = next(self._numbers)
        head = cast("dict[str, object]", msgspec.structs.asdict(what))
        head["input"] = "stream" if stream else "data" if data else ""
        payload = wire.pack(head, data)
        job = Job(self, number, on_output)
        self.send(wire.START, number, payload)
        self._jobs[number] = job
        return job

    async def call(self, head: dict[str, object], data: bytes = b"") -> Reply:
        """A request that is answered at once. Raises SessionEnded."""
        self.check()
        number = next(self._numbers)
        payload = wire.pack(head, data)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._calls[number] = future
        self.send(wire.CALL, number, payload)
        return await future

    def ping(self) -> None:
        """Ask the runner for a sign of life, which renews its lease."""
        self.send(wire.PING, 0)

    def abandon(self, seen: str) -> None:
        """The runner does not do what it should: have no more of it."""
        self._finish(End(seen))

    async def close(self, *, linger: float = 0.0) -> None:
        """End the conversation: the runner kills what runs and ends. ``linger``: seconds to wait until it has."""
        self._finish(End("it was closed"))
        if linger:
            self._outgoing.append(wire.frame(wire.END_ALL, 0))
            self._outgoing_came.set()
            await asyncio.wait(self._tasks, timeout=linger, return_when=asyncio.FIRST_COMPLETED)
        left = set(self._tasks)
        while left:
            for task in left:
                task.cancel()
            # An SDK in the middle of a request may swallow a cancellation (seen with e2b's): then it is said again.
            _, left = await asyncio.wait(left, timeout=AGAIN)
        await self._channel.close()

    def _start(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        task.add_done_callback(self._task_ended)
        self._tasks.append(task)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._finish(End(f"its channel failed: {type(error).__name__}: {error}"))

    async def _read(self) -> None:
        decoder = wire.Decoder(wire.FROM_RUNNER)
        try:
            while data := await self._channel.read():
                self.heard_at = asyncio.get_running_loop().time()
                for kind, number, payload in decoder.feed(data):
                    self._hear(kind, number, payload)
            self._finish(End("the runner's channel ended"))
        except (wire.ProtocolError, msgspec.ValidationError) as error:
            self._finish(End(f"the runner's channel carries what the runner did not write ({error})", forged=True))

    async def _write(self) -> None:
        while True:
            await self._outgoing_came.wait()
            self._outgoing_came.clear()
            pieces, self._outgoing = self._outgoing, []
            try:
                await self._channel.write(b"".join(pieces))
            except ConnectionError as error:
                # What it said before is still to be read: the reader ends the session.
                await asyncio.wait([self.ended], timeout=1.0)
                self._finish(End(f"the runner's channel takes nothing more ({error})"))
                return

    def _hear(self, kind: int, number: int, payload: bytes) -> None:
        if self.ended.done():
            return
        if kind == wire.HELLO:
            greeting = _convert(wire.parse(payload), Greeting)
            if not self._greeting.done():
                self._greeting.set_result(greeting)
        elif kind == wire.REPLY:
            call = self._calls.get(number)
            if call is None:
                raise wire.ProtocolError(f"an answer to call {number}, which nobody made")
            head, data = wire.unpack(payload)
            reply = _convert({**head, "data": data}, Reply)
            del self._calls[number]  # not before: an answer that cannot be read ends the session, and this call with it
            if not call.done():
                call.set_result(reply)
        elif kind == wire.EXPIRED:
            self._finish(End("its lease ran out", expired=True))
        elif kind != wire.PONG:
            job = self._jobs.get(number)
            if job is None:
                raise wire.ProtocolError(f"news of job {number}, which does not run")
            job.hear(kind, payload)
            if kind == wire.ENDED:
                del self._jobs[number]

    def _finish(self, end: End) -> None:
        if self.ended.done():
            return
        self.ended.set_result(end)
        error = SessionEnded(end.seen)
        for job in self._jobs.values():
            job.lose(error)
        self._jobs.clear()
        for future in (self._greeting, *self._calls.values()):
            if not future.done():
                future.set_exception(error)
                future.exception()
        self._calls.clear()


def _convert(value: object, wanted: type[T]) -> T:
    return msgspec.convert(value, wanted)
