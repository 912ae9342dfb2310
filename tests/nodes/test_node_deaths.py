"""Death in a process node: by crash, by exit, by signal; whoever waits, watches or is linked learns of it at once."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from node_actors import Graceful, Marking, Worker
from node_bench import Bench
from node_processes import is_alive, until, until_call

from palmette.actors import ActorDied, Crashed, Killed, NoProcess, Normal, Ref, Shutdown
from palmette.supervisors import DynamicSupervisor, child
from palmette.supervisors.spec import Isolation

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def log_of(worker: Ref[Worker], line: str) -> list[str]:
    """The log of ``worker`` once it has ``line``."""
    return await until_call(lambda: worker.call(Worker.log), lambda log: line in log)


async def test_a_crash_reaches_the_caller_with_type_text_and_traceback(bench: Bench) -> None:
    worker = await bench.spare("crasher")
    with pytest.raises(ActorDied, match="/more/crasher died: LookupError: no such key") as caught:
        await worker.call(Worker.crash, "no such key")
    reason = caught.value.reason
    assert isinstance(reason, Crashed)
    assert reason.error == "builtins.LookupError"
    assert reason.text == "no such key"
    assert "raise LookupError(text)" in reason.traceback
    assert "node_actors.py" in reason.traceback


async def test_an_actor_in_a_node_learns_how_another_node_died(bench: Bench) -> None:
    worker = await bench.spare("crasher")
    assert await bench.there.call(Worker.crash_other, worker) == "/more/crasher died: LookupError: because"


async def test_sys_exit_in_a_handler_is_a_crash_like_any_other(bench: Bench) -> None:
    worker = await bench.spare("leaver")
    with pytest.raises(ActorDied, match="SystemExit: I have had enough"):
        await worker.call(Worker.exit_python, False)


async def test_sys_exit_in_a_task_that_nobody_owns_ends_the_process(bench: Bench) -> None:
    worker = await bench.spare("leaver")
    pid = await worker.call(Worker.pid)
    worker.cast(Worker.exit_loose)
    with pytest.raises(ActorDied) as caught:
        await worker.call(Worker.sleep, 60.0)
    assert isinstance(caught.value.reason, Killed | NoProcess)
    await until(lambda: not is_alive(pid))


async def test_a_hard_exit_is_a_death_without_a_word(bench: Bench) -> None:
    worker = await bench.spare("leaver")
    pid = await worker.call(Worker.pid)
    with pytest.raises(ActorDied, match=f"died: killed .its process {pid} ended without a word"):
        await worker.call(Worker.exit_python, True)


async def test_a_segmentation_fault_ends_the_process(bench: Bench) -> None:
    worker = await bench.spare("segfaulter")
    with pytest.raises(ActorDied, match="without a word"):
        await worker.call(Worker.segfault)


async def test_kill_9_ends_calls_monitors_and_waits_at_once(bench: Bench) -> None:
    worker = await bench.spare("victim")
    pid = await worker.call(Worker.pid)
    await bench.here.call(Worker.watch, worker)
    await bench.there.call(Worker.watch, worker)
    calls = [asyncio.ensure_future(worker.call(Worker.sleep, 60.0)) for _ in range(3)]
    relayed = asyncio.ensure_future(bench.yonder.call(Worker.attempt, worker, 60.0))
    await asyncio.sleep(0)
    os.kill(pid, signal.SIGKILL)
    for result in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(result, ActorDied)
        assert isinstance(result.reason, Killed)
    assert (await relayed).startswith("ActorDied: /more/victim")
    await log_of(bench.here, "down /more/victim Killed")
    await log_of(bench.there, "down /more/victim Killed")
    assert not worker.is_alive()
    with pytest.raises(ActorDied):
        await worker.call(Worker.pid)


async def test_what_was_sent_before_a_death_arrives_before_its_down(bench: Bench) -> None:
    worker = await bench.spare("sender")
    await bench.here.call(Worker.watch, worker)
    await worker.call(Worker.poke, bench.here, "last words")
    with pytest.raises(ActorDied):
        await worker.call(Worker.crash, "done")
    log = await log_of(bench.here, "down /more/sender Crashed")
    assert log.index("send last words") < log.index("down /more/sender Crashed")


async def test_monitors_tell_of_ends_on_either_side(bench: Bench) -> None:
    inline = await bench.start(child(Worker, name="inline", restart="temporary"))
    remote = await bench.start(child(Graceful, name="remote", isolation="process", restart="temporary"))
    await bench.there.call(Worker.watch, inline)
    await bench.there.call(Worker.watch, remote)
    await inline.stop()
    await bench.system.ref_at("/more/remote", Graceful).call(Graceful.finish)
    await log_of(bench.there, "down /more/inline Shutdown")
    await log_of(bench.there, "down /more/remote Shutdown")


async def test_a_monitor_of_nobody_tells_at_once_from_a_node_too(bench: Bench) -> None:
    await bench.there.call(Worker.watch, bench.system.ref_at("/gone/long/since", Worker))
    await log_of(bench.there, "down /gone/long/since NoProcess")


# --- links -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["crash", "kill"])
@pytest.mark.parametrize(
    ("trapping", "dying"),
    [("inline", "process"), ("process", "inline"), ("process", "process")],
)
async def test_a_link_tells_one_who_traps_once(bench: Bench, trapping: Isolation, dying: Isolation, end: str) -> None:
    watcher = await bench.start(child(Worker, name="watcher", isolation=trapping, restart="temporary"))
    victim = await bench.start(child(Worker, name="victim", isolation=dying, restart="temporary"))
    await watcher.call(Worker.tie, victim, trap=True)
    await victim.call(Worker.tie, watcher)  # from both sides: it is one link
    if end == "kill":
        victim.kill()
    else:
        with pytest.raises(ActorDied):
            await victim.call(Worker.crash, "x")
    expected = "exit /more/victim " + ("Killed" if end == "kill" else "Crashed")
    await log_of(watcher, expected)
    assert (await watcher.call(Worker.log)).count(expected) == 1
    await watcher.stop()


@pytest.mark.parametrize(
    ("first", "second"),
    [("inline", "process"), ("process", "inline"), ("process", "process")],
)
async def test_a_link_ends_one_who_does_not_trap(bench: Bench, first: Isolation, second: Isolation) -> None:
    one = await bench.start(child(Worker, name="one", isolation=first, restart="temporary"))
    two = await bench.start(child(Worker, name="two", isolation=second, restart="temporary"))
    await one.call(Worker.tie, two)  # the link was made by the one that dies: its maker
    one.kill("for the test")
    await until(lambda: not two.is_alive(), "the linked actor ends too")


async def test_a_link_to_a_process_that_is_killed_from_outside_ends_both(bench: Bench) -> None:
    one, two = await bench.spare("one"), await bench.spare("two")
    await one.call(Worker.tie, two)
    os.kill(await one.call(Worker.pid), signal.SIGKILL)
    await until(lambda: not two.is_alive(), "the linked actor ends too")


async def test_a_link_that_was_undone_ends_nobody(bench: Bench) -> None:
    one, two = await bench.spare("one"), await bench.spare("two")
    await one.call(Worker.tie, two)
    await one.call(Worker.untie, two)
    await bench.here.call(Worker.watch, one)
    one.kill()
    await log_of(bench.here, "down /more/one Killed")
    assert await two.call(Worker.log) == []
    await two.stop()


async def test_a_link_to_nobody_is_an_exit_at_once(bench: Bench) -> None:
    await bench.there.call(Worker.tie, bench.system.ref_at("/nobody", Worker), trap=True)
    await log_of(bench.there, "exit /nobody NoProcess")


# --- ends in order, and by force -------------------------------------------------------------------------------------


async def test_a_stop_runs_the_hook_in_the_node(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "said"
    worker = await bench.start(child(Marking, str(file), name="marking", isolation="process", restart="temporary"))
    pid = await worker.call(Worker.pid)
    await worker.stop(Normal())
    assert file.read_text() == f"/more/marking Normal {pid}\n"
    assert not is_alive(pid)


@pytest.mark.parametrize("block", [False, True])
async def test_a_hook_that_outlasts_its_shutdown_time_is_cut_off(bench: Bench, tmp_path: Path, block: bool) -> None:
    said = tmp_path / "said"
    spec = child(
        Marking,
        str(said),
        seconds=60.0,
        block=block,
        name="slow",
        isolation="process",
        restart="temporary",
        shutdown=0.2,
    )
    worker = await bench.start(spec)
    pid = await worker.call(Worker.pid)
    await bench.more.call(DynamicSupervisor.terminate_child, "slow")
    assert said.read_text() == f"/more/slow Shutdown {pid}\n"
    assert not worker.is_alive()
    assert not is_alive(pid)


@pytest.mark.parametrize("hang", [False, True])
async def test_exit_handlers_run_at_an_orderly_end_and_may_not_hang(bench: Bench, tmp_path: Path, hang: bool) -> None:
    worker = await bench.spare("tidy")
    pid = await worker.call(Worker.pid)
    await worker.call(Worker.at_exit, str(tmp_path / "tidied"), hang)
    await worker.stop()
    assert (tmp_path / "tidied").exists()
    assert not worker.is_alive()
    assert not is_alive(pid)
    assert isinstance(bench.system.why("/more/tidy")[-1].reason, Shutdown)


async def test_a_handler_that_blocks_its_node_blocks_nobody_else_and_can_be_killed(bench: Bench) -> None:
    worker = await bench.spare("blocked")
    pid = await worker.call(Worker.pid)
    blocked = asyncio.ensure_future(worker.call(Worker.block, 60.0))
    assert await bench.there.call(Worker.pid) != pid
    worker.kill("it blocks")
    with pytest.raises(ActorDied, match=r"killed \(it blocks\)"):
        await blocked
    assert not is_alive(pid)


async def test_what_a_node_forked_dies_with_it(bench: Bench) -> None:
    worker = await bench.spare("parent")
    forked = await worker.call(Worker.fork)
    program, _ = await worker.call(Worker.run_program)
    os.kill(await worker.call(Worker.pid), signal.SIGKILL)
    # The forked process inherited the connection. Its copy must not keep the death a secret.
    await until(lambda: not worker.is_alive())
    await until(lambda: not is_alive(forked) and not is_alive(program))
