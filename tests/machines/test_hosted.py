"""A hosted machine over a backend without any daemon: what it does beyond the conformance kit's promises."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hosted_support import Bench, altered, oldest_python
from machines_support import list_root, running, tagged, until
from plain_backend import PlainBackend

from palmette.machines import (
    ImageUnusable,
    Machine,
    MachineError,
    MachineLost,
    PathEscapes,
    SnapshotNotPossible,
    UnknownImage,
    bootstrap,
    delete_snapshot,
    machine_for,
    register_backend,
)
from palmette.machines.conformance import check
from palmette.machines.images import unregister_backend

SOME = (
    ["binary_input", "flood", "both_at_once", "output_on_timeout", "watched_output", "binary_conversation", "held_up"],
    ["timeout_kills_daemons", "timeout_kills_many", "background_dies", "timeouts_are_private", "cancellation_anywhere"],
)
"""Of the conformance kit: what differs most between Pythons. Every backend passes all of it, elsewhere."""


@pytest.mark.parametrize("promises", SOME, ids=["streams", "kills"])
async def test_under_the_oldest_python_there_is_the_contract_holds(bench: Bench, promises: list[str]) -> None:
    report = await check(lambda: bench.machine(bench.backend(python=oldest_python())), only=promises)
    assert report.ok, report.broken


async def test_without_a_subreaper_what_a_command_left_is_found_by_its_tag(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        bootstrap,
        "payload",
        altered(bootstrap.payload, "if _libc is None or ctypes is None:\\n        return False", "return False"),
    )
    machine, _ = await bench.started()
    word = f"1000.{secrets.randbelow(10**9)}"
    assert (await machine.exec(f"setsid sleep {word} >/dev/null 2>&1 & exit 3")).exit_code == 3
    assert running(word) == []
    result = await machine.exec(f"(setsid sleep {word} &) ; sleep {word}", timeout=0.3)
    assert result.timed_out
    assert running(word) == []


async def test_without_openat2_files_are_served_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "payload", altered(bootstrap.payload, "_SYS_OPENAT2 = 437", "_SYS_OPENAT2 = 99999"))
    machine, _ = await bench.started()
    await machine.put("a/b/c", b"x", mode=0o600)
    await machine.put("a/large", bytes(200_000))
    assert await machine.get("a/b/../b/c") == b"x"
    assert await machine.list("a") == ["b", "large"]
    await machine.exec("ln -s /etc out; ln -s a in")
    for path in ("out/passwd", "in/large"):
        with pytest.raises(PathEscapes, match="symbolic link"):
            await machine.get(path)
    await machine.put_archive("copy", await machine.get_archive("a"))
    assert await machine.get("copy/b/c") == b"x"


async def test_the_runner_sees_nothing_that_its_place_did_not_give_it(bench: Bench) -> None:
    machine, _ = await bench.started()
    result = await machine.exec("echo $PLACE; env | grep -c PALMETTE_RUNNER")
    assert result.stdout == b"plain\n0\n"
    with pytest.raises(ValueError, match="PALMETTE_EXEC"):
        await machine.exec("true", env={"PALMETTE_EXEC": "mine"})


async def test_a_slow_channel_that_cuts_everything_into_crumbs_changes_nothing(bench: Bench) -> None:
    machine, _ = await bench.started(slow=True, piece=37)
    seen: list[bytes] = []
    data = secrets.token_bytes(20_000)
    result = await machine.exec("cat", stdin=data, on_output=lambda stream, piece: seen.append(piece))
    assert b"".join(seen) == result.stdout == data


async def test_an_image_without_python_says_what_it_lacks(bench: Bench) -> None:
    backend = bench.backend(python="no-such-python3")
    machine = bench.machine(backend)
    with pytest.raises(ImageUnusable, match=r"'plain'.*python3 \(3\.6 or newer\)"):
        await machine.start()
    assert backend.stopped == 1
    with pytest.raises(MachineLost, match="stopped"):
        await machine.exec("true")


async def test_a_start_that_is_called_off_takes_the_place_down(bench: Bench) -> None:
    backend = bench.backend()
    machine = bench.machine(backend)
    starting = asyncio.create_task(machine.start())
    await until(lambda: bool(backend.channels), "the channel")
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert backend.stopped == 1
    assert list_root(bench.root) == []


async def test_a_stop_during_the_start_ends_both(bench: Bench) -> None:
    backend = bench.backend()
    machine = bench.machine(backend)
    starting = asyncio.create_task(machine.start())
    await until(lambda: bool(backend.channels), "the channel")
    await machine.stop()
    with pytest.raises(MachineLost, match="stopped"):
        await starting
    assert list_root(bench.root) == []


async def test_what_is_used_at_the_wrong_time_says_so(bench: Bench) -> None:
    machine = bench.machine(bench.backend())
    with pytest.raises(MachineError, match="not started"):
        await machine.exec("true")
    await machine.start()
    with pytest.raises(MachineError, match="started before"):
        await machine.start()
    await machine.stop()
    for use in (machine.exec("true"), machine.get("x"), machine.probe(), machine.describe(), machine.fork()):
        with pytest.raises(MachineLost, match="stopped"):
            await use


async def test_a_cancelled_stop_stops_all_the_same(bench: Bench) -> None:
    machine, backend = await bench.started()
    word = f"1000.{secrets.randbelow(10**9)}"
    command = asyncio.create_task(machine.exec(f"setsid sleep {word} & sleep {word}"))
    await until(lambda: len(running(word)) == 2, "the sleeps")
    stop = asyncio.create_task(machine.stop())
    await asyncio.sleep(0)
    stop.cancel()
    await asyncio.wait([stop, command])
    assert isinstance(command.exception(), MachineLost)
    assert running(word) == []
    assert backend.stopped == 1


async def test_a_workdir_that_a_command_removed_is_there_again_for_the_next(bench: Bench) -> None:
    machine, _ = await bench.started()
    assert (await machine.exec('rm -rf "$PWD"')).ok
    assert (await machine.exec("ls")).stdout == b""
    assert (await machine.exec('rm -rf "$PWD" && ln -s / "$PWD"')).ok
    await machine.put("file", b"x")
    assert await machine.list() == ["file"]
    assert "file" not in os.listdir("/")


async def test_a_path_may_be_said_as_commands_say_it(bench: Bench) -> None:
    machine, backend = await bench.started()
    await machine.put(f"{backend.root}/work/file", b"x")
    assert await machine.list() == ["file"]
    assert await machine.get("/work/file") == b"x"


async def test_a_machine_of_a_registered_backend_is_snapshot_restored_and_forked(bench: Bench, root: Path) -> None:
    def make(rest: str, id: str) -> PlainBackend:
        assert rest == "of:any@kind"
        return PlainBackend(id, bench.root)

    register_backend("plain", make)
    try:
        with pytest.raises(ValueError, match="already"):
            register_backend("plain", make)
        async with life(machine_for("plain:of:any@kind", owner="test-run")) as machine:
            await machine.exec(
                "mkdir -p a/b && echo 1 >a/b/file && chmod 700 a && ln -s /usr/bin/env a/env && ln a/b/file hard"
            )
            snapshot = await machine.snapshot()
            assert snapshot.grade == machine.snapshot_grade == "workdir"
            with pytest.raises(SnapshotNotPossible, match="'memory' was asked for"):
                await machine.snapshot(minimum="memory")
            twin = await machine.fork()
            async with life(twin, started=True), life(machine_for(snapshot.image, owner="x")) as again:
                for one in (twin, again):
                    assert one.id != machine.id
                    look = await one.exec("stat -c '%a %h' a hard; readlink a/env; cat hard")
                    assert look.text.split() == ["700", "3", "644", "2", "/usr/bin/env", "1"]
        await delete_snapshot(snapshot.image)
        await delete_snapshot(snapshot.image)
        with pytest.raises(ImageUnusable, match="cannot be read"):
            await machine_for(snapshot.image, owner="x").start()
        assert list_root(root / "snapshots") == []
    finally:
        unregister_backend("plain")
    with pytest.raises(UnknownImage):
        machine_for("plain:x", owner="x")


async def test_the_lease_is_renewed_at_both_ends(bench: Bench, tmp_path: Path) -> None:
    lease_file = tmp_path / "lease"
    machine, backend = await bench.started(lease=1.2, lease_file=str(lease_file))
    first = lease_file.stat().st_mtime_ns
    await until(lambda: lease_file.stat().st_mtime_ns > first and backend.renewed >= 2, "renewals")
    assert (await machine.exec("sleep 1.5")).ok, "it outlives its lease, as that is renewed"
    await machine.stop()
    assert not lease_file.exists()


async def test_thirty_commands_at_once_die_alone(bench: Bench) -> None:
    machine, _ = await bench.started()
    word = f"1000.{secrets.randbelow(10**9)}"
    tasks = [
        asyncio.create_task(machine.exec(f"env -i setsid sleep {word}{n:02} & sleep {word}{n:02}", timeout=60))
        for n in range(30)
    ]
    await until(lambda: len([n for n in range(30) if len(running(f"{word}{n:02}")) == 2]) == 30, "sixty sleeps")
    for task in tasks[::2]:
        task.cancel()
    await asyncio.wait(tasks[::2])
    assert [len(running(f"{word}{n:02}")) for n in range(30)] == [0, 2] * 15
    await machine.reset()
    assert {(await task).signal for task in tasks[1::2]} == {9}
    assert tagged(f"{machine.id}") != [], "the runner itself"
    assert [n for n in range(30) if running(f"{word}{n:02}")] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
async def test_a_full_disk_is_named_and_the_machine_goes_on(bench: Bench, tmp_path: Path) -> None:
    small = tmp_path / "places"
    small.mkdir()
    if await asyncio.to_thread(_run, "mount", "-t", "tmpfs", "-o", "size=1m", "none", str(small)):
        pytest.skip("cannot mount here")
    try:
        machine, _ = await bench.started()
        with pytest.raises(OSError, match="disk is full"):
            await machine.put("large", bytes(3_000_000))
        await machine.put("most", bytes(900_000))
        with pytest.raises(OSError, match="disk is full"):
            await asyncio.gather(*(machine.put(f"small{n}", bytes(50_000)) for n in range(5)))
        result = await machine.exec("cat /dev/zero >more")
        assert not result.ok
        assert result.evidence is not None
        assert result.evidence.cause == "disk_full"
        assert result.evidence.agents_doing
        await machine.reset()
        assert (await machine.exec("echo x >x; false")).evidence is None
        await machine.stop()
    finally:
        assert await asyncio.to_thread(_run, "umount", "-l", str(small)) == 0


def _run(*words: str) -> int:
    return subprocess.run(words, check=False).returncode


@asynccontextmanager
async def life(machine: Machine, *, started: bool = False) -> AsyncGenerator[Machine]:
    if not started:
        await machine.start()
    try:
        yield machine
    finally:
        await machine.stop()
