"""Life: start, stop, what comes before and after, snapshots, and that machines keep to themselves."""

from __future__ import annotations

import asyncio
import os
import secrets

from palmette.machines.conformance.kit import Bed, NotPromised, check, expect, expect_equal, expect_raises
from palmette.machines.contract import SnapshotGrade
from palmette.machines.errors import MachineError, MachineLost, SnapshotNotPossible

GRADES: tuple[SnapshotGrade, ...] = ("workdir", "filesystem", "memory")


@check("A machine is used after start() and before stop(); else the error says what to do.")
async def order(bed: Bed) -> None:
    machine = bed.make()
    await expect_raises(MachineError, machine.exec("true"))
    await machine.start()
    try:
        await expect_raises(MachineError, machine.start())
        expect((await machine.exec("true")).ok, "a second start() has broken it")
    finally:
        await machine.stop()
    for use in (machine.exec("true"), machine.put("x", b""), machine.get("x"), machine.list(), machine.reset()):
        await expect_raises(MachineLost, use)


@check("stop() may be called twice, at the same time, and before start().")
async def stops(bed: Bed) -> None:
    machine = bed.make()
    await machine.start()
    await asyncio.gather(machine.stop(), machine.stop())
    await machine.stop()
    await bed.make().stop()


@check("A start that is called off leaves a machine that can be stopped.")
async def start_called_off(bed: Bed) -> None:
    for pause in (0.0, 0.01, 0.1):
        machine = bed.make()
        work = asyncio.ensure_future(machine.start())
        await asyncio.sleep(pause)
        work.cancel()
        await asyncio.wait([work], timeout=30.0)
        expect(work.done(), f"start(), cancelled after {pause} s, is not over 30 s later")
        await machine.stop()


@check("Machines have ids of their own, and see nothing of each other's files.")
async def apart(bed: Bed) -> None:
    await bed.machine.put("file", b"mine")
    async with bed.another() as other:
        expect(other.id != bed.machine.id, "two machines have one id")
        expect_equal(await other.list(), [], "a new machine's working directory")
        await other.put("file", b"theirs")
    expect_equal(await bed.machine.get("file"), b"mine", "the file")


@check("A machine that stops leaves the others alone.")
async def independent_ends(bed: Bed) -> None:
    work = asyncio.ensure_future(bed.machine.exec("sleep 0.5; echo well"))
    async with bed.another() as other:
        await other.exec("true")
    expect_equal((await work).stdout, b"well\n", "the neighbour's output")


@check("probe() says how long the machine took to show that it is well.")
async def probes(bed: Bed) -> None:
    seconds = await bed.machine.probe()
    expect(0.0 <= seconds < 5.0, f"it took {seconds} s")
    machine = bed.make()
    await machine.start()
    await machine.stop()
    await expect_raises(MachineLost, machine.probe())


@check("describe() says what the machine is, and it is true.")
async def descriptions(bed: Bed) -> None:
    told = await bed.machine.describe()
    expect_equal(told.id, bed.machine.id, "the id")
    expect_equal(told.workdir.encode() + b"\n", (await bed.machine.exec(["pwd", "-P"])).stdout, "the working directory")
    expect_equal(told.platform.encode() + b"\n", (await bed.machine.exec("uname -srm")).stdout, "the platform")
    expect_equal(told.snapshot_grade, bed.machine.snapshot_grade, "the grade of snapshots")


@check("reset() may be called on an empty machine, and again.")
async def resets(bed: Bed) -> None:
    await bed.machine.reset()
    await bed.machine.reset()
    await bed.machine.exec("mkdir -p a/b; chmod 000 a; ln -s / link")
    await bed.machine.reset()
    expect_equal(await bed.machine.list(), [], "the working directory")
    expect((await bed.machine.exec("echo x >x; ls /")).ok, "the machine runs nothing any more")


@check("A snapshot holds the files, and the machine goes on without it.")
async def snapshots(bed: Bed) -> None:
    from palmette.machines.images import machine_for

    if bed.machine.snapshot_grade is None:
        raise NotPromised("no snapshots")
    await bed.machine.put("dir/file", b"then", mode=0o755)
    snapshot = await bed.machine.snapshot()
    try:
        await bed.machine.put("dir/file", b"now")
        restored = machine_for(snapshot.image, owner="conformance")
        await restored.start()
        try:
            expect_equal(await restored.get("dir/file"), b"then", "the file in the snapshot")
            await restored.put("other", b"")
        finally:
            await restored.stop()
        expect_equal(await bed.machine.get("dir/file"), b"now", "the file in the machine")
        expect_equal(await bed.machine.list(), ["dir"], "the machine's files")
    finally:
        await snapshot_gone(snapshot.image)


async def snapshot_gone(image: str) -> None:
    """Remove a snapshot."""
    from palmette.machines.snapshots import delete_snapshot

    await delete_snapshot(image)


@check("A fork goes its own way from where it was made.")
async def forks(bed: Bed) -> None:
    if bed.machine.snapshot_grade is None:
        raise NotPromised("no forks")
    await bed.machine.put("file", b"common")
    twin = await bed.machine.fork()
    try:
        expect(twin.id != bed.machine.id, "the fork has the same id")
        await twin.put("file", b"twin")
        await bed.machine.put("own", b"")
        expect_equal(await bed.machine.get("file"), b"common", "the file")
        expect_equal(await twin.list(), ["file"], "the fork's files")
    finally:
        await twin.stop()
    expect((await bed.machine.exec("true")).ok, "the fork's end was the machine's")


@check("A snapshot that holds less than was asked for is not made.")
async def snapshot_grades(bed: Bed) -> None:
    best = bed.machine.snapshot_grade
    above = GRADES if best is None else GRADES[GRADES.index(best) + 1 :]
    if not above:
        raise NotPromised("nothing is beyond it")
    await expect_raises(SnapshotNotPossible, bed.machine.snapshot(minimum=above[-1]))


@check("No secret of the controller can be read: not from the environment, nor from any process's, nor from argv.")
async def secret_environment(bed: Bed) -> None:
    canaries = {name: value for name, value in os.environ.items() if name.startswith("PALMETTE_CANARY")}
    own = f"canary-{secrets.token_hex(12)}"
    os.environ["PALMETTE_CANARY_OF_THE_KIT"] = own
    try:
        for value in (own, *canaries.values()):
            # The command that looks must not find itself.
            pattern = f"[{value[0]}]{value[1:]}"
            result = await bed.machine.exec(["sh", "-c", _LOOK, "sh", pattern], timeout=30.0)
            expect_equal(result.stdout.split(), [b"0", b"0"], "how often a secret of the controller was found")
    finally:
        del os.environ["PALMETTE_CANARY_OF_THE_KIT"]


_LOOK = 'cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr "\\0" "\\n" | grep -c "$1"; env | grep -c "$1"'


@check(
    "A command that kills the process above it is not taken for a success, and the machine is well or says it is lost."
)
async def vandalism(bed: Bed) -> None:
    async with bed.another() as machine:
        if (await machine.describe()).isolation == "none":
            raise NotPromised("commands run beside the controller, as its user: what is above them is the controller")
        try:
            result = await machine.exec("kill -9 $PPID; sleep 5; echo survived", timeout=20.0)
            expect(not result.ok or result.stdout == b"survived\n", f"a command that was killed is ok: {result}")
            after = await machine.exec("echo here")
            expect_equal(after.stdout, b"here\n", "the next command's output")
        except MachineLost:
            return
