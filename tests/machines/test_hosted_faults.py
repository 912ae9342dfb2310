"""What happens to a hosted machine when its runner, its place or the way to it fails."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from collections.abc import Awaitable
from pathlib import Path

import pytest
from hosted_support import Bench
from machines_support import list_root, running, tagged, until

from palmette.machines import MachineLost, connection, hosted_exec
from palmette.machines.evidence import Evidence
from palmette.machines.session import Session


async def evidence_of(work: Awaitable[object]) -> Evidence:
    with pytest.raises(MachineLost) as caught:
        await work
    assert caught.value.evidence is not None, str(caught.value)
    return caught.value.evidence


async def test_a_command_that_kills_the_runner_ends_with_it_and_the_machine_goes_on(bench: Bench) -> None:
    machine, backend = await bench.started()
    await machine.put("file", b"kept")
    word = f"1000.{secrets.randbelow(10**9)}"
    bystander = asyncio.create_task(machine.exec(f"setsid sleep {word} & sleep {word}"))
    process = await machine.open(f"echo begun; sleep {word}")
    assert await process.read() == ("stdout", b"begun\n")
    await until(lambda: len(running(word)) == 3, "the sleeps")
    result = await machine.exec(f"echo last words; sleep 0.2; kill -9 {backend.runner}; sleep {word}")
    for ended in (result, await bystander, await process.wait()):
        assert (ended.exit_code, ended.signal, ended.timed_out) == (None, signal.SIGKILL, False)
        assert ended.evidence is not None
        assert (ended.evidence.cause, ended.evidence.agents_doing) == ("runner_killed", True)
    assert result.stdout == b"last words\n"
    assert await process.read() is None
    with pytest.raises(BrokenPipeError):
        await process.write(b"x")
    await process.kill()
    assert running(word) == []
    assert backend.killed_all == 1
    assert await machine.get("file") == b"kept"
    assert (await machine.exec("echo on")).stdout == b"on\n"


async def test_files_are_served_while_the_runner_is_replaced(bench: Bench) -> None:
    machine, backend = await bench.started()
    await machine.put("file", b"x" * 300_000)
    os.kill(backend.runner, signal.SIGKILL)
    got, names, archive = await asyncio.gather(machine.get("file"), machine.list(), machine.get_archive())
    assert (len(got), names, len(archive) > 300_000) == (300_000, ["file"], True)
    await machine.put("other", b"y" * 300_000)
    assert await machine.list() == ["file", "other"]


async def test_the_third_killed_runner_within_a_minute_is_a_lost_machine(bench: Bench) -> None:
    machine, backend = await bench.started()
    for _ in range(2):
        assert (await machine.exec(f"kill -9 {backend.runner}; sleep 60")).signal == signal.SIGKILL
    seen = await evidence_of(machine.exec(f"kill -9 {backend.runner}; sleep 60"))
    assert (seen.cause, seen.agents_doing) == ("runner_killed", True)
    await evidence_of(machine.list())


async def test_a_keeper_that_is_killed_takes_its_command_along_and_no_other(bench: Bench) -> None:
    machine, _ = await bench.started()
    word = f"1000.{secrets.randbelow(10**9)}"
    other = asyncio.create_task(machine.exec(f"setsid sleep {word}1 & sleep {word}1"))
    await until(lambda: len(running(f"{word}1")) == 2, "the other's sleeps")
    result = await machine.exec(f"env -i setsid sleep {word}2 & kill -9 $PPID; sleep {word}2")
    assert (result.exit_code, result.signal) == (None, signal.SIGKILL)
    assert result.evidence is not None
    assert result.evidence.cause == "runner_killed"
    assert running(f"{word}2") == []
    assert len(running(f"{word}1")) == 2
    stopped = await machine.exec(f"kill -STOP $PPID; setsid sleep {word}3 & sleep {word}3", timeout=0.3)
    assert stopped.timed_out
    assert running(f"{word}3") == []
    assert len(running(f"{word}1")) == 2
    other.cancel()
    await asyncio.wait([other])
    assert running(f"{word}1") == []


async def test_a_keeper_is_given_one_command_after_the_other_until_it_is_killed(bench: Bench) -> None:
    machine, _ = await bench.started()
    word = f"1000.{secrets.randbelow(10**9)}"
    keepers = {(await machine.exec("echo $PPID")).text for _ in range(5)}
    assert len(keepers) == 1
    # One that was told to kill has no other command, whom the signal might meet.
    assert (await machine.exec(f"env -i setsid sleep {word} & echo $PPID")).text in keepers
    assert running(word) == []
    keeper = int((await machine.exec("echo $PPID")).text)
    assert keeper not in map(int, keepers)
    for _ in range(20):
        process = await machine.open("read line")
        await asyncio.gather(process.close_stdin(), process.kill())
        await process.wait()
        assert (await machine.exec("sleep 0.01; echo well")).text == "well\n"
    keeper = int((await machine.exec("echo $PPID")).text)
    os.kill(keeper, signal.SIGKILL)
    await until(lambda: not Path(f"/proc/{keeper}").exists(), "its death to be known")
    assert (await machine.exec("echo on")).text == "on\n"


async def test_signals_to_everything_that_can_be_ignored_are(bench: Bench) -> None:
    machine, backend = await bench.started()
    pids = " ".join(map(str, (backend.runner, "$PPID")))
    assert (
        await machine.exec(f"for s in HUP INT QUIT TERM USR2 TSTP; do kill -$s {pids}; done; echo fine")
    ).text == "fine\n"
    assert backend.killed_all == 0


async def test_when_the_place_is_gone_everybody_who_waits_learns_why(bench: Bench) -> None:
    machine, backend = await bench.started()
    process = await machine.open("cat")
    waiting = [
        asyncio.ensure_future(work)
        for work in (
            machine.exec("sleep 60"),
            machine.exec("cat; sleep 60", stdin=b"x" * 1_000_000),
            process.read(),
            process.wait(),
        )
    ]
    await asyncio.sleep(0.1)
    backend.vanish()
    for work in waiting:
        assert await evidence_of(work) == Evidence(cause="machine_killed", detail="the test killed it")
    for use in (machine.exec("true"), machine.put("x", b""), machine.get_archive(), machine.reset(), machine.probe()):
        assert (await evidence_of(use)).cause == "machine_killed"
    with pytest.raises((MachineLost, BrokenPipeError)):
        await process.write(b"x")


async def test_a_backend_that_cannot_say_how_its_place_is_holds_nobody_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "EXAMINE", 0.2)
    machine, backend = await bench.started()
    waiting = asyncio.create_task(machine.exec("sleep 60"))
    await until(lambda: len(tagged(f"{machine.id}")) > 2, "the command")
    backend.examination = asyncio.Event()
    os.kill(backend.runner, signal.SIGKILL)
    seen = await evidence_of(waiting)
    assert (seen.cause, seen.agents_doing) == ("unknown", False)
    assert "said nothing" in seen.detail


async def test_a_frozen_runner_is_noticed_and_replaced(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "SILENCE", 0.6)
    machine, backend = await bench.started()
    word = f"1000.{secrets.randbelow(10**9)}"
    result = await machine.exec(f"kill -STOP {backend.runner}; setsid sleep {word} & sleep {word}")
    assert result.signal == signal.SIGKILL
    assert result.evidence is not None
    assert result.evidence.cause == "runner_killed"
    assert running(word) == []
    assert (await machine.exec("echo on")).stdout == b"on\n"


async def test_a_frozen_place_is_a_lost_machine(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "SILENCE", 0.6)
    machine, backend = await bench.started()
    waiting = asyncio.create_task(machine.exec("sleep 60"))
    await asyncio.sleep(0.05)
    backend.evidence = Evidence(cause="daemon_frozen", detail="so the test says")
    backend.freeze()
    assert (await evidence_of(waiting)).cause == "daemon_frozen"
    backend.thaw()


async def test_who_was_itself_held_up_does_not_take_a_runner_for_silent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PULSE", 0.05)
    machine, backend = await bench.started()
    backend.evidence = Evidence(cause="daemon_frozen", detail="it does not matter, for nobody asks")

    def hold_up(stream: str, data: bytes) -> None:
        del stream, data
        time.sleep(0.1)  # as a Ctrl-Z does, or a machine that has too much to do

    result = await machine.exec("for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.05; done", on_output=hold_up)
    assert result.text == "1\n2\n3\n4\n5\n6\n7\n8\n"
    backend.evidence = None


async def test_a_runner_that_speaks_while_its_backend_is_asked_is_not_lost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PULSE", 0.1)
    machine, backend = await bench.started()
    waiting = asyncio.create_task(machine.exec("read line; echo $line", stdin=b"well\n"))
    backend.evidence = Evidence(cause="daemon_frozen", detail="so the backend says, once it says something")
    backend.examination = asyncio.Event()
    backend.freeze()
    await until(lambda: backend.asked > 0, "the backend to be asked")
    backend.thaw()
    assert (await waiting).text == "well\n"
    backend.examination.set()
    await until(lambda: backend.answered == backend.asked, "it to answer")
    backend.examination = backend.evidence = None
    assert (await machine.exec("echo on")).text == "on\n"


async def test_a_deadline_that_the_runner_does_not_keep_the_controller_keeps(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosted_exec, "MARGIN", 0.3)
    machine, backend = await bench.started()
    backend.freeze()
    result = await machine.exec("sleep 60", timeout=0.2)
    assert result.timed_out
    assert result.signal == signal.SIGKILL
    assert result.exit_code is None
    assert (await machine.exec("true")).ok


async def test_a_lease_that_runs_out_ends_everything_inside(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def say_nothing(session: Session) -> None:
        del session

    monkeypatch.setattr(Session, "ping", say_nothing)
    machine, backend = await bench.started(lease=0.5)
    word = f"1000.{secrets.randbelow(10**9)}"
    seen = await evidence_of(machine.exec(f"env -i setsid sleep {word} & sleep {word}"))
    assert (seen.cause, seen.agents_doing) == ("expired", False)
    await until(lambda: not backend.root.exists(), "the place to be tidied up")
    assert running(word) == []
    machine, backend = await bench.started(lease=0.5)
    await until(lambda: not backend.root.exists(), "an idle place to be tidied up")
    assert (await evidence_of(machine.list())).cause == "expired"


async def test_a_controller_that_is_gone_leaves_nothing_behind(bench: Bench) -> None:
    machine, backend = await bench.started()
    word = f"1000.{secrets.randbelow(10**9)}"
    waiting = asyncio.create_task(machine.exec(f"env -i setsid sleep {word} & sleep {word}"))
    await until(lambda: len(running(word)) == 2, "the sleeps")
    await backend.channels[0].close()  # as the kernel does it for a process that is no more
    await until(lambda: running(word) == [] and list_root(bench.root) == [], "everything to go")
    assert (await evidence_of(waiting)).cause == "machine_removed"


async def test_a_life_that_cannot_be_made_longer_is_a_lost_machine(bench: Bench) -> None:
    machine, backend = await bench.started(lease=0.6)
    backend.evidence = Evidence(cause="expired", detail="so the provider says")
    assert (await evidence_of(machine.exec("sleep 60"))).cause == "expired"


RUBBISH = {
    "text": "yes rubbish | head -c 100000",
    "a frame of a kind that is none": r"printf '\237p\377\000\000\000\000\001\000\000\000\000'",
    "a frame larger than any": r"printf '\237p\041\000\000\000\000\001\377\377\377\377'",
    "news of no job": r"printf '\237p\044\000\000\000\377\377\000\000\000\002{}'",
    "an end that is no JSON": r"printf '\237p\044\000\000\000\000\001\000\000\000\002xx'",
    "an end of the wrong shape": 'printf \'\\237p\\044\\000\\000\\000\\000\\001\\000\\000\\000\\016{"code": "a"}..\'',
}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can write into the runner's channel")
@pytest.mark.parametrize("rubbish", RUBBISH.values(), ids=RUBBISH.keys())
async def test_rubbish_in_the_channel_is_a_lost_machine(bench: Bench, rubbish: str) -> None:
    machine, backend = await bench.started()
    seen = await evidence_of(machine.exec(f"{rubbish} >/proc/{backend.runner}/fd/4; sleep 60"))
    assert (seen.cause, seen.agents_doing) == ("runner_killed", True)


async def test_a_probe_finds_a_place_that_runs_nothing_any_more(bench: Bench, tmp_path: Path) -> None:
    machine, backend = await bench.started()
    assert 0 < await machine.probe() < 5
    backend.evidence = Evidence(cause="daemon_gone", detail="refused")
    assert (await evidence_of(machine.probe())).cause == "daemon_gone"
    backend.evidence = None
    backend.shell = "false"
    seen = await evidence_of(machine.probe())
    assert seen.agents_doing
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexec cat >/dev/null\n")
    silent.chmod(0o755)
    backend.shell = str(silent)
    with pytest.raises(MachineLost, match=r"within 0\.2 s"):
        await machine.probe(timeout=0.2)


async def test_a_shell_that_is_gone_is_no_failure_of_a_command(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, _ = await bench.started()
    monkeypatch.setattr(hosted_exec, "SHELL", "/bin/that-was-removed")
    seen = await evidence_of(machine.exec("true"))
    assert "cannot be started any more" in seen.detail
    assert seen.agents_doing


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a control group")
async def test_a_command_that_used_up_the_memory_has_evidence_of_it(bench: Bench) -> None:
    group = _memory_group()
    if group is None:
        pytest.skip("no control group for memory can be made here")
    try:
        machine, backend = await bench.started(group=group)
        result = await machine.exec(["python3", "-c", "x = bytearray(1 << 30); print(len(x))"], timeout=30)
        assert result.signal == signal.SIGKILL
        assert result.evidence is not None
        assert (result.evidence.cause, result.evidence.agents_doing) == ("out_of_memory", True)
        assert backend.killed_all == 0, "the command died and not the runner"
        assert (await machine.exec("kill -9 $$")).evidence is None
        await machine.stop()
    finally:
        group.rmdir()


def _memory_group() -> Path | None:
    group = Path("/sys/fs/cgroup/memory", f"palmette-test-{secrets.token_hex(4)}")
    if not group.parent.exists():
        return None
    try:
        group.mkdir()
    except OSError:
        return None
    (group / "memory.limit_in_bytes").write_text(str(128 << 20))
    return group
