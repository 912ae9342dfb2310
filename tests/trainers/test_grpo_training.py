"""GRPO: only scored episodes teach, everything is counted, and a killed run goes on where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support import grpo_run
from support.grpo_run import CONFIG, EOS, PROMPTS, episode, episodes, logged_run

from palmette.benchmarks.outcomes import JudgeFailed, Scored, Stale, Tally
from palmette.trainers import checkpoints
from palmette.trainers.grpo import NothingScored, RolloutsWrong, run_grpo
from palmette.trainers.grpo_config import GrpoConfig, RolloutBatch, StepMetrics
from palmette.trainers.policy import load_model, weights_to_bytes
from palmette.trainers.rows import TrainingRow, unscorable

SHORT = msgspec.structs.replace(CONFIG, max_steps=2, gradient_accumulation_steps=1, save_steps=10)


def weights(path: Path) -> bytes:
    return weights_to_bytes(load_model(path))


def nowhere(weights: bytes, version: int) -> None:
    """Made-up episodes need no policy server."""


def train(
    policy_dir: Path,
    output: Path,
    rollouts: Callable[[RolloutBatch], Sequence[TrainingRow]] = episodes,
    config: GrpoConfig = SHORT,
    *,
    prompts: Sequence[tuple[str, str]] = PROMPTS,
    publish: Callable[[bytes, int], None] = nowhere,
    resume: bool = False,
) -> list[StepMetrics]:
    steps: list[StepMetrics] = []
    run_grpo(
        config,
        model_dir=policy_dir,
        output_dir=output,
        prompts=prompts,
        rollouts=rollouts,
        publish=publish,
        on_step=steps.append,
        resume=resume,
    )
    return steps


def one_less(rows: list[TrainingRow]) -> list[TrainingRow]:
    return rows[:-1]


def one_more(rows: list[TrainingRow]) -> list[TrainingRow]:
    return [*rows, rows[0]]


def swapped(rows: list[TrainingRow]) -> list[TrainingRow]:
    return rows[4:] + rows[:4]


@pytest.fixture(scope="module")
def undisturbed(policy_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], bytes]:
    """What a run that nobody disturbs logs, and what it comes to."""
    log: list[str] = []
    final = logged_run(policy_dir, tmp_path_factory.mktemp("undisturbed") / "run", log.append, resume=False)
    return log, weights(final)


def test_every_step_publishes_its_weights_then_asks_then_learns(
    undisturbed: tuple[list[str], bytes], policy_dir: Path
) -> None:
    log, final = undisturbed
    expected = [what for step in range(1, 9) for what in (f"publish {step - 1}", f"rollout {step}", f"step {step}")]
    assert [" ".join(line.split()[:2]) for line in log] == expected
    assert final != weights(policy_dir)
    for line in log[1::3]:
        tasks = [word.split(":")[0] for word in line.split()[2:]]
        assert len(tasks) == CONFIG.rollouts_per_step == 16
        assert all(len(set(tasks[group : group + 4])) == 1 for group in range(0, 16, 4))  # groups are together
    asked = [task for line in log[1::3] for task in line.split()[2:]]
    assert len(set(asked)) == len(asked)  # no seed twice
    order = [word.split(":")[0] for line in log[1::3] for word in line.split()[2::4]]
    assert all(set(order[start : start + 5]) == {task for task, _ in PROMPTS} for start in range(0, 30, 5))


def test_a_run_killed_with_sigkill_goes_on_as_if_nothing_had_been(
    undisturbed: tuple[list[str], bytes], policy_dir: Path, tmp_path: Path
) -> None:
    log, output = tmp_path / "log", tmp_path / "run"
    victim = subprocess.Popen(
        [sys.executable, grpo_run.__file__, str(policy_dir), str(output), str(log)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        deadline = time.monotonic() + 90.0
        while not (log.exists() and "step 4" in log.read_text()):
            assert victim.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline, "the run did not reach step 4"
            time.sleep(0.001)  # polling another process
    finally:
        victim.send_signal(signal.SIGKILL)  # somewhere between the end of step 4 and the beginning of step 7
        victim.wait(10.0)
    before = log.read_text().splitlines()
    latest = checkpoints.newest(output)
    assert latest is not None
    assert latest.step >= 3

    after: list[str] = []
    final = logged_run(policy_dir, output, after.append, resume=True)
    everything, expected = undisturbed
    assert after == everything[3 * latest.step :]  # the very next step, and every one after it, once
    assert before == everything[: len(before)]
    assert weights(final) == expected
    again: list[str] = []
    assert logged_run(policy_dir, output, again.append, resume=True) == final
    assert again == []


@pytest.mark.parametrize("damage", ["no seal", "cut weights", "a file missing", "an empty seal"])
def test_a_half_written_checkpoint_is_skipped(
    damage: str, undisturbed: tuple[list[str], bytes], policy_dir: Path, tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    log: list[str] = []

    def until_step_4(line: str) -> None:
        if line == "publish 4":
            raise Killed
        log.append(line)

    with pytest.raises(Killed):
        logged_run(policy_dir, tmp_path, until_step_4, resume=False)
    newest = tmp_path / "checkpoint-4"
    assert checkpoints.newest(tmp_path) == (4, newest)
    if damage == "no seal":
        (newest / checkpoints.SEAL).unlink()
    elif damage == "cut weights":
        whole = (newest / "model.safetensors").read_bytes()
        (newest / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    elif damage == "a file missing":
        (newest / "optimizer.pt").unlink()
    else:
        (newest / checkpoints.SEAL).write_bytes(b"")
    assert checkpoints.newest(tmp_path) == (3, tmp_path / "checkpoint-3")
    after: list[str] = []
    final = logged_run(policy_dir, tmp_path, after.append, resume=True)
    assert after == undisturbed[0][9:]
    assert weights(final) == undisturbed[1]


def test_a_run_killed_between_its_last_checkpoint_and_the_export_takes_no_further_step(
    undisturbed: tuple[list[str], bytes], policy_dir: Path, tmp_path: Path
) -> None:
    final = logged_run(policy_dir, tmp_path, lambda line: None, resume=False)
    final.rename(tmp_path / ".final.partial")
    log: list[str] = []
    assert weights(logged_run(policy_dir, tmp_path, log.append, resume=True)) == undisturbed[1]
    assert log == []
    assert not (tmp_path / ".final.partial").exists()


def test_all_outcomes_are_counted_and_the_mean_is_over_the_scored_alone(policy_dir: Path, tmp_path: Path) -> None:
    def rollouts(batch: RolloutBatch) -> list[TrainingRow]:
        rows: list[TrainingRow] = []
        for index, request in enumerate(batch.requests):
            row = episode(msgspec.structs.replace(request, seed=1), batch.policy_version)
            row = msgspec.structs.replace(row, outcome=Scored(reward=index % 2))
            if index == 0:
                row = unscorable(row.task_id, row.group, JudgeFailed(reason="down"), eos_id=EOS)
            elif index == 1:
                row = msgspec.structs.replace(row, policy_version=batch.policy_version - 1)
            elif index == 2:
                row = msgspec.structs.replace(row, policy_version=batch.policy_version + 1)
            rows.append(row)
        return rows

    steps = train(policy_dir, tmp_path / "run", rollouts)
    assert [(metrics.step, metrics.total_steps) for metrics in steps] == [(1, 2), (2, 2)]
    for metrics in steps:
        assert metrics.tally == Tally(scored=5, judge_failed=1, stale=2, reward_sum=3.0)
        assert metrics.tally.requested == SHORT.rollouts_per_step
        assert metrics.tally.mean_reward == 0.6
        assert 0.0 <= metrics.rollout_seconds <= metrics.seconds


def test_rows_without_a_reward_change_nothing_in_the_policy(policy_dir: Path, tmp_path: Path) -> None:
    """The same scored rows beside different unscored ones teach the same: an unscored row is no zero."""

    def rollouts(batch: RolloutBatch, stale: bool) -> list[TrainingRow]:
        rows = episodes(batch)
        lost = rows[5]
        assert lost.reward is not None
        rows[5] = (
            msgspec.structs.replace(lost, outcome=Scored(reward=1000.0), policy_version=batch.policy_version - 1)
            if stale
            else unscorable(lost.task_id, lost.group, JudgeFailed(reason="down"), eos_id=EOS)
        )
        return rows

    one = msgspec.structs.replace(SHORT, max_steps=1)
    results: list[bytes] = []
    for stale in (False, True):
        output = tmp_path / str(stale)
        steps = train(policy_dir, output, lambda batch, stale=stale: rollouts(batch, stale), one)
        assert (steps[0].tally.stale, steps[0].tally.judge_failed) == ((1, 0) if stale else (0, 1))
        results.append(weights(output / "final"))
    assert results[0] == results[1] != weights(policy_dir)


def test_rows_a_step_behind_teach_where_staleness_is_allowed(policy_dir: Path, tmp_path: Path) -> None:
    def behind(batch: RolloutBatch) -> list[TrainingRow]:
        return [
            row if row.reward is None else msgspec.structs.replace(row, policy_version=max(0, batch.policy_version - 1))
            for row in episodes(batch)
        ]

    allowed = msgspec.structs.replace(SHORT, max_staleness=1)
    steps = train(policy_dir, tmp_path / "run", behind, allowed)
    assert [metrics.tally.stale for metrics in steps] == [0, 0]
    train(policy_dir, tmp_path / "exact", episodes, allowed)
    # The second step's rows are behind: their importance ratios count, so the result is another one.
    assert weights(tmp_path / "run" / "final") != weights(tmp_path / "exact" / "final")


def test_a_step_without_any_scored_episode_ends_the_run_and_names_what_happened(
    policy_dir: Path, tmp_path: Path
) -> None:
    def rollouts(batch: RolloutBatch) -> list[TrainingRow]:
        return [unscorable(r.task_id, r.group, Stale(age=3), eos_id=EOS) for r in batch.requests]

    with pytest.raises(NothingScored, match=r"none of the 8 episodes of step 1 .*8 stale"):
        train(policy_dir, tmp_path / "run", rollouts)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (one_less, "asked for 8 rows and got 7.*row 7"),
        (one_more, "asked for 8 rows and got 9.*row 8"),
        (swapped, "first difference is at row 0"),
    ],
)
def test_rows_that_are_not_those_asked_for_end_the_run(
    policy_dir: Path, tmp_path: Path, spoil: Callable[[list[TrainingRow]], list[TrainingRow]], complaint: str
) -> None:
    with pytest.raises(RolloutsWrong, match=complaint):
        train(policy_dir, tmp_path / "run", lambda batch: spoil(episodes(batch)))


def test_what_the_callbacks_raise_ends_the_run_as_it_is(policy_dir: Path, tmp_path: Path) -> None:
    def lost(weights: bytes, version: int) -> None:
        raise ConnectionResetError("the policy server is gone")

    with pytest.raises(ConnectionResetError, match="policy server is gone"):
        train(policy_dir, tmp_path / "run", publish=lost)


def test_a_directory_in_use_is_refused_and_another_configuration_named(policy_dir: Path, tmp_path: Path) -> None:
    train(policy_dir, tmp_path / "run")
    with pytest.raises(ValueError, match="another training run"):
        train(policy_dir, tmp_path / "run")
    with pytest.raises(ValueError, match="learning_rate differ"):
        train(policy_dir, tmp_path / "run", config=msgspec.structs.replace(SHORT, learning_rate=1.0), resume=True)
    with pytest.raises(ValueError, match="no prompts"):
        train(policy_dir, tmp_path / "none", prompts=[])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"num_generations": 1}, "at least 2"),
        ({"num_generations": 5}, "64 rollouts.*num_generations=5"),
        ({"save_total_limit": 1}, "no complete checkpoint"),
        ({"max_steps": 0}, "max_steps"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused_at_once(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        GrpoConfig(**change)


def test_training_says_nothing_on_the_terminal(
    policy_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train(policy_dir, tmp_path / "run")
    assert capfd.readouterr() == ("", "")
