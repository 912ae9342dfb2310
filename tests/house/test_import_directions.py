"""Imports run only downwards (console, trainers, benchmarks, agents, machines, supervisors, actors), absolutely."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from house.layout import FLOORS, ROOT, modules, room

# What a floor may take from the public face itself; its other names are doors to the floors.
_FACE = {"__version__"}


def complaints(source: str, floor: str) -> Iterator[str]:
    """What is wrong with the imports of a module on ``floor``, as ``line: advice``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"{node.lineno}: a relative import; write palmette.{floor}.… in full"
        elif isinstance(node, ast.ImportFrom):
            for target in _targets(node):
                yield from _judge(target, floor, node.lineno)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield from _judge(alias.name, floor, node.lineno)


def _targets(node: ast.ImportFrom) -> list[str]:
    if node.module == "palmette":
        return [f"palmette.{alias.name}" for alias in node.names]
    return [node.module or ""]


def _judge(target: str, floor: str, line: int) -> Iterator[str]:
    first, _, rest = target.partition(".")
    if first in FLOORS:
        yield f"{line}: imports {target}; the import name is palmette.{target}"
    if first != "palmette":
        return
    above = rest.partition(".")[0]
    if above in FLOORS:
        if floor in FLOORS and FLOORS.index(above) < FLOORS.index(floor):
            yield f"{line}: {floor} imports from {above}, which is above it"
    elif floor in FLOORS and above not in _FACE:
        yield f"{line}: {floor} imports {target} from the public face; import it from its own floor"


@pytest.mark.parametrize("path", modules(), ids=room)
def test_imports_run_downwards(path: Path) -> None:
    floor = path.relative_to(ROOT).parts[0]
    assert list(complaints(path.read_text(), floor)) == []


@pytest.mark.parametrize(
    ("source", "floor"),
    [
        ("from palmette.console.live import render", "actors"),
        ("def f():\n    import palmette.supervisors", "actors"),
        ("from palmette import trainers", "agents"),
        ("from .cell import Cell", "actors"),
        ("import machines.local", "agents"),
        ("from actors import Actor", "console"),
        ("from palmette import Actor", "supervisors"),
    ],
)
def test_an_import_that_runs_upwards_is_found(source: str, floor: str) -> None:
    assert len(list(complaints(source, floor))) == 1


@pytest.mark.parametrize(
    ("source", "floor"),
    [
        ("from palmette.actors import Actor", "console"),
        ("from palmette.machines.local import LocalMachine", "machines"),
        ("from palmette import __version__", "actors"),
        ("from palmette import actors", "supervisors"),
        ("import machinery, actors_of_others", "agents"),
    ],
)
def test_an_import_that_runs_downwards_is_fine(source: str, floor: str) -> None:
    assert list(complaints(source, floor)) == []
