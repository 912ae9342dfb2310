"""Where real data lies, and a machine to judge in."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from support.postgres_server import PostgresServer

from palmette.benchmarks.journal import JournalStore
from palmette.machines import LocalMachine

DataOf = Callable[[str], Path]


@pytest.fixture(scope="session")
def data_of() -> DataOf:
    """The directory of a real data set; the test is skipped where it is not there."""
    root = Path(os.environ.get("PALMETTE_DATA", Path(__file__).resolve().parents[2].parent / "shared" / "data"))

    def find(name: str) -> Path:
        if not (root / name).is_dir():
            pytest.skip(f"no data set {name} in {root}; set PALMETTE_DATA to the directory that holds it")
        return root / name

    return find


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[LocalMachine]:
    async with LocalMachine("test", root=tmp_path / "machines") as machine:
        yield machine


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def new_schema(request: pytest.FixtureRequest) -> Callable[[], str] | None:
    """Makes an empty PostgreSQL schema and gives its URL; ``None`` in the half of the tests that is SQLite's."""
    if request.param == "sqlite":
        return None
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.new_schema


@pytest.fixture
def journal_url(new_schema: Callable[[], str] | None, tmp_path: Path) -> str:
    """Where there is no journal yet: what asks for it is tested on SQLite and on PostgreSQL."""
    return f"sqlite:///{tmp_path}/runs.db" if new_schema is None else new_schema()


@pytest.fixture
def store(journal_url: str) -> Iterator[JournalStore]:
    with JournalStore(journal_url) as store:
        yield store


@pytest.fixture(autouse=True)
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where episodes have their machines; nothing of them may be left."""
    place = tmp_path / "of-episodes"
    monkeypatch.setenv("PALMETTE_MACHINES", str(place))
    yield place
    assert not place.exists() or os.listdir(place) == []
