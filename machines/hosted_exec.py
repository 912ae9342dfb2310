"""Run one command, or one chore, of a hosted machine to its burial, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import msgspec

from palmette.machines.capture import Capture
from palmette.machines.connection import Connection
from palmette.machines.contract import ExecResult, Limits, StreamName, TerminalSize
from palmette.machines.errors import CommandNotStarted, FileTooLarge, MachineLost
from palmette.machines.evidence import Evidence
from palmette.machines.hosted_process import Output
from palmette.machines.replies import exception, not_started, result
from palmette.machines.runner import wire
from palmette.machines.runner.keeper import EXEC_TAG, MACHINE_TAG, RUNNER_TAG
from palmette.machines.runner_records import Ending, Failed, Specification
from palmette.machines.session import Job, Session, SessionEnded
from palmette.machines.shelter import sheltered

MARGIN = 10.0
"""Seconds past a deadline that the runner has, to kill and to bury, before it is given up itself."""
SHELL = "/bin/sh"
_KEPT_INSIDE = 4 << 20
"""Bytes of a stream that the runner keeps; of more than that all is sent, and kept here."""


def command_of(
    command: str | Sequence[str],
    *,
    timeout: float,
    env: Mapping[str, str] | None,
    cwd: str,
    limits: Limits | None,
    terminal: TerminalSize | None = None,
    acknowledge: bool = False,
) -> Specification:
    """What the runner is to run.

    Raises:
        ValueError: an argument makes no sense.
        CommandNotStarted: there is no program in it.
    """
    if not (math.isfinite(timeout) and timeout > 0):
        raise ValueError(f"timeout must be a finite number of seconds > 0, got {timeout!r}")
    argv = [SHELL, "-c", command] if isinstance(command, str) else list(command)
    if not argv or not argv[0]:
        raise CommandNotStarted(f"a command needs a program, got {argv!r}")
    if taken := {MACHINE_TAG, EXEC_TAG, RUNNER_TAG} & (env or {}).keys():
        raise ValueError(f"{min(taken)} is how the machine finds its processes; env cannot set it")
    bounds: dict[str, int] = {}
    for name in ("memory", "cpu", "file_size", "processes") if limits is not None else ():
        value = getattr(limits, name)
        if value is None:
            continue
        if not 0 < value < 1 << 62:
            raise ValueError(f"limits.{name} must be > 0 and below 2**62 (or None for no limit), got {value}")
        bounds[name] = value
    return Specification(
        argv=argv,
        env=dict(env or {}),
        limits=bounds,
        cwd=cwd,
        timeout=timeout,
        terminal=None if terminal is None else (terminal.rows, terminal.columns),
        acknowledge=acknowledge,
    )


async def run(
    connection: Connection,
    session: Session,
    what: Specification,
    command: str | Sequence[str],
    *,
    stdin: bytes,
    max_output: int,
    on_output: Callable[[StreamName, bytes], None] | None,
) -> ExecResult:
    """A command with its output, as :meth:`Machine.exec <palmette.machines.contract.Machine.exec>` has it."""
    inside = on_output is None and max_output <= _KEPT_INSIDE
    if inside:
        what = msgspec.structs.replace(what, keep=max_output)
    collected = _Collected(max_output, None if inside else on_output, inside)
    with fitting(what):
        job = collected.job = session.start(
            what, collected.feed, data=stdin if len(stdin) <= wire.INLINE else b"", stream=len(stdin) > wire.INLINE
        )
    feeding = asyncio.create_task(_feed(job, stdin)) if len(stdin) > wire.INLINE else None
    try:
        ended = await conclude(connection, session, job, command, what, output=collected)
    finally:
        if feeding is not None:
            feeding.cancel()
            await asyncio.wait([feeding])
    return ended


async def conclude(
    connection: Connection,
    session: Session,
    job: Job,
    command: str | Sequence[str],
    what: Specification,
    *,
    output: _Collected | Output,
) -> ExecResult:
    """Wait until nothing of ``job`` lives; how it ended. Cancelled, it kills first.

    Raises:
        MachineLost, CommandNotStarted
    """
    doing = f"exec {_short(command)}"
    loop = asyncio.get_running_loop()
    began = loop.time()
    late = False
    try:
        done, _ = await asyncio.wait([job.ended], timeout=what.timeout + MARGIN)
        if not done:
            late = True
            session.abandon(f"{doing} should have been killed {MARGIN:g} s ago")
        ending = await job.ended
    except asyncio.CancelledError:
        job.kill()
        await sheltered(_buried(job))
        raise
    except SessionEnded:
        evidence = await connection.verdict(session)
        ending = None
    else:
        evidence = None
    if isinstance(output, _Collected):
        output.check()
        stdout, stderr, left_out = output.value()
    else:
        stdout, stderr, left_out = b"", b"", 0
    duration = loop.time() - began
    if ending is None:
        return ExecResult(
            exit_code=None,
            signal=9,
            stdout=stdout,
            stderr=stderr,
            timed_out=late,
            bytes_left_out=left_out,
            duration=duration,
            evidence=evidence,
        )
    if ending.failed is not None:
        raise not_started(ending.failed, what=_short(command), cwd=what.cwd, shell=isinstance(command, str))
    return result(ending, stdout=stdout, stderr=stderr, left_out=left_out, duration=duration)


async def chore(session: Session, doing: str, what: Specification, *, data: bytes, most: int) -> bytes:
    """A chore with its input, and what it answers.

    Raises:
        SessionEnded
        Exception: what it failed with.
    """
    answer = bytearray()
    failure = bytearray()
    too_large = False

    def feed(stream: StreamName, piece: bytes) -> None:
        nonlocal too_large
        if too_large:
            return
        (answer if stream == "stdout" else failure).extend(piece)
        job.give_credit(len(piece))
        if len(answer) > most or len(failure) > 1 << 16:  # it looks after that itself, but may lie
            too_large = True
            job.kill()

    job = session.start(what, feed, stream=bool(data))
    feeding = asyncio.create_task(_feed(job, data)) if data else None
    try:
        ending = await asyncio.shield(job.ended)
    except asyncio.CancelledError:
        job.kill()
        await sheltered(_buried(job))
        raise
    finally:
        if feeding is not None:
            feeding.cancel()
            await asyncio.wait([feeding])
    if ending.failed is not None:
        raise exception(doing, ending.failed)
    if too_large:
        raise FileTooLarge(f"{doing}: more than the {most} bytes came that were allowed; raise max_bytes")
    if ending.timed_out:
        raise MachineLost(f"{doing} took more than {what.timeout:g} s; the file system hangs, or is too slow")
    if failure:
        try:
            described = msgspec.convert(json.loads(failure), Failed)
        except (ValueError, msgspec.ValidationError):
            raise MachineLost(f"{doing} failed in the machine: {bytes(failure[-500:])!r}") from None
        raise exception(doing, described)
    if ending.code != 0:
        raise MachineLost(
            f"{doing} was killed in the machine (signal {ending.signal})",
            Evidence(cause=ending.evidence or "unknown", agents_doing=True),
        )
    return bytes(answer)


async def kill_jobs(connection: Connection, session: Session) -> None:
    """Kill all that runs, and wait until it is buried."""
    jobs = session.jobs
    for job in jobs:
        job.kill()
    if jobs:
        _, alive = await asyncio.wait([job.ended for job in jobs], timeout=MARGIN)
        if alive:
            session.abandon(f"{len(alive)} command(s) would not die")
            await connection.verdict(session)


class _Collected:
    """What came of a command's output."""

    def __init__(self, limit: int, on_output: Callable[[StreamName, bytes], None] | None, inside: bool) -> None:
        self._captures: dict[StreamName, Capture] = {"stdout": Capture(limit), "stderr": Capture(limit)}
        self._on_output = on_output
        self._inside = inside
        self._limit = 2 * limit
        self._came = 0
        self._error: Exception | None = None
        self.job: Job | None = None

    def feed(self, stream: StreamName, data: bytes) -> None:
        self._came += len(data)
        if self._inside and self._came > self._limit:
            raise wire.ProtocolError("more output came than was to be kept")
        self._captures[stream].feed(data)
        assert self.job is not None, "it was started"
        if not self._inside:
            self.job.give_credit(len(data))
        if self._on_output is not None and self._error is None:
            try:
                self._on_output(stream, data)
            except Exception as error:  # noqa: BLE001 - the caller's own, raised by check()
                self._error = error
                self.job.kill()

    def check(self) -> None:
        """Raises what ``on_output`` raised."""
        if self._error is not None:
            raise self._error

    def value(self) -> tuple[bytes, bytes, int]:
        """Both streams, and how many bytes are missing."""
        out, err = self._captures["stdout"], self._captures["stderr"]
        return out.value(), err.value(), out.left_out + err.left_out


class fitting:
    """A command that does not fit into one frame could not be executed either."""

    def __init__(self, what: Specification) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ValueError):
            size = max(map(len, self._what.argv or [""]))
            raise CommandNotStarted(
                f"the command could not be started: its longest argument has {size} characters, Linux takes 128 KiB; "
                "put() long input into a file or pass it as stdin"
            ) from error


async def _feed(job: Job, data: bytes) -> None:
    with suppress(BrokenPipeError, SessionEnded):  # whoever waits for the job learns of either
        await job.write(data)
        job.close_input()


async def _buried(job: Job) -> Ending | None:
    """Until its end, or its session's."""
    await asyncio.wait([job.ended], timeout=MARGIN)
    return None


def _short(command: str | Sequence[str]) -> str:
    text = repr(command if isinstance(command, str) else list(command))
    return text if len(text) <= 80 else text[:77] + "..."
