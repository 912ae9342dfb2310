"""Commands on a local machine: how they end, what is kept of them, and that nothing of them runs on."""

from __future__ import annotations

import asyncio
import math
import os
import resource
import secrets
import signal
from collections.abc import Callable

import pytest
from machines_support import open_descriptors, running, tagged, until

from palmette.machines import CommandNotStarted, ExecResult, Limits, LocalMachine, MachineLost, tree
from palmette.machines.wrapper import raise_own_failure

pytestmark = pytest.mark.usefixtures("containment")


async def test_a_command_returns_its_exit_code_and_both_streams(machine: LocalMachine) -> None:
    result = await machine.exec("echo out; echo err >&2; exit 7")
    assert (result.exit_code, result.signal, result.stdout, result.stderr) == (7, None, b"out\n", b"err\n")
    assert not result.ok
    assert result.duration > 0


async def test_a_sequence_is_executed_without_a_shell_looking_at_it(machine: LocalMachine) -> None:
    result = await machine.exec(["printf", "%s|", "$HOME", "a b", "*", "", "'"])
    assert result.stdout == b"$HOME|a b|*||'|"


@pytest.mark.parametrize("command", ["", "# only a comment", "\ntrue\n", "true;"])
async def test_odd_but_valid_shell_text_runs(machine: LocalMachine, command: str) -> None:
    assert (await machine.exec(command)).ok


async def test_a_syntax_error_is_the_commands_own_failure(machine: LocalMachine) -> None:
    result = await machine.exec("if then")
    assert result.exit_code not in (0, None)
    assert result.stderr


async def test_a_signal_is_told_from_an_exit_code(machine: LocalMachine) -> None:
    result = await machine.exec("kill -TERM $$")
    assert (result.exit_code, result.signal) == (None, signal.SIGTERM)


async def test_a_command_killed_from_outside_has_a_result_that_says_so(machine: LocalMachine) -> None:
    task = asyncio.create_task(machine.exec("echo before; exec sleep 1000"))
    await until(lambda: bool(running("1000") and tagged(machine.id)), "the command to run")
    await until(lambda: bool(set(running("1000")) & set(tagged(machine.id))), "the sleep to run")
    for pid in set(running("1000")) & set(tagged(machine.id)):
        os.kill(pid, signal.SIGKILL)
    result = await task
    assert (result.exit_code, result.signal, result.stdout) == (None, signal.SIGKILL, b"before\n")
    assert not result.timed_out


async def test_output_without_a_newline_and_not_utf8_arrives_as_it_is(machine: LocalMachine) -> None:
    result = await machine.exec(r"printf '\377\376\000x'")
    assert result.stdout == b"\xff\xfe\x00x"
    assert result.text == "\ufffd\ufffd\x00x"


async def test_binary_stdin_larger_than_any_pipe_comes_back_unchanged(machine: LocalMachine) -> None:
    data = secrets.token_bytes(5_000_000)
    result = await machine.exec(["cat"], stdin=data, max_output=len(data))
    assert result.stdout == data
    assert result.bytes_left_out == 0


async def test_a_command_need_not_read_its_stdin(machine: LocalMachine) -> None:
    assert (await machine.exec("exit 3", stdin=b"x" * 10_000_000)).exit_code == 3


async def test_without_stdin_a_reader_sees_the_end_at_once(machine: LocalMachine) -> None:
    assert (await machine.exec(["cat"], timeout=20)).ok


async def test_of_a_flood_the_head_and_the_tail_are_kept_and_the_rest_is_counted(machine: LocalMachine) -> None:
    result = await machine.exec("echo first; head -c 100000000 /dev/zero; echo last", max_output=1000)
    assert len(result.stdout) == 1000
    assert result.stdout.startswith(b"first\n")
    assert result.stdout.endswith(b"last\n")
    assert result.bytes_left_out == 100_000_000 + len(b"first\nlast\n") - 1000


async def test_output_is_streamed_while_the_command_runs(machine: LocalMachine) -> None:
    seen: dict[str, bytes] = {"stdout": b"", "stderr": b""}

    def on_output(name: str, chunk: bytes) -> None:
        seen[name] += chunk

    task = asyncio.create_task(machine.exec("echo one; echo two >&2; exec sleep 1000", on_output=on_output))
    await until(lambda: seen == {"stdout": b"one\n", "stderr": b"two\n"}, "the output")
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_exception_from_on_output_kills_the_command_and_comes_out(machine: LocalMachine) -> None:
    def on_output(name: str, chunk: bytes) -> None:
        raise RuntimeError(f"cannot take {chunk!r}")

    with pytest.raises(RuntimeError, match="cannot take b'x"):
        await machine.exec("echo x; exec sleep 1000", on_output=on_output)
    assert tagged(machine.id) == []


