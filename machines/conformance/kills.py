"""Ends: when a command is over, however it came to be over, nothing of it runs on.

A process that should be dead is found out by what it does: it writes to a file twenty times a second, and the file
stops growing. So nothing can hide by leaving its group, its session, its parent or its environment.
"""

from __future__ import annotations

import asyncio

from palmette.machines.conformance.kit import Bed, Broken, check, expect, expect_equal, expect_raises, steady, until
from palmette.machines.contract import Machine

BEAT = "while :; do echo beat >>beats; sleep 0.05; done"
"""Shell code that never ends and can be seen to run."""


async def beats(machine: Machine) -> int:
    """How often it has beaten."""
    try:
        return len(await machine.get("beats"))
    except FileNotFoundError:
        return 0


async def has_begun(machine: Machine) -> bool:
    """Whether it has beaten."""
    return await beats(machine) > 0


async def expect_dead(machine: Machine) -> None:
    """What beat does so no more, and did before."""
    expect(await beats(machine), "it never ran: the check itself says nothing")
    expect(await steady(lambda: beats(machine)), "it runs on")


async def _timed_out(machine: Machine, command: str) -> None:
    result = await machine.exec(command, timeout=0.6)
    expect(result.timed_out, f"the command has not timed out: {result}")
    expect(not result.ok, "a command that timed out is ok")
    await expect_dead(machine)


@check("A command is killed at its timeout.")
async def timeout_kills(bed: Bed) -> None:
    await _timed_out(bed.machine, BEAT)


@check("At the timeout, children die too.")
async def timeout_kills_children(bed: Bed) -> None:
    await _timed_out(bed.machine, f"sh -c '{BEAT}' & sleep 60")


@check("At the timeout, what left the session dies too.")
async def timeout_kills_sessions(bed: Bed) -> None:
    await _timed_out(bed.machine, f"setsid sh -c '{BEAT}' & sleep 60")


@check("At the timeout, what lost its parent dies too.")
async def timeout_kills_orphans(bed: Bed) -> None:
    await _timed_out(bed.machine, f"(setsid sh -c '{BEAT}' </dev/null >/dev/null 2>&1 & ) ; sleep 60")


@check("At the timeout, what left session, parent and environment behind dies too.")
async def timeout_kills_daemons(bed: Bed) -> None:
    daemon = f"(env -i PATH=\"$PATH\" setsid sh -c '{BEAT}' </dev/null >/dev/null 2>&1 & )"
    await _timed_out(bed.machine, f"({daemon}); sleep 60")


@check("At the timeout, what ignores every signal that can be ignored dies too.")
async def timeout_kills_the_stubborn(bed: Bed) -> None:
    await _timed_out(bed.machine, f"trap '' TERM INT HUP QUIT; {BEAT}")


@check("At the timeout, what is stopped dies too.")
async def timeout_kills_the_stopped(bed: Bed) -> None:
    result = await bed.machine.exec("sh -c 'kill -STOP $$; echo woken >>woken' & sleep 60", timeout=0.6)
    expect(result.timed_out, f"the command has not timed out: {result}")
    await asyncio.sleep(0.1)
    expect("woken" not in await bed.machine.list(), "it was woken up instead of killed")


@check("At the timeout, a hundred children die as one does.")
async def timeout_kills_many(bed: Bed) -> None:
    await _timed_out(
        bed.machine,
        "for i in $(seq 100); do setsid sh -c 'while :; do echo b >>beats; sleep 0.2; done' & done; sleep 60",
    )


@check("What a command leaves in the background dies with it.")
async def background_dies(bed: Bed) -> None:
    result = await bed.machine.exec(
        f"setsid sh -c '{BEAT}' </dev/null >/dev/null 2>&1 & sleep 0.3; exit 6", timeout=30.0
    )
    expect_equal((result.exit_code, result.timed_out), (6, False), "the result")
    await expect_dead(bed.machine)


@check("What holds the output open does not hold up the end, and the result says so.")
async def held_output(bed: Bed) -> None:
    result = await bed.machine.exec("sleep 60 & echo done", timeout=30.0)
    expect_equal((result.exit_code, result.timed_out), (0, False), "the result")
    expect_equal(result.stdout, b"done\n", "the output")
    expect(result.duration < 10.0, f"it took {result.duration} s to see that the command is over")
    expect(result.pipe_held, "pipe_held is false")


@check("A command whose caller gives up is killed.")
async def cancellation_kills(bed: Bed) -> None:
    work = asyncio.ensure_future(bed.machine.exec(BEAT, timeout=60.0))
    await until(lambda: has_begun(bed.machine), "the command's beginning")
    work.cancel()
    await asyncio.wait([work], timeout=20.0)
    expect(work.cancelled(), "the cancellation did not come out")
    await expect_dead(bed.machine)


@check("Wherever a caller gives up, the machine goes on.")
async def cancellation_anywhere(bed: Bed) -> None:
    for pause in (0.0, 0.0005, 0.002, 0.005, 0.02, 0.05):
        work = asyncio.ensure_future(bed.machine.exec("head -c 1000000 /dev/zero; cat", stdin=b"x" * 1_000_000))
        await asyncio.sleep(pause)
        work.cancel()
        await asyncio.wait([work], timeout=20.0)
        expect(work.done(), f"cancelled after {pause} s, it is not over 20 s later")
    expect_equal((await bed.machine.exec("echo still here")).stdout, b"still here\n", "the output of the next command")


@check("A timeout ends one command, not its neighbours.")
async def timeouts_are_private(bed: Bed) -> None:
    neighbour = asyncio.ensure_future(
        bed.machine.exec(
            "env -i PATH=\"$PATH\" setsid sh -c 'sleep 1.2; echo well >well' & wait; cat well", timeout=30.0
        )
    )
    result = await bed.machine.exec("setsid sleep 60 & sleep 60", timeout=0.4)
    expect(result.timed_out, "the command has not timed out")
    expect_equal((await neighbour).stdout, b"well\n", "the neighbour's output")


@check("Stopping the machine kills what runs; who waits for it gets MachineLost.")
async def stop_kills(bed: Bed) -> None:
    from palmette.machines.errors import MachineLost

    async with bed.another() as machine:
        work = asyncio.ensure_future(machine.exec("sleep 60", timeout=90.0))
        await asyncio.sleep(0.2)
        await machine.stop()
        async with asyncio.timeout(10.0):
            await expect_raises(MachineLost, work)


@check("reset() kills what runs, and empties the working directory.")
async def reset_clears(bed: Bed) -> None:
    await bed.machine.put("a/b", b"x")
    work = asyncio.ensure_future(bed.machine.exec(f"touch here; {BEAT}", timeout=60.0))
    await until(lambda: has_begun(bed.machine), "the command's beginning")
    await bed.machine.reset()
    result = await work
    expect(result.signal == 9 and not result.timed_out, f"the command's end is {result}")
    expect_equal(await bed.machine.list(), [], "the working directory")
    if not await steady(bed.machine.list):
        raise Broken("something goes on writing")
