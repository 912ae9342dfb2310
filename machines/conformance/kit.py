"""The conformance kit's frame: what a check is, how checks are run against a backend, and the report."""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from palmette.machines.contract import Machine
from palmette.machines.errors import MachineError

CHECK_SECONDS = 60.0
"""Deadline of one check: no promise takes longer to keep."""

MakeMachine = Callable[[], Machine]
"""Makes a machine that is not started yet."""


class Broken(Exception):
    """A promise is not kept; the text says what happened instead."""


class NotPromised(Exception):
    """The backend does not claim to do this, and says so; the text says what it lacks."""


class Bed:
    """What a check works with: a started, empty machine, and the means to get more of them."""

    def __init__(self, make: MakeMachine, machine: Machine) -> None:
        self.make = make
        self.machine = machine

    @asynccontextmanager
    async def another(self) -> AsyncGenerator[Machine]:
        """A further machine, started, and stopped at the end of the block."""
        machine = self.make()
        await machine.start()
        try:
            yield machine
        finally:
            await machine.stop()


Body = Callable[[Bed], Awaitable[None]]


class Check(msgspec.Struct, frozen=True):
    """One promise, and how to find out whether it is kept."""

    name: str
    promise: str
    group: str
    body: Body


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """How one check went."""

    name: str
    group: str
    promise: str
    verdict: Literal["kept", "broken", "not promised"]
    detail: str = ""
    seconds: float = 0.0


class ConformanceReport(msgspec.Struct, frozen=True, kw_only=True):
    """All checks, in order."""

    image: str
    results: tuple[CheckResult, ...]

    @property
    def ok(self) -> bool:
        """Whether no promise is broken."""
        return not self.broken

    @property
    def kept(self) -> int:
        return sum(result.verdict == "kept" for result in self.results)

    @property
    def broken(self) -> tuple[CheckResult, ...]:
        return tuple(result for result in self.results if result.verdict == "broken")

    @property
    def not_promised(self) -> tuple[CheckResult, ...]:
        return tuple(result for result in self.results if result.verdict == "not promised")


CHECKS: list[Check] = []
"""All of them, in the order of their definition."""


def check(promise: str) -> Callable[[Body], Body]:
    """Make a coroutine function a check; ``promise`` is a sentence about what every machine does."""

    def add(body: Body) -> Body:
        group = body.__module__.rpartition(".")[2]
        CHECKS.append(Check(body.__name__, promise, group, body))
        return body

    return add


def expect(condition: object, otherwise: str) -> None:
    """Raise :class:`Broken` unless ``condition`` holds."""
    if not condition:
        raise Broken(otherwise)


def expect_equal(got: object, wanted: object, what: str) -> None:
    """Raise :class:`Broken` unless the two are equal."""
    if got != wanted:
        raise Broken(f"{what} is {_short(got)}, should be {_short(wanted)}")


async def expect_raises(kind: type[BaseException] | tuple[type[BaseException], ...], work: Awaitable[object]) -> str:
    """Raise :class:`Broken` unless ``work`` raises ``kind``; the error's text."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    names = " or ".join(each.__name__ for each in kinds)
    try:
        value = await work
    except kinds as error:
        return str(error)
    except Exception as error:
        raise Broken(f"raised {type(error).__name__} ({_short(error)}), should raise {names}") from error
    raise Broken(f"returned {_short(value)}, should raise {names}")


async def until(look: Callable[[], Awaitable[bool]], what: str, *, seconds: float = 20.0) -> None:
    """Wait until ``look`` says yes. Raises :class:`Broken` if it does not in time."""
    try:
        async with asyncio.timeout(seconds):
            while not await look():  # noqa: ASYNC110 - what happens inside a machine sets no event here
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise Broken(f"{what} did not happen within {seconds:g} s") from None


@contextmanager
def host_secret() -> Generator[tuple[str, bytes]]:
    """A directory of the controller's host that holds one file, ``file``, and what is in the file.

    Raises :class:`Broken` if something has touched it.
    """
    secret = f"secret {secrets.token_hex(8)}".encode()
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "file").write_bytes(secret)
        yield directory, secret
        expect_equal(os.listdir(directory), ["file"], "a directory of the controller's host")
        expect_equal(Path(directory, "file").read_bytes(), secret, "a file of the controller's host")


async def steady(look: Callable[[], Awaitable[object]], *, seconds: float = 0.3) -> bool:
    """Whether what ``look`` sees stays the same for ``seconds``."""
    before = await look()
    await asyncio.sleep(seconds)
    return await look() == before


async def run_checks(
    make: MakeMachine,
    image: str,
    checks: list[Check],
    *,
    at_once: int = 1,
    on_result: Callable[[CheckResult], None] | None = None,
) -> ConformanceReport:
    """Run ``checks`` on ``at_once`` machines; each is reset before a check, and replaced where one has broken it."""
    results: dict[str, CheckResult] = {}
    todo = iter(checks)

    async def work() -> None:
        machine: Machine | None = None
        try:
            for each in todo:
                machine = await _ready(machine, make)
                results[each.name] = await _run(each, Bed(make, machine))
                if on_result is not None:
                    on_result(results[each.name])
        finally:
            if machine is not None:
                await machine.stop()

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())
    return ConformanceReport(image=image, results=tuple(results[each.name] for each in checks))


async def _ready(machine: Machine | None, make: MakeMachine) -> Machine:
    """``machine``, empty; or another one, where the last check has left it unfit."""
    if machine is not None:
        try:
            await machine.reset()
            return machine
        except (MachineError, OSError):
            await machine.stop()
    machine = make()
    await machine.start()
    return machine


async def _run(each: Check, bed: Bed) -> CheckResult:
    begun = time.monotonic()
    verdict: Literal["kept", "broken", "not promised"] = "kept"
    detail = ""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await each.body(bed)
    except NotPromised as error:
        verdict, detail = "not promised", str(error)
    except Broken as error:
        verdict, detail = "broken", str(error)
    except TimeoutError:
        verdict, detail = "broken", f"took longer than {CHECK_SECONDS:g} s"
    except Exception as error:  # noqa: BLE001 - what a backend raises where it should not is what the report is about
        verdict, detail = "broken", f"raised {type(error).__name__}: {_short(error)}"
    return CheckResult(
        name=each.name,
        group=each.group,
        promise=each.promise,
        verdict=verdict,
        detail=detail,
        seconds=time.monotonic() - begun,
    )


def _short(value: object) -> str:
    text = str(value) if isinstance(value, BaseException) else repr(value)
    return text if len(text) <= 300 else f"{text[:200]}…{text[-80:]}"
