"""Every test here runs twice: an idle actor with few messages so far has no task, a busy one keeps its own."""

import pytest

from palmette.actors import cell


@pytest.fixture(params=[cell.BUSY, 0], ids=["taskless", "parked"], autouse=True)
def idle_actors(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many messages make an actor worth a task of its own."""
    monkeypatch.setattr(cell, "BUSY", request.param)
