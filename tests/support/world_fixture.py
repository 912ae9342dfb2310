"""How pytest comes to run a test once in each of its worlds."""

from __future__ import annotations

import inspect

import pytest
from support.worlds import Now, World, worlds

from palmette.actors import cell


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests that have worlds in each of them."""
    marker = metafunc.definition.get_closest_marker("worlds")
    if marker is None and inspect.iscoroutinefunction(metafunc.function):
        raise pytest.UsageError(f"{metafunc.definition.nodeid}: in which worlds? Put @everywhere above it")
    if marker is not None:
        if len(marker.args) < 2 and not marker.kwargs.get("why"):
            raise pytest.UsageError(f"{metafunc.definition.nodeid} runs in {marker.args} only: say why")
        drawn = marker.kwargs.get("drawn", False)
        metafunc.parametrize("world", worlds(*marker.args, drawn=drawn), ids=str, indirect=True)


@pytest.fixture(autouse=True)
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> World | None:
    """The world of this test; none for one that starts no system."""
    chosen: World | None = getattr(request, "param", None)
    monkeypatch.setattr(Now, "world", chosen)
    if chosen is not None:
        monkeypatch.setattr(cell, "BUSY", chosen.busy)
    return chosen
