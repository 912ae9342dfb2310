"""Actors for the tests of process nodes. In a module of their own: node processes import it."""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import datetime
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import msgspec

from palmette.actors import (
    Actor,
    ActorDied,
    ActorError,
    Decline,
    Down,
    Exit,
    MailboxFull,
    Reason,
    Ref,
    Refused,
    Shutdown,
    deadline,
    endpoint,
)
from palmette.supervisors import Supervisor, child

if TYPE_CHECKING:
    from decimal import Decimal


class Point(msgspec.Struct, frozen=True):
    x: int
    y: int = 0


class Plain(msgspec.Struct, frozen=True):
    at: datetime.datetime
    points: tuple[Point, ...]
    names: frozenset[str]
    by_id: dict[int, Point | None]
    blob: bytes


class Tell(msgspec.Struct, frozen=True):
    """Sent to an actor's ``receive``."""

    text: str
    reply_to: Ref[object] | None = None


class Unwilling(Refused):
    """A refusal of the tests' own."""


class Worker(Actor):
    """Does as it is told, in whatever process it lives."""

    def __init__(self, tag: str = "", point: Point | None = None) -> None:
        self.tag = tag
        self.point = point
        self.seen: list[str] = []

    async def receive(self, message: object) -> None:
        match message:
            case Tell(text, reply_to):
                self.seen.append(text)
                if reply_to is not None:
                    reply_to.send(Tell(f"{text}, from {self.tag}"))
            case Down(ref, reason):
                self.seen.append(f"down {ref.path} {type(reason).__name__}")
            case Exit(ref, reason):
                self.seen.append(f"exit {ref.path} {type(reason).__name__}")
            case _:
                await super().receive(message)

    # --- values ------------------------------------------------------------------------------------------------

    @endpoint
    async def pid(self) -> int:
        return os.getpid()

    @endpoint
    async def loop_module(self) -> str:
        return type(asyncio.get_running_loop()).__module__

    @endpoint
    async def log(self) -> list[str]:
        return self.seen

    @endpoint
    async def note(self, text: str) -> None:
        self.seen.append(text)

    @endpoint
    async def mirror(self, point: Point, *, times: int = 1) -> list[Point]:
        assert isinstance(point, Point)
        return [point] * times

    @endpoint
    async def plain(self, plain: Plain) -> Plain:
        assert isinstance(plain, Plain)
        return plain

    @endpoint
    async def started_with(self) -> tuple[str, Point | None]:
        return self.tag, self.point

    @endpoint
    async def blob(self, data: bytes) -> bytes:
        return data

    @endpoint
    async def anything(self, value: object) -> object:
        return value

    @endpoint
    async def unsendable(self) -> object:
        return self

    @endpoint
    async def lies(self) -> int:
        return "not a number"  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

    @endpoint
    async def spread(self, *numbers: int) -> int:
        return sum(numbers)

    @endpoint
    async def price(self, value: Decimal) -> None: ...

    @endpoint
    async def refuse(self) -> None:
        raise Unwilling("not today")

    # --- others ------------------------------------------------------------------------------------------------

    @endpoint
    async def me(self) -> Ref[Worker]:
        return self.ref

    @endpoint
    async def ask(self, other: Ref[Worker], text: str) -> tuple[int, Ref[Worker]]:
        """Call ``other`` from here; its process id, and a reference back to it."""
        await other.call(Worker.note, text)
        return await other.call(Worker.pid), other

    @endpoint
    async def poke(self, other: Ref[Worker], text: str) -> None:
        other.cast(Worker.note, f"cast {text}")
        other.send(Tell(f"send {text}", self.ref))

    @endpoint
    async def crash_other(self, other: Ref[Worker]) -> str:
        """What a caller in this process learns."""
        try:
            await other.call(Worker.crash, "because")
        except ActorDied as error:
            return str(error)
        return "nothing"

    @endpoint
    async def flood(self, other: Ref[Worker], megabytes: int) -> None:
        """Cast more at ``other`` than anybody should, slowly enough for the link from here."""
        while megabytes:
            try:
                other.cast(Worker.note, "x" * (1 << 20))
            except MailboxFull:
                await asyncio.sleep(0.005)
            else:
                megabytes -= 1

    @endpoint
    async def watch(self, other: Ref[Worker]) -> None:
        self.monitor(other)

    @endpoint
    async def tie(self, other: Ref[Worker], trap: bool = False) -> None:
        self.trap_exit = trap
        self.link(other)

    @endpoint
    async def untie(self, other: Ref[Worker]) -> None:
        self.unlink(other)

    @endpoint
    async def find(self, name: str) -> Ref[Worker] | None:
        try:
            return await self.system.lookup(name, Worker)
        except ActorDied:
            return None

    @endpoint
    async def attempt(self, other: Ref[Worker], seconds: float = 5.0, *, takes: float = 60.0) -> str:
        """Call ``other`` from here; what comes of it."""
        try:
            with deadline(seconds):
                return await other.call(Worker.sleep, takes)
        except ActorError as error:
            return f"{type(error).__name__}: {error}"

    @endpoint
    async def ask_in_time(self, other: Ref[Worker], seconds: float) -> float:
        """Have ``other`` say how much time it was left."""
        with deadline(seconds):
            return await other.call(Worker.patience)

    @endpoint
    async def patience(self) -> float:
        from palmette.actors import time_left

        left = time_left()
        assert left is not None
        return left

    # --- trouble -----------------------------------------------------------------------------------------------

    @endpoint
    async def crash(self, text: str) -> None:
        raise LookupError(text)

    @endpoint
    async def exit_python(self, hard: bool) -> None:
        if hard:
            os._exit(3)
        sys.exit("I have had enough")

    @endpoint
    async def exit_loose(self) -> None:
        """Leave by way of a task that no actor owns."""

        async def leave() -> None:
            sys.exit("nobody's task")

        self.loose = asyncio.ensure_future(leave())

    @endpoint
    async def segfault(self) -> None:
        ctypes.string_at(0)

    @endpoint
    async def block(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - that is the point

    @endpoint
    async def sleep(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        self.seen.append("slept")
        return "late"

    @endpoint
    async def fork(self) -> int:
        """Start a process by fork, the way data loaders do; it inherits all that is open here."""
        with_fork = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=True)
        with_fork.start()
        assert with_fork.pid is not None
        return with_fork.pid

    @endpoint
    async def run_program(self) -> tuple[int, str]:
        """Start a program in this process's group, and look at its environment."""
        script = "import os, sys; print(os.environ.get('PYTHONPATH'), flush=True); sys.stdin.read()"
        program = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert program.stdout is not None
        self.program = program
        return program.pid, program.stdout.readline().strip()

    @endpoint
    async def run_async(self, text: str) -> str:
        """Have a program say ``text``, by way of the loop."""
        program = await asyncio.create_subprocess_exec("echo", text, stdout=asyncio.subprocess.PIPE)
        said, _ = await program.communicate()
        assert program.returncode == 0
        return said.decode().strip()

    @endpoint
    async def at_exit(self, file: str, hang: bool) -> None:
        """Leave something to do for the end of the process."""

        def tidy() -> None:
            open(file, "w").close()
            if hang:
                time.sleep(60)

        atexit.register(tidy)

    @endpoint
    async def say(self, text: str) -> None:
        print(f"{text} to stdout")
        print(f"{text} to stderr", file=sys.stderr)

    @endpoint
    async def warn(self, text: str, from_thread: bool = False) -> None:
        def log() -> None:
            logger = logging.getLogger("tests.of.nodes")
            logger.info("%s, quietly", text)
            try:
                raise OSError("disk on fire")
            except OSError:
                logger.warning("%s, loudly", text, exc_info=True)

        if from_thread:
            thread = threading.Thread(target=log)
            thread.start()
            thread.join()
        else:
            log()

    @endpoint
    async def open_files(self) -> list[str]:
        return [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if fd.isdigit() and _there(fd)]


def _there(descriptor: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{descriptor}")


class Marking(Worker):
    """Writes into a file when it stops; may take its time, or block."""

    def __init__(self, file: str, seconds: float = 0.0, block: bool = False) -> None:
        super().__init__(file)
        self.seconds = seconds
        self.blocks = block

    async def stopping(self, reason: Reason) -> None:
        with open(self.tag, "a") as file:  # noqa: ASYNC230
            file.write(f"{self.path} {type(reason).__name__} {os.getpid()}\n")
        if self.blocks:
            time.sleep(self.seconds)  # noqa: ASYNC251
        else:
            await asyncio.sleep(self.seconds)


class BadInit(Actor):
    def __init__(self, how: str) -> None:
        match how:
            case "raise":
                raise ValueError("no such model: gpt-0")
            case "exit":
                sys.exit("no")
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "decline":
                raise Decline("this machine has no GPU")
            case _:
                pass


class SlowStart(Actor):
    def __init__(self, block: bool) -> None:
        self.block = block

    async def started(self) -> None:
        if self.block:
            time.sleep(60)  # noqa: ASYNC251
        await asyncio.sleep(60)


class Early(Worker):
    """Gets messages before it has started: it gives its address away in ``__init__``."""

    def __init__(self, friend: Ref[Worker]) -> None:
        super().__init__("early")
        friend.send(Tell("hello", self.ref))

    async def started(self) -> None:
        await asyncio.sleep(0.05)


class Team(Supervisor):
    """A supervisor that brings its own children, in whatever process it lives."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(
            max_restarts=100, children=[child(Worker, tag=name, name=name, register=f"team-{name}") for name in names]
        )


class Graceful(Actor):
    """Ends by itself."""

    @endpoint
    async def finish(self) -> None:
        self.stop(Shutdown("done"))
