"""Processes of a local machine that one talks with: what the conformance kit does not ask."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

import pytest
from machines_support import running, until

from palmette.machines import CommandNotStarted, Limits, LocalMachine, MachineLost, TerminalSize

pytestmark = pytest.mark.usefixtures("containment")


async def test_what_is_written_before_the_loop_turns_is_read(machine: LocalMachine) -> None:
    process = await machine.open(["cat"])
    await process.write(b"one ")
    await process.write(b"two")
    await process.close_stdin()
    seen = b""
    while (piece := await process.read()) is not None:
        seen += piece[1]
    assert seen == b"one two"
    assert (await process.wait()).ok
    with pytest.raises(BrokenPipeError):
        await process.write(b"three")


async def test_a_process_that_nobody_reads_waits_and_one_that_somebody_awaits_does_not(machine: LocalMachine) -> None:
    process = await machine.open("head -c 5000000 /dev/zero; touch done; exit 3")
    await until(lambda: bool(running("5000000")), "the process")
    await asyncio.sleep(0.05)
    assert await machine.list() == []
    assert (await process.wait()).exit_code == 3
    assert await machine.list() == ["done"]


async def test_a_reader_gets_every_byte_although_others_wait(machine: LocalMachine) -> None:
    process = await machine.open("head -c 5000000 /dev/zero")
    waiting = asyncio.create_task(process.wait())
    total = 0
    while (piece := await process.read()) is not None:
        total += len(piece[1])
    assert total == 5_000_000
    assert (await waiting).ok


async def test_a_terminal_is_the_controlling_one(machine: LocalMachine) -> None:
    process = await machine.open("tty; echo to >/dev/tty; read word", terminal=TerminalSize(rows=5, columns=50))
    seen = b""
    while b"to\r\n" not in seen:
        seen += ((await process.read()) or pytest.fail(f"it ended after {seen!r}"))[1]
    assert seen.startswith(b"/dev/pts/")
    await process.write(b"\x03")
    assert (await process.wait()).signal == 2


async def test_with_limits_too_a_missing_program_is_told_when_it_is_opened(machine: LocalMachine) -> None:
    process = await machine.open("ulimit -Sf 10; true", limits=Limits(file_size=1 << 20))
    assert (await process.wait()).ok
    with pytest.raises(CommandNotStarted):
        await machine.open(["no-such-program"], limits=Limits(file_size=1 << 20))


async def test_a_stop_ends_what_was_opened_and_who_talks_with_it_learns_of_that(
    started: Callable[[], LocalMachine],
) -> None:
    machine = started()
    await machine.start()
    word = f"1000.{secrets.randbelow(10**9)}"
    process = await machine.open(f"setsid sleep {word} & sleep {word}")
    reading = asyncio.create_task(process.read())
    await until(lambda: len(running(word)) == 2, "the sleeps")
    await machine.stop()
    assert running(word) == []
    with pytest.raises(MachineLost, match="stopped"):
        await process.wait()
    with pytest.raises(MachineLost, match="stopped"):
        await reading
