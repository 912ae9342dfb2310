"""Each floor has a door, `__init__.py`, that lists what the floor offers: names only, sorted, all of them real."""

from __future__ import annotations

import ast
import json
import subprocess
import sys

import pytest
from house.layout import FLOORS, ROOT

DOORS = ("palmette", *(f"palmette.{floor}" for floor in FLOORS))


def offered(door: str) -> list[str]:
    """``__all__`` of ``door``, read from its source."""
    path = ROOT.joinpath(*door.split("."), "__init__.py")
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
    raise AssertionError(f"{door} has no __all__: list there the names that users may import from it")


def rank(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest, each by name: the order that ruff's RUF022 keeps."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2, name)


@pytest.mark.parametrize("door", DOORS)
def test_a_door_lists_its_names_once_and_in_order(door: str) -> None:
    names = offered(door)
    assert names == sorted(set(names), key=rank)


@pytest.mark.parametrize("door", DOORS)
def test_every_name_on_a_door_leads_somewhere(door: str) -> None:
    # In an interpreter of its own: some names load torch.
    script = (
        "import importlib, json, sys\n"
        "door = importlib.import_module(sys.argv[1])\n"
        "print(json.dumps([name for name in door.__all__ if not hasattr(door, name)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, door], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_the_public_face_finds_each_of_its_names_at_home() -> None:
    import palmette

    with pytest.raises(AttributeError, match=r"'Aktor'.*Actor"):
        palmette.Aktor  # noqa: B018  # pyright: ignore
    assert set(palmette.__all__) <= set(dir(palmette))
