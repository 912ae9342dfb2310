"""`palmette run` on machines of every kind, and what it does about those that a killed run has left.

``PALMETTE_HUMANEVAL=164`` plays all tasks; a few stand for them otherwise.
"""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import closing
from pathlib import Path

import pytest
from support import command_line as command_line_module
from support.command_line import CommandLine, end, programs, until
from support.docker_daemon import IMAGE, DockerDaemon
from support.places import Place
from support.places import place as place

from palmette.machines.docker.reaper import MACHINE_LABEL

# pyright: reportUnknownMemberType=false

# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

DATA = Path(os.environ.get("PALMETTE_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")) / "humaneval"
TASKS = int(os.environ.get("PALMETTE_HUMANEVAL", "6"))


@pytest.fixture(scope="module")
def daemon(docker_daemon: DockerDaemon) -> DockerDaemon:
    return docker_daemon


def containers(daemon: DockerDaemon) -> list[str]:
    with closing(daemon.client()) as client:
        found = client.containers(all=True, filters={"label": MACHINE_LABEL})
        return [str(one["Names"][0]).lstrip("/") for one in found]


@pytest.mark.timeout(120 + TASKS)
def test_the_reference_agent_solves_humaneval_on_every_kind_of_machine(
    command_line: CommandLine, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not DATA.is_dir():
        pytest.skip(f"the data set humaneval is not in {DATA.parent}; name its parent with PALMETTE_DATA")
    command_line.environment |= place.environment
    monkeypatch.setattr(command_line_module, "DEADLINE", 60.0 + TASKS)
    found = command_line.json(
        "run", "humaneval", "--data", str(DATA), "--agent", "reference", "--machine", place.image, "--limit", str(TASKS)
    )
    assert (found["reward_1"], found["outcomes"]["scored"], found["requested"]) == (TASKS, TASKS, TASKS)
    assert found["restarts"] == []
    assert command_line.leftovers() == []


def test_a_killed_runs_containers_are_gone_before_it_is_resumed(
    command_line: CommandLine, daemon: DockerDaemon
) -> None:
    command_line.environment["DOCKER_HOST"] = daemon.url
    programs(command_line.folder / "data", 4, seconds=60.0)
    words = ["run", "humaneval", "--data", "data", "--agent", "reference", "--machine", f"docker:{IMAGE}?memory=256m"]
    process = command_line.start(*words, "--concurrency", "2")
    try:
        until(lambda: len(containers(daemon)) >= 2, "two containers")
    finally:
        end(process)
    left = containers(daemon)
    shutil.rmtree(command_line.folder / "data")
    programs(command_line.folder / "data", 4)
    run = command_line.run_id()
    assert run is not None
    _, err = command_line.run("resume", run)
    assert f"palmette: docker: removed {len(left)} machines that killed runs had left" in err
    assert not set(left) & set(containers(daemon))
    assert command_line.rows(f"select count(*), sum(reward) from episodes where run = '{run}'") == [(4, 2.0)]
    assert containers(daemon) == []


def test_a_daemon_that_cannot_be_asked_is_told_of_at_once(command_line: CommandLine) -> None:
    command_line.environment["DOCKER_HOST"] = f"unix://{command_line.folder}/nobody.sock"
    programs(command_line.folder / "data", 1)
    words = ["run", "humaneval", "--data", "data", "--agent", "reference", "--machine", f"docker:{IMAGE}"]
    process = command_line.start(*words)
    try:
        until(lambda: "what killed runs have left is still there" in command_line.output()[1], "the sentence")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    finally:
        end(process)
    err = command_line.output()[1]
    assert "Traceback" not in err, err
    assert "DOCKER_HOST" in err
