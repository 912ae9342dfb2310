"""Machines in a directory of the test's own, and the proof that nothing of them is left."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hosted_support import Bench
from machines_support import groups_of, list_root, open_descriptors, tagged, until

from palmette.machines import LocalMachine, tree


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where machines go in this test, by default too."""
    path = tmp_path / "machines"
    monkeypatch.setenv("PALMETTE_MACHINES", str(path))
    return path


@pytest.fixture(params=["group", "tags"])
def containment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to kill a tree: by control group, and by environment tag where no group can be made."""
    kind: str = request.param
    if kind == "tags":
        monkeypatch.setattr(tree, "writable_group", lambda: None)
    elif tree.writable_group() is None:
        pytest.skip("no control group can be made here")
    return kind


@pytest.fixture
async def started(root: Path) -> AsyncIterator[Callable[[], LocalMachine]]:
    """Makes machines that the test need not stop; checks for leaks when all are stopped."""
    tree.writable_group()
    made: list[LocalMachine] = []
    descriptors = open_descriptors()

    def make() -> LocalMachine:
        made.append(LocalMachine("test-run"))
        return made[-1]

    yield make
    for one in made:
        await one.stop()
    assert list_root(root) == []
    assert groups_of(os.getpid()) == []
    await until(lambda: tagged(f".{os.getpid()}.") == [], "every tagged process to be gone")
    assert open_descriptors() - descriptors == set()


@pytest.fixture
async def machine(started: Callable[[], LocalMachine]) -> LocalMachine:
    """A machine that runs."""
    one = started()
    await one.start()
    return one


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Makes hosted machines over the plain backend; checks for leaks when all are stopped."""
    made = Bench(tmp_path / "places")
    descriptors = open_descriptors()
    yield made
    for one in made.made:
        await one.stop()
    assert list_root(made.root) == []
    await until(lambda: tagged(f".{os.getpid()}.") == [], "every tagged process to be gone")
    assert open_descriptors() - descriptors == set()
