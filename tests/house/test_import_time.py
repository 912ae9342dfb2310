"""`import palmette` is quick because of what it leaves alone. Seconds vary by machine; the set of modules does not."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from house.layout import FLOORS, ROOT

HEAVY = {
    "torch", "trl", "transformers", "datasets", "openai", "sqlalchemy", "textual", "rich", "thespian", "docker",
    "paramiko", "e2b", "cryptography", "starlette", "uvicorn", "numpy", "pandas", "typer",
}  # fmt: skip

# Nothing on these floors needs a model, so even their doors and commands come without one.
MODELS = {"torch", "trl", "transformers", "datasets", "openai", "numpy", "pandas"}


def loaded(statement: str) -> set[str]:
    """Top-level names of the modules that a fresh interpreter holds after ``statement``."""
    script = f"{statement}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def seconds(statement: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], cwd=ROOT, check=True, timeout=60)
    return time.perf_counter() - started


@pytest.mark.parametrize(
    "statement", ["import palmette", "import palmette.actors", "from palmette import Actor, Supervisor"]
)
def test_no_heavy_library_is_loaded_before_it_is_needed(statement: str) -> None:
    assert loaded(statement) & HEAVY == set()


@pytest.mark.parametrize("floor", FLOORS)
def test_no_door_loads_a_model_library(floor: str) -> None:
    assert loaded(f"import palmette.{floor}") & MODELS == set()


def test_import_palmette_costs_little_more_than_starting_python(
    record_property: Callable[[str, object], None],
) -> None:
    bare = min(seconds("pass") for _ in range(3))
    full = min(seconds("import palmette") for _ in range(3))
    record_property(
        "summary", f"import palmette: {1000 * (full - bare):.0f} ms on top of Python's {1000 * bare:.0f} ms"
    )
    # A ratio, not seconds: 20 interpreter starts would mean that something big is loaded after all.
    assert full < 20 * bare
