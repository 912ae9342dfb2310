"""Each process loads what it needs: the memory of a run is the sum over its processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def loaded(script: str) -> set[str]:
    """The top-level modules of an interpreter that has run ``script``."""
    done = subprocess.run(
        [sys.executable, "-c", script + "\nimport sys\nprint(*{name.partition('.')[0] for name in sys.modules})"],
        capture_output=True,
        text=True,
        timeout=100.0,
        check=True,
    )
    return set(done.stdout.split())


def test_who_talks_to_a_policy_loads_no_torch(policy_dir: Path) -> None:
    script = (
        "from palmette.trainers import Batcher, Codec, PolicyClient, training_row, GrpoConfig, SftConfig\n"
        f"PolicyClient(None, Codec.load({str(policy_dir)!r})).session('t', seed=0)"
    )
    assert loaded(script) & {"torch", "trl", "datasets", "pandas", "pyarrow", "uvicorn"} == set()


def test_who_serves_a_policy_loads_no_trainer(policy_dir: Path) -> None:
    script = (
        "from palmette.trainers import OpenAIEndpoint, PolicyEngine, SampleRequest\n"
        f"PolicyEngine({str(policy_dir)!r}).generate([SampleRequest(prompt_ids=(5,), max_tokens=2)])"
    )
    found = loaded(script)
    assert "torch" in found
    assert found & {"trl", "datasets", "pandas", "pyarrow"} == set()


def test_a_name_that_is_not_there_is_named() -> None:
    import palmette.trainers

    with pytest.raises(AttributeError, match="PPOTrainer"):
        palmette.trainers.PPOTrainer  # noqa: B018  # pyright: ignore