async def test_output_is_kept_when_the_time_is_up(machine: LocalMachine) -> None:
    result = await machine.exec("echo so far; exec sleep 1000", timeout=0.3)
    assert result.timed_out
    assert (result.exit_code, result.signal, result.stdout) == (None, signal.SIGKILL, b"so far\n")
    assert not result.ok


RUNAWAYS = {
    "a child": "sleep 1000",
    "a background child": "sleep 1000 & wait",
    "a session of its own": "setsid sleep 1000 & wait",
    "a double fork": "(setsid sh -c 'sleep 1000 & exec sleep 1000' &) ; sleep 1000",
    "who ignores signals": "trap '' TERM INT HUP; sleep 1000",
    "a cleared environment in the group": "env -i sleep 1000 & wait",
}


@pytest.mark.parametrize("command", RUNAWAYS.values(), ids=RUNAWAYS.keys())
async def test_after_a_timeout_nothing_of_the_command_runs(machine: LocalMachine, command: str) -> None:
    word = f"1000.{secrets.randbelow(10**9)}"
    result = await machine.exec(command.replace("1000", word), timeout=0.3)
    assert result.timed_out
    assert running(word) == []


DAEMONS = {
    "silent": "sleep 1000 >/dev/null 2>&1 &",
    "in a session of its own": "setsid sleep 1000 >/dev/null 2>&1 </dev/null &",
    "double forked": "(setsid sh -c 'sleep 1000 & exec sleep 1000' >/dev/null 2>&1 &)",
}


@pytest.mark.parametrize("command", DAEMONS.values(), ids=DAEMONS.keys())
async def test_after_a_normal_end_nothing_of_the_command_runs(machine: LocalMachine, command: str) -> None:
    word = f"1000.{secrets.randbelow(10**9)}"
    result = await machine.exec(command.replace("1000", word) + "\necho done", timeout=30)
    assert (result.ok, result.stdout, result.pipe_held) == (True, b"done\n", False)
    assert running(word) == []


ESCAPES = {
    "cleared its environment": "(env -i setsid sleep 1000 >/dev/null 2>&1 &)",
    "cleared its environment and holds the output": "(env -i setsid sleep 1000 &)",
    "in a control group below": "mkdir GROUP/deep; (sleep 1000 & echo $! >GROUP/deep/cgroup.procs)",
}


@pytest.mark.parametrize("command", ESCAPES.values(), ids=ESCAPES.keys())
async def test_a_control_group_holds_also_who_cleared_its_environment(
    machine: LocalMachine, containment: str, command: str
) -> None:
    base = tree.own_group()
    if containment != "group" or base is None or ("GROUP" in command and os.geteuid() != 0):
        pytest.skip("only a control group holds these")
    word = f"1000.{secrets.randbelow(10**9)}"
    command = command.replace("GROUP", f"{base}/{tree.GROUP_PREFIX}${tree.EXEC_TAG}").replace("1000", word)
    assert (await machine.exec(command + "\nexit 0", timeout=30)).ok
    timed_out = await machine.exec(command + f"\nsleep {word}", timeout=0.3)
    assert timed_out.timed_out
    assert timed_out.stderr == b""
    assert running(word) == []


async def test_a_command_that_cannot_join_its_group_does_not_run(
    machine: LocalMachine, monkeypatch: pytest.MonkeyPatch, containment: str
) -> None:
    for kind in (tree.GroupTree, tree.TaggedTree):
        monkeypatch.setattr(kind, "entry", lambda self: "echo 0 >/no/such/group")  # pyright: ignore
    with pytest.raises(MachineLost, match="control group"):
        await machine.exec("touch ran")
    assert await machine.list() == []


async def test_who_holds_the_output_after_the_end_is_reported_and_killed(machine: LocalMachine) -> None:
    word = f"1000.{secrets.randbelow(10**9)}"
    result = await machine.exec(f"setsid sleep {word} & echo done", timeout=30)
    assert (result.ok, result.stdout, result.pipe_held, result.timed_out) == (True, b"done\n", True, False)
    assert running(word) == []


