"""Input and output: every byte, both ways, and never more memory than was asked for."""

from __future__ import annotations

import hashlib

from palmette.machines.conformance.kit import Bed, check, expect, expect_equal, expect_raises
from palmette.machines.contract import StreamName

EVERY_BYTE = bytes(range(256))


@check("Standard input arrives byte for byte, whatever is in it.")
async def binary_input(bed: Bed) -> None:
    data = EVERY_BYTE * 4096
    result = await bed.machine.exec("cat", stdin=data, max_output=1 << 21)
    expect_equal(hashlib.sha256(result.stdout).hexdigest(), hashlib.sha256(data).hexdigest(), "what cat returned")


@check("Without input, a command that reads meets the end of it at once.")
async def no_input(bed: Bed) -> None:
    result = await bed.machine.exec("cat; echo end", timeout=20.0)
    expect_equal(result.stdout, b"end\n", "the output")


@check("A command need not read its input.")
async def unread_input(bed: Bed) -> None:
    result = await bed.machine.exec("exit 5", stdin=b"x" * (4 << 20), timeout=20.0)
    expect_equal(result.exit_code, 5, "the exit code")


@check("The two output streams are told apart.")
async def two_streams(bed: Bed) -> None:
    result = await bed.machine.exec("echo out; echo err >&2")
    expect_equal((result.stdout, result.stderr), (b"out\n", b"err\n"), "the output")


@check("Output need not end in a newline.")
async def no_newline(bed: Bed) -> None:
    expect_equal((await bed.machine.exec("printf word")).stdout, b"word", "the output")


@check("Output need not be text.")
async def no_text(bed: Bed) -> None:
    await bed.machine.put("bytes", EVERY_BYTE * 10)
    result = await bed.machine.exec("cat bytes; cat bytes >&2")
    expect_equal((result.stdout, result.stderr), (EVERY_BYTE * 10, EVERY_BYTE * 10), "the output")


@check("Of 100 MB of output the head and the tail are kept, and how much fell between is told.")
async def flood(bed: Bed) -> None:
    total = 100 << 20
    result = await bed.machine.exec(f"printf begin; head -c {total} /dev/zero; printf end", max_output=10_000)
    expect_equal(result.exit_code, 0, "the exit code")
    expect(result.stdout.startswith(b"begin") and result.stdout.endswith(b"end"), "head or tail is missing")
    expect(len(result.stdout) <= 10_200, f"{len(result.stdout)} bytes were kept of max_output=10,000")
    kept = result.stdout.count(b"\0")
    expect_equal(result.bytes_left_out + kept, total, "what was kept and what was left out together")


@check("Output that just fits is kept whole.")
async def exact_fit(bed: Bed) -> None:
    result = await bed.machine.exec("head -c 5000 /dev/zero", max_output=5000)
    expect_equal((len(result.stdout), result.bytes_left_out), (5000, 0), "what was kept and left out")


@check("Much output on both streams at once holds nothing up.")
async def both_at_once(bed: Bed) -> None:
    result = await bed.machine.exec(
        "head -c 3000000 /dev/zero & head -c 3000000 /dev/zero >&2; wait", max_output=1 << 22, timeout=30.0
    )
    expect_equal((len(result.stdout), len(result.stderr)), (3_000_000, 3_000_000), "the lengths")


@check("What was printed before a timeout is in the result.")
async def output_on_timeout(bed: Bed) -> None:
    result = await bed.machine.exec("echo before; echo problem >&2; sleep 60", timeout=0.5)
    expect(result.timed_out, "the command has not timed out")
    expect_equal((result.stdout, result.stderr), (b"before\n", b"problem\n"), "the output")
    expect(not result.ok, "a command that timed out is ok")


@check("on_output gets every byte, in the order of each stream, as it comes.")
async def watched_output(bed: Bed) -> None:
    seen: dict[StreamName, bytes] = {"stdout": b"", "stderr": b""}

    def watch(stream: StreamName, data: bytes) -> None:
        seen[stream] += data

    script = "for i in 1 2 3 4 5; do echo out$i; echo err$i >&2; done; head -c 300000 /dev/zero"
    result = await bed.machine.exec(script, max_output=100, on_output=watch)
    wanted = b"".join(b"out%d\n" % i for i in range(1, 6)) + bytes(300_000)
    expect_equal(seen["stdout"], wanted, "what on_output saw of stdout")
    expect_equal(seen["stderr"], b"".join(b"err%d\n" % i for i in range(1, 6)), "what it saw of stderr")
    expect(len(result.stdout) <= 200, "the cap does not hold where on_output is given")


@check("An exception in on_output ends the command, and comes out.")
async def failing_watcher(bed: Bed) -> None:
    class OwnError(Exception):
        pass

    def watch(stream: StreamName, data: bytes) -> None:
        raise OwnError("enough")

    await expect_raises(OwnError, bed.machine.exec("echo x; sleep 60", on_output=watch, timeout=20.0))


@check("A command may close its output and go on.")
async def closed_output(bed: Bed) -> None:
    result = await bed.machine.exec("exec >&- 2>&-; sleep 0.1; exit 3", timeout=20.0)
    expect_equal(result.exit_code, 3, "the exit code")
