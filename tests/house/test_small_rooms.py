"""One concept per file: no module is longer than 400 lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from house.layout import modules, room

MOST_LINES = 400


@pytest.mark.parametrize("path", [*modules(), *modules("tests", "examples")], ids=room)
def test_a_module_has_at_most_400_lines(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= MOST_LINES, f"{room(path)} has {lines} lines; split it by concept"
