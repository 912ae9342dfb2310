"""A whole training run, small: processes are killed, the program is stopped and killed, and no step is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from support.training_run import (
    HELD_OUT,
    ROLLOUTS,
    STEPS,
    Failing,
    failing_for,
    journal_in,
    new_training,
    tree,
    until_step,
)

from palmette.actors import System, is_graceful
from palmette.agents.conversation import ModelClient
from palmette.benchmarks.journal import EpisodeKey, JournalStore
from palmette.benchmarks.outcomes import AgentFailed, Scored
from palmette.machines import LocalMachine, MachineLost
from palmette.trainers import chaos, trainer, training
from palmette.trainers.course import Course
from palmette.trainers.policy_server import PolicyServer
from palmette.trainers.trainer import Trainer

PROGRAM = Path(__file__).parents[1] / "support" / "training_run.py"


@pytest.fixture(autouse=True)
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where episodes have their machines; nothing of them may be left."""
    place = tmp_path / "of-episodes"
    monkeypatch.setenv("PALMETTE_MACHINES", str(place))
    yield
    assert not place.exists() or os.listdir(place) == []


async def finish(folder: Path, run: str, *, chaos: bool = False) -> list[str]:
    """Play the run to its end; the crashes on the way."""
    async with asyncio.timeout(110), System.start(tree(folder, run, chaos=chaos)) as system:
        await system.wait_ended()
        return [str(record) for record in system.exits if not is_graceful(record.reason)]


def check(folder: Path, run: str) -> None:
    """All steps, learned from scored episodes alone, and every episode asked for has ended in one way."""
    with JournalStore(journal_in(folder)) as store:
        steps, episodes, tally = store.steps(run), store.episodes(run), store.tally(run)
        assert store.unscored_rows(run) == []
        assert store.get_run(run).status == "completed"
    assert [step.step for step in steps] == list(range(1, STEPS + 1))
    outcomes = {EpisodeKey(episode.task, episode.sample): episode.outcome for episode in episodes}
    assert len(outcomes) == len(episodes) == tally.requested == 2 * HELD_OUT + STEPS * ROLLOUTS
    for step in steps:
        rewards = [outcome.reward for key in step.rows if isinstance(outcome := outcomes[key], Scored)]
        assert len(rewards) == len(step.rows) == step.metrics["scored"]
        assert step.metrics["requested"] == ROLLOUTS
        assert step.metrics["reward"] == pytest.approx(sum(rewards) / len(rewards))


async def test_stopped_in_the_middle_and_then_killed_left_and_right_it_ends_after_the_same_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sabotage(plan: object) -> Callable[[ModelClient, EpisodeKey, int], ModelClient]:
        return lambda client, key, attempt: Failing(client) if failing_for(key) else client

    monkeypatch.setattr(training, "sabotage_client", sabotage)
    run = new_training(tmp_path)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(110):
        async with System.start(tree(tmp_path, run)) as system:
            await until_step(system, 1)
            pids = [
                await system.whereis("policy", PolicyServer).call(PolicyServer.pid),
                await system.whereis("trainer", Trainer).call(Trainer.pid),
            ]
            assert (await system.whereis("course", Course).call(Course.progress)).phase == "training"
            asked = loop.time()
        assert loop.time() - asked < 15, "a stop does not wait for what Hugging Face is in the middle of"
        assert not any(psutil.pid_exists(pid) for pid in pids)
    with JournalStore(journal_in(tmp_path)) as store:
        assert 1 <= len(store.steps(run)) < STEPS
        assert store.tally(run).requested == store.tally(run).scored, "an episode that was broken off stays open"

    crashes = await finish(tmp_path, run, chaos=True)

    check(tmp_path, run)
    with JournalStore(journal_in(tmp_path)) as store:
        kills = [event.child for event in store.events(run) if event.kind == chaos.KILL]
        tally = store.tally(run)
        failed = [episode for episode in store.episodes(run) if isinstance(episode.outcome, AgentFailed)]
    assert sorted(kills) == ["policy", "trainer"]
    for name in ("policy", "trainer"):
        assert sum(f"/training/{name}#" in crash and "killed" in crash for crash in crashes) == 1
    assert tally.agent_failed == len(failed) > 0
    assert all(failing_for(EpisodeKey(episode.task, episode.sample)) for episode in failed)


async def test_a_program_killed_with_all_its_processes_goes_on_from_its_last_step(tmp_path: Path) -> None:
    run = new_training(tmp_path)
    await asyncio.to_thread(killed_after_one_step, tmp_path, run)
    with JournalStore(journal_in(tmp_path)) as store:
        before = store.steps(run)
        ended = store.finished(run)
    assert 1 <= len(before) < STEPS
    await finish(tmp_path, run)
    check(tmp_path, run)
    with JournalStore(journal_in(tmp_path)) as store:
        after = store.steps(run)
        assert ended <= store.finished(run)
        # A step that was done again learned from the same episodes and came to the same numbers.
        assert [step.rows for step in after[: len(before)]] == [step.rows for step in before]
        for old, new in zip(before, after, strict=False):
            assert new.metrics["loss"] == pytest.approx(old.metrics["loss"], abs=1e-6)


def killed_after_one_step(folder: Path, run: str) -> None:
    """Run the program, and kill its whole group once a step is done."""
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), str(folder), run],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "step 1\n"  # the test's own time limit is the deadline
        os.killpg(program.pid, signal.SIGKILL)


async def test_destroying_a_sandbox_kills_its_command_and_removes_it(tmp_path: Path) -> None:
    async with LocalMachine("test", root=tmp_path / "machines") as machine:
        directory = machine.directory
        assert directory.is_dir()
        with pytest.raises(MachineLost):
            await chaos.destroy(machine)
        assert not directory.exists()
        assert not [child for child in psutil.Process().children(recursive=True) if child.name() in ("sh", "sleep")]


async def test_work_that_a_thread_waits_for_in_vain_is_cancelled() -> None:
    cancelled = asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def answer() -> int:
        return 42

    loop = asyncio.get_running_loop()
    with pytest.raises(TimeoutError):
        await asyncio.to_thread(trainer.on_loop, loop, hang, 0.05)
    async with asyncio.timeout(5):
        await cancelled.wait()
    assert await asyncio.to_thread(trainer.on_loop, loop, answer, 5.0) == 42
    assert threading.active_count() < 50
