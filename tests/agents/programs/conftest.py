"""Every test here runs in real time and in the simulation, where it can: see ``support.worlds``."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.world_fixture import pytest_generate_tests as pytest_generate_tests
from support.world_fixture import world as world


@pytest.fixture
def machines_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where local machines have their directories; empty again when the test ends."""
    home = tmp_path / "machines"
    monkeypatch.setenv("PALMETTE_MACHINES", str(home))
    yield home
    assert not home.exists() or not list(home.iterdir())
