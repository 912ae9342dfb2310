"""Processes that one talks with, alone and many at a time."""

from __future__ import annotations

import asyncio

from palmette.machines.conformance.kills import BEAT, beats, expect_dead, has_begun
from palmette.machines.conformance.kit import Bed, check, expect, expect_equal, expect_raises, until
from palmette.machines.contract import Process, StreamName, TerminalSize
from palmette.machines.errors import CommandNotStarted


async def read_all(process: Process) -> dict[StreamName, bytes]:
    """Both streams to their ends."""
    streams: dict[StreamName, bytes] = {"stdout": b"", "stderr": b""}
    while (piece := await process.read()) is not None:
        streams[piece[0]] += piece[1]
    return streams


async def read_until(process: Process, word: bytes) -> bytes:
    """Standard output up to where ``word`` is in it."""
    seen = b""
    while word not in seen:
        piece = await process.read()
        expect(piece is not None, f"the output ended before {word!r} came; it was {seen[-200:]!r}")
        assert piece is not None
        seen += piece[1]
    return seen


@check("One can talk with a process: what is written is read, what it prints comes at once.")
async def conversation(bed: Bed) -> None:
    process = await bed.machine.open('while read line; do echo "<$line>"; done')
    for word in (b"one", b"two"):
        await process.write(word + b"\n")
        await read_until(process, b"<" + word + b">\n")
    await process.close_stdin()
    expect_equal(await read_all(process), {"stdout": b"", "stderr": b""}, "what was left to read")
    result = await process.wait()
    expect_equal((result.exit_code, result.stdout), (0, b""), "the result")


@check("A process's bytes are exact, both ways, also by the megabyte.")
async def binary_conversation(bed: Bed) -> None:
    data = bytes(range(256)) * 8192
    process = await bed.machine.open("cat")

    async def feed() -> None:
        for start in range(0, len(data), 100_000):
            await process.write(data[start : start + 100_000])
        await process.close_stdin()

    _, streams = await asyncio.gather(feed(), read_all(process))
    expect(streams["stdout"] == data, f"{len(streams['stdout'])} bytes came back that are not the {len(data)} written")
    await process.wait()


@check("A process that cannot start says so when it is opened.")
async def unstartable(bed: Bed) -> None:
    await expect_raises(CommandNotStarted, bed.machine.open(["palmette-no-such-program"]))


@check("A process can be killed, with all that it started; twice is fine.")
async def killable(bed: Bed) -> None:
    process = await bed.machine.open(f"setsid sh -c '{BEAT}' & wait")
    await until(lambda: has_begun(bed.machine), "the process's beginning")
    await process.kill()
    await process.kill()
    result = await process.wait()
    expect(result.signal == 9 and not result.timed_out, f"its end is {result}")
    await expect_dead(bed.machine)


@check("A process ends at its deadline.")
async def process_deadline(bed: Bed) -> None:
    process = await bed.machine.open("echo begun; sleep 60", timeout=0.5)
    expect_equal((await read_all(process))["stdout"], b"begun\n", "the output")
    expect((await process.wait()).timed_out, "it has not timed out")


@check("Any number may wait for a process, before and after its end.")
async def many_wait(bed: Bed) -> None:
    process = await bed.machine.open("sleep 0.2; exit 9")
    first, second = await asyncio.gather(process.wait(), process.wait())
    last = await process.wait()
    expect_equal((first.exit_code, second.exit_code, last.exit_code), (9, 9, 9), "the exit codes")


@check("Writing to a process that has ended is a BrokenPipeError; reading is the end.")
async def after_the_end(bed: Bed) -> None:
    process = await bed.machine.open("true")
    await process.wait()

    async def insist() -> None:
        for _ in range(100):
            await process.write(b"x" * 1000)
            await asyncio.sleep(0.01)

    await expect_raises(BrokenPipeError, insist())
    expect_equal(await process.read(), None, "what is read")


@check("A process whose output nobody reads is held up, and costs no more memory.")
async def held_up(bed: Bed) -> None:
    process = await bed.machine.open("while :; do head -c 1000000 /dev/zero; echo x >>beats; done")
    await asyncio.sleep(0.5)
    first = await beats(bed.machine)
    await asyncio.sleep(0.3)
    expect(await beats(bed.machine) == first and first < 200, f"it has printed {first // 2} MB into the void")
    await process.kill()
    await process.wait()


@check("With a terminal, a process has one, of the size that was asked for, and it can be resized.")
async def terminal(bed: Bed) -> None:
    process = await bed.machine.open(
        "test -t 0 && test -t 1 && test -t 2 && echo tty; stty size; read word; stty size",
        terminal=TerminalSize(rows=40, columns=100),
    )
    seen = await read_until(process, b"40 100")
    expect(b"tty" in seen, f"it has no terminal: {seen!r}")
    await process.resize(TerminalSize(rows=50, columns=132))
    await process.write(b"go\n")
    await read_until(process, b"50 132")
    await read_all(process)
    expect_equal((await process.wait()).exit_code, 0, "the exit code")


@check("A terminal can carry an interactive shell, with its interrupt key.")
async def interactive(bed: Bed) -> None:
    process = await bed.machine.open(["sh", "-i"], terminal=TerminalSize(), env={"PS1": "ready> ", "TERM": "dumb"})
    await read_until(process, b"ready> ")
    await process.write(b"sleep 60\n")
    await asyncio.sleep(0.3)
    await process.write(b"\x03")
    await process.write(b"echo al''ive\n")
    await read_until(process, b"alive")
    await process.write(b"exit 7\n")
    await read_all(process)
    expect_equal((await process.wait()).exit_code, 7, "the exit code")


@check("Thirty commands at a time each get their own input and output.")
async def at_a_time(bed: Bed) -> None:
    results = await asyncio.gather(
        *(bed.machine.exec("cat; echo $N >&2", stdin=b"%d" % n, env={"N": str(n)}) for n in range(30))
    )
    wanted = [(b"%d" % n, b"%d\n" % n) for n in range(30)]
    expect_equal([(result.stdout, result.stderr) for result in results], wanted, "the outputs")


@check("A slow command holds up nobody, nor does one that floods.")
async def independent(bed: Bed) -> None:
    slow = await bed.machine.open("sleep 60")
    flood = await bed.machine.open("yes")
    async with asyncio.timeout(20.0):
        for _ in range(10):
            expect((await bed.machine.exec("true")).ok, "a quick command failed")
    for process in (slow, flood):
        await process.kill()
        await process.wait()


@check("A process serves, and other commands are its clients.")
async def server(bed: Bed) -> None:
    process = await bed.machine.open('mkfifo ask answer; while read line <ask; do echo "got $line" >answer; done')

    async def is_there() -> bool:
        return "answer" in await bed.machine.list()

    await until(is_there, "the server's beginning")
    result = await bed.machine.exec("echo hello >ask; cat answer", timeout=20.0)
    expect_equal(result.stdout, b"got hello\n", "the answer")
    await process.kill()
    await process.wait()
