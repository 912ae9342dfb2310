"""The warm start teaches the assistant's words, quietly, and leaves a whole policy or none; GRPO goes on from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from support.trail_rollouts import evaluate_in_process, rollout_in_process

from palmette.agents.conversation import Message
from palmette.benchmarks.suites.trail import Trail, demonstrations
from palmette.trainers.engine import PolicyEngine
from palmette.trainers.grpo import run_grpo
from palmette.trainers.grpo_config import GrpoConfig, StepMetrics
from palmette.trainers.policy import create
from palmette.trainers.sft import SftConfig, warm_start

HI = [Message(role="user", content="hi"), Message(role="assistant", content="ho")]


def test_a_policy_learns_to_walk_by_example_and_then_by_reward(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The demo's line in small: a third of its steps. Seeds are fixed, so this is no gamble."""
    create(tmp_path / "blank", seed=0)
    calls: list[tuple[int, int, float]] = []

    def on_step(step: int, total: int, metrics: Mapping[str, float]) -> None:
        calls.append((step, total, metrics["loss"]))

    did = warm_start(
        tmp_path / "blank", demonstrations(3200), SftConfig(max_steps=100), tmp_path / "started", on_step=on_step
    )
    assert [(step, total) for step, total, _ in calls] == [(step, 100) for step in range(1, 101)]
    assert (did.steps, did.conversations) == (100, 3200)
    assert (did.first_loss, did.last_loss) == (calls[0][2], calls[-1][2])
    assert did.first_loss > 5.0  # about ln 262: a blank policy
    assert did.last_loss < 0.7

    engine = PolicyEngine(tmp_path / "started")
    test, train = Trail(128), Trail(64, split="train")
    before = evaluate_in_process(engine, test)
    steps: list[StepMetrics] = []
    run_grpo(
        GrpoConfig(max_steps=12),
        model_dir=tmp_path / "started",
        output_dir=tmp_path / "run",
        prompts=[(task.id, task.prompt) for task in train.tasks()],
        rollouts=lambda batch: rollout_in_process(engine, train, batch),
        publish=engine.load_weights,
        on_step=steps.append,
    )
    after = evaluate_in_process(PolicyEngine(tmp_path / "run" / "final"), test)
    assert all(metrics.tally.scored == 64 for metrics in steps)
    assert before < 0.35
    assert after > before + 0.2
    assert capfd.readouterr() == ("", "")


def test_bad_input_is_named_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no conversations"):
        warm_start("nowhere", [], SftConfig(), tmp_path / "out")
    with pytest.raises(ValueError, match="conversation 1 has no assistant"):
        warm_start("nowhere", [HI, HI[:1]], SftConfig(), tmp_path / "out")
    (tmp_path / "taken").mkdir()
    with pytest.raises(ValueError, match="taken exists already"):
        warm_start("nowhere", [HI], SftConfig(), tmp_path / "taken")


def test_a_warm_start_that_is_stopped_leaves_no_policy(policy_dir: Path, tmp_path: Path) -> None:
    def stop(step: int, total: int, metrics: Mapping[str, float]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        warm_start(policy_dir, [HI] * 4, SftConfig(max_steps=3), tmp_path / "out", on_step=stop)
    assert list(tmp_path.iterdir()) == []