async def test_who_finishes_its_output_just_after_the_end_is_waited_for(machine: LocalMachine) -> None:
    # The first process ends; its child writes when it notices that it has lost its parent.
    script = "p=$$; (while kill -0 $p 2>/dev/null && ! grep -q ' Z ' /proc/$p/stat; do :; done; echo late) &"
    result = await machine.exec(script, timeout=30)
    assert (result.stdout, result.pipe_held) == (b"late\n", False)


async def test_cancelling_kills_the_tree(machine: LocalMachine) -> None:
    word = f"1000.{secrets.randbelow(10**9)}"
    task = asyncio.create_task(machine.exec(f"setsid sleep {word} & sleep {word}"))
    await until(lambda: len(running(word)) == 2, "both sleeps")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert running(word) == []


async def test_cancelling_again_during_the_burial_changes_nothing(machine: LocalMachine) -> None:
    word = f"1000.{secrets.randbelow(10**9)}"
    task = asyncio.create_task(machine.exec(f"setsid sleep {word} & sleep {word}"))
    await until(lambda: len(running(word)) == 2, "both sleeps")
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    assert task.cancelled()
    assert running(word) == []


@pytest.mark.parametrize("turns", range(12))
async def test_cancelling_after_any_number_of_loop_turns_leaves_nothing(machine: LocalMachine, turns: int) -> None:
    word = f"1000.{secrets.randbelow(10**9)}"
    task = asyncio.create_task(machine.exec(f"sleep {word} & exit 0"))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() or task.result().exit_code == 0
    assert running(word) == []


async def test_commands_run_side_by_side_and_only_their_own_trees_die(machine: LocalMachine) -> None:
    word = f"1000.{secrets.randbelow(10**9)}"
    long = asyncio.create_task(machine.exec(["sleep", word]))
    await until(lambda: len(running(word)) == 1, "the long one")
    results = await asyncio.gather(*(machine.exec(f"echo {n}; sleep 1000 & exit {n}") for n in range(20)))
    assert [(result.exit_code, result.stdout) for result in results] == [(n, b"%d\n" % n) for n in range(20)]
    assert len(running(word)) == 1
    long.cancel()
    await asyncio.wait([long])


