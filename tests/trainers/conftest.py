"""One small random policy for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from palmette.trainers.engine import PolicyEngine
from palmette.trainers.policy import PolicyConfig, create


@pytest.fixture(scope="session")
def policy_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, drawn wide so that the distributions are far from uniform."""
    return create(tmp_path_factory.mktemp("policy") / "policy", seed=1, config=PolicyConfig(initializer_range=0.3))


@pytest.fixture(scope="session")
def engine(policy_dir: Path) -> PolicyEngine:
    """For tests that leave its weights alone."""
    return PolicyEngine(policy_dir)
