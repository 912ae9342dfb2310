"""What cannot be played on a cluster is told in one sentence, before anything is recorded."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from support.command_line import CommandLine

from palmette.actors.cluster.authority import create
from palmette.actors.cluster.credentials import VARIABLE
from palmette.benchmarks.journal import JournalStore
from palmette.benchmarks.run import RunConfig
from palmette.console.work import command_of, fields

TRAIL = ("run", "trail", "--agent", "reference", "--limit", "2")


@pytest.fixture
def credentials(command_line: CommandLine) -> Path:
    folder = command_line.folder / "credentials"
    command_line.environment[VARIABLE] = str(folder)
    return folder


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--fleets", "2"], ["--fleets", "--cluster HOST:PORT"]),
        (["--needs", "gpu=1"], ["--needs", "--cluster HOST:PORT"]),
        (["--cluster", "h:1", "--fleets", "0"], ["--fleets", "at least 1"]),
        (["--cluster", "h:1", "--needs", "gpu"], ["'gpu'", "KEY=VALUE"]),
        (["--cluster", "h:1", "--needs", "gpu=some"], ["'gpu=some'"]),
        (["--cluster", "h:1", "--needs", "gpus=1"], ["'gpus'", "did you mean 'gpu'"]),
        (["--cluster", "h:port"], ["'h:port'", "HOST:PORT"]),
    ],
)
def test_what_cannot_be_meant_of_a_cluster_is_told_with_code_2(
    command_line: CommandLine, credentials: Path, words: list[str], told: list[str]
) -> None:
    sentence = command_line.fails(*TRAIL, *words, code=2)
    for part in told:
        assert part in sentence
    assert not command_line.journal.exists()


def test_a_host_without_credentials_is_told_how_to_come_by_them(command_line: CommandLine, credentials: Path) -> None:
    sentence = command_line.fails(*TRAIL, "--cluster", "127.0.0.1:1900", code=1)
    assert "palmette cluster" in sentence
    assert not command_line.journal.exists()


def test_where_no_head_answers_it_is_said_how_to_start_one(command_line: CommandLine, credentials: Path) -> None:
    create(credentials, "here")
    with socket.socket() as taken:  # and nobody listens
        taken.bind(("127.0.0.1", 0))
        head = f"127.0.0.1:{taken.getsockname()[1]}"
        command_line.environment["PALMETTE_CLUSTER"] = head
        sentence = command_line.fails(*TRAIL, code=1)
    assert f"no head answers at {head}" in sentence
    assert "palmette node" in sentence
    assert not command_line.journal.exists()


def test_the_command_that_makes_the_same_run_says_where(tmp_path: Path) -> None:
    config = RunConfig(benchmark="trail", cluster="a:1900", fleets=2, needs=("docker=yes", "zone=eu"))
    with JournalStore(f"sqlite:///{tmp_path}/runs.db") as store:
        run = store.create_run("trail", {"kind": "evaluate", **fields(config)})
        assert command_of(store.get_run(run.id)) == (
            "palmette run trail --cluster a:1900 --fleets 2 --needs docker=yes --needs zone=eu"
        )