async def test_the_environment_is_ours_alone(machine: LocalMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    result = await machine.exec(["env"], env={"EXTRA": "1"})
    variables = dict(line.split("=", 1) for line in result.text.splitlines())
    assert variables.keys() - {"PWD", "_", "SHLVL", "OLDPWD"} == {
        *("PATH", "LANG", "HOME", "TMPDIR", "EXTRA", tree.MACHINE_TAG, tree.EXEC_TAG)
    }
    assert variables["HOME"] == str(machine.directory)
    assert (await machine.exec('touch "$TMPDIR/x" && ls "$TMPDIR"')).stdout == b"x\n"
    assert await machine.list() == []


async def test_the_tags_cannot_be_overwritten(machine: LocalMachine) -> None:
    with pytest.raises(ValueError, match=tree.EXEC_TAG):
        await machine.exec("true", env={tree.EXEC_TAG: "other"})


async def test_a_command_starts_in_the_directory_it_is_given(machine: LocalMachine) -> None:
    await machine.put("deep/down/file", b"")
    assert (await machine.exec("ls", cwd="deep/down")).stdout == b"file\n"
    assert (await machine.exec(["ls"], cwd="/deep")).stdout == b"down\n"
    assert (await machine.exec("pwd")).text.rstrip() == str(machine.directory)


async def test_a_program_may_be_named_relative_to_the_directory(machine: LocalMachine) -> None:
    await machine.put("bin/tool", b"#!/bin/sh\necho tool $1\n", mode=0o755)
    assert (await machine.exec(["bin/tool", "a"])).stdout == b"tool a\n"
    assert (await machine.exec(["./tool", "b"], cwd="bin")).stdout == b"tool b\n"


@pytest.mark.parametrize(
    ("command", "cwd", "says"),
    [
        (["no-such-program"], ".", "no such program on PATH"),
        (["./nothing"], ".", "no such program in"),
        (["./plain"], ".", "chmod"),
        (["./directory"], ".", "is a directory"),
        (["./script"], ".", "/no/such/interpreter"),
        ([], ".", "needs a program"),
        ("true", "nowhere", "no directory 'nowhere'"),
        ("true", "plain", "no directory 'plain'"),
        ("true #" + "x" * 200_000, ".", "128 KiB"),
    ],
)
async def test_a_command_that_cannot_start_says_why(
    machine: LocalMachine, command: str | list[str], cwd: str, says: str
) -> None:
    await machine.put("plain", b"text")
    await machine.put("directory/x", b"")
    await machine.put("script", b"#!/no/such/interpreter\n", mode=0o755)
    with pytest.raises(CommandNotStarted, match=says):
        await machine.exec(command, cwd=cwd)


@pytest.mark.parametrize("timeout", [0, -1, math.inf, math.nan])
async def test_a_command_without_a_real_deadline_is_refused(machine: LocalMachine, timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        await machine.exec("true", timeout=timeout)


async def test_limits_hold(machine: LocalMachine) -> None:
    big = await machine.exec("head -c 1000000 /dev/zero >big; stat -c %s big", limits=Limits(file_size=4096))
    assert big.stdout == b"4096\n"
    burn = await machine.exec("while :; do :; done", timeout=30, limits=Limits(cpu=1))
    assert burn.signal == signal.SIGXCPU
    memory = ["python3", "-c", "bytearray(1 << 30)"]
    assert (await machine.exec(memory, limits=Limits(memory=256 << 20))).exit_code == 1
    shown = await machine.exec(["cat", "/proc/self/limits"], limits=Limits(processes=77, memory=256 << 20))
    rows = {line[:25].strip(): line[25:].split()[:2] for line in shown.text.splitlines()}
    assert rows["Max processes"] == ["77", "77"]
    assert rows["Max address space"] == [str(256 << 20)] * 2
    assert rows["Max core file size"] == ["0", "0"]


@pytest.mark.parametrize("name", ["memory", "cpu", "file_size", "processes"])
@pytest.mark.parametrize("value", [0, -1, 1 << 80])
async def test_a_limit_that_means_nothing_is_refused(machine: LocalMachine, name: str, value: int) -> None:
    with pytest.raises(ValueError, match=name):
        await machine.exec("true", limits=Limits(**{name: value}))


async def test_an_exit_status_taken_by_somebody_else_is_no_success(machine: LocalMachine) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pytest.raises(MachineLost, match="exit status"):
            await machine.exec("true")
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize("room", range(12))
async def test_no_descriptor_left_on_the_host_is_a_lost_machine(machine: LocalMachine, room: int) -> None:
    assert (await machine.exec("true")).ok
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = {fd for fd, _ in open_descriptors()}
    highest = max(taken) + 1
    holders = [os.dup(0) for fd in range(highest) if fd not in taken]
    # With one more descriptor at each go, another step of the start is the one that fails.
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + room, hard))
    try:
        outcome = await asyncio.gather(machine.exec("true"), return_exceptions=True)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in holders:
            os.close(fd)
    if room < 6:
        assert isinstance(outcome[0], MachineLost)
        assert "descriptors" in str(outcome[0])
    else:
        assert isinstance(outcome[0], MachineLost) or (isinstance(outcome[0], ExecResult) and outcome[0].ok)
    assert (await machine.exec("true")).ok


async def test_a_wrapper_failure_is_told_from_the_commands_own_125(machine: LocalMachine) -> None:
    assert (await machine.exec("echo no >&2; exit 125")).exit_code == 125
    raise_own_failure(125, b"no\n", mark="mark")
    with pytest.raises(CommandNotStarted, match="ulimit: not permitted"):
        raise_own_failure(125, b"sh: ulimit: not permitted\nmark limits\n", mark="mark")
    with pytest.raises(MachineLost, match="control group"):
        raise_own_failure(125, b"mark tree\n", mark="mark")


async def test_results_are_plain_data(machine: LocalMachine) -> None:
    import msgspec

    result = await machine.exec("printf x")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(result), type=ExecResult) == result


async def test_two_machines_do_not_see_each_others_death(started: Callable[[], LocalMachine]) -> None:
    one, other = started(), started()
    await one.start()
    await other.start()
    word = f"1000.{secrets.randbelow(10**9)}"
    task = asyncio.create_task(other.exec(["sleep", word]))
    await until(lambda: len(running(word)) == 1, "the sleep")
    await one.exec("true")
    await one.stop()
    assert len(running(word)) == 1
    await other.stop()
    with pytest.raises(MachineLost, match="stopped"):
        await task
