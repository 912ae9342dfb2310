"""Commands: how they are started, what they are given, how their end is told."""

from __future__ import annotations

import os

from palmette.machines.conformance.kit import Bed, check, expect, expect_equal, expect_raises
from palmette.machines.contract import Limits
from palmette.machines.errors import CommandNotStarted


@check("A command that returns 0 is ok.")
async def returns_zero(bed: Bed) -> None:
    result = await bed.machine.exec("true")
    expect_equal((result.exit_code, result.signal, result.timed_out), (0, None, False), "the result")
    expect(result.ok, "ok is false")


@check("An exit code comes back as it is, and is no exception.")
async def exit_codes(bed: Bed) -> None:
    for code in (1, 3, 127, 255):
        result = await bed.machine.exec(f"exit {code}")
        expect_equal((result.exit_code, result.signal), (code, None), f"the end of `exit {code}`")
        expect(not result.ok, f"`exit {code}` is ok")


@check("A command that a signal ends has that signal, and no exit code.")
async def signals(bed: Bed) -> None:
    for number in (9, 15, 6):
        result = await bed.machine.exec(["sh", "-c", f"kill -{number} $$"])
        expect_equal((result.exit_code, result.signal), (None, number), f"the end of `kill -{number} $$`")


@check("A string is a line for sh, with all that sh can do.")
async def strings_go_to_sh(bed: Bed) -> None:
    result = await bed.machine.exec("x=3; echo $((x * 2)) | cat && (exit 4) || echo or")
    expect_equal(result.stdout, b"6\nor\n", "the output")


@check("A sequence is passed on word for word: nothing expands it or takes it apart.")
async def sequences_are_verbatim(bed: Bed) -> None:
    words = ["a b", "", "$HOME", "`id`", "'", '"', "*", "new\nline", "-n", "\\", "ä€😀"]
    result = await bed.machine.exec(["sh", "-c", 'for word; do printf "%s\\0" "$word"; done', "sh", *words])
    expect_equal(result.stdout.decode().split("\0")[:-1], words, "the words")


@check("A program that does not exist is CommandNotStarted, not an exit code.")
async def missing_program(bed: Bed) -> None:
    text = await expect_raises(CommandNotStarted, bed.machine.exec(["palmette-no-such-program"]))
    expect("palmette-no-such-program" in text, f"the error does not name the program: {text}")


@check("A file that may not be executed is CommandNotStarted.")
async def not_executable(bed: Bed) -> None:
    await bed.machine.put("plain.txt", b"echo hello\n", mode=0o644)
    await expect_raises(CommandNotStarted, bed.machine.exec(["./plain.txt"]))


@check("A script whose interpreter does not exist is CommandNotStarted.")
async def missing_interpreter(bed: Bed) -> None:
    await bed.machine.put("script", b"#!/no/such/interpreter\n", mode=0o755)
    await expect_raises(CommandNotStarted, bed.machine.exec(["./script"]))


@check("A directory to run in that does not exist is CommandNotStarted.")
async def missing_directory(bed: Bed) -> None:
    text = await expect_raises(CommandNotStarted, bed.machine.exec("true", cwd="no/such/directory"))
    expect("no/such/directory" in text, f"the error does not name the directory: {text}")


@check("A command that is no command is refused, not run.")
async def nothing_to_run(bed: Bed) -> None:
    await expect_raises(CommandNotStarted, bed.machine.exec([]))


@check("A word too long for the system is CommandNotStarted, and the machine goes on.")
async def too_long(bed: Bed) -> None:
    await expect_raises(CommandNotStarted, bed.machine.exec(["true", "x" * (1 << 22)]))
    expect((await bed.machine.exec("true")).ok, "the machine runs nothing any more")


@check("A word of 100,000 characters is passed on whole.")
async def long_words(bed: Bed) -> None:
    result = await bed.machine.exec(["sh", "-c", 'printf %s "$1" | wc -c', "sh", "x" * 100_000])
    expect_equal(result.stdout.split(), [b"100000"], "the length")


@check("Commands start in the working directory, or in `cwd` below it.")
async def working_directory(bed: Bed) -> None:
    await bed.machine.put("deep/er/file", b"here")
    expect_equal((await bed.machine.exec("cat deep/er/file")).stdout, b"here", "what the working directory holds")
    expect_equal((await bed.machine.exec("cat file", cwd="deep/er")).stdout, b"here", "what `cwd` holds")


@check("`env` is added to the environment, whatever characters it holds.")
async def environment(bed: Bed) -> None:
    value = "a b\n$HOME 'q' ä€😀 ="
    result = await bed.machine.exec('printf %s "$PALMETTE_CHECK"', env={"PALMETTE_CHECK": value})
    expect_equal(result.stdout.decode(), value, "the value")
    result = await bed.machine.exec('printf %s "${PALMETTE_CHECK-unset}"')
    expect_equal(result.stdout, b"unset", "the variable in the next command")


@check("PATH, HOME and a directory for temporary files are there, and the latter two can be written to.")
async def useful_environment(bed: Bed) -> None:
    result = await bed.machine.exec('test -n "$PATH" && echo x >"$HOME/x" && echo x >"${TMPDIR:-/tmp}/x" && echo good')
    expect_equal(result.stdout, b"good\n", "the output")


@check("Nothing of the controller's environment is in that of a command.")
async def foreign_environment(bed: Bed) -> None:
    os.environ["PALMETTE_CONFORMANCE_MARK"] = "mark"
    try:
        result = await bed.machine.exec("env")
    finally:
        del os.environ["PALMETTE_CONFORMANCE_MARK"]
    expect(b"PALMETTE_CONFORMANCE_MARK" not in result.stdout, "a variable of the controller's is there")


@check("A time limit that is no time is a ValueError.")
async def senseless_timeouts(bed: Bed) -> None:
    for seconds in (0.0, -1.0, float("nan"), float("inf")):
        await expect_raises(ValueError, bed.machine.exec("true", timeout=seconds))


@check("Limits hold: processor time, file size, memory.")
async def limits(bed: Bed) -> None:
    run = bed.machine.exec
    busy = await run("while :; do :; done", limits=Limits(cpu=1), timeout=20.0)
    expect(busy.signal in (24, 9) and not busy.timed_out, f"cpu=1: {busy}")
    large = await run("head -c 100000 /dev/zero >large; wc -c <large", limits=Limits(file_size=10_240))
    expect(b"100000" not in large.stdout, "file_size=10240 lets 100,000 bytes be written")
    hungry = await run(["python3", "-c", "bytearray(1 << 30)"], limits=Limits(memory=256 << 20))
    expect(hungry.exit_code == 1 and b"MemoryError" in hungry.stderr, f"memory=256 MiB: {hungry}")


@check("A limit that makes no sense is a ValueError.")
async def senseless_limits(bed: Bed) -> None:
    for bad in (Limits(memory=0), Limits(cpu=-1), Limits(file_size=1 << 70)):
        await expect_raises(ValueError, bed.machine.exec("true", limits=bad))


@check("The duration of a command is told in seconds.")
async def durations(bed: Bed) -> None:
    result = await bed.machine.exec("sleep 0.2")
    expect(0.2 <= result.duration < 30.0, f"0.2 seconds of sleep took {result.duration} s")
