"""`palmette up` brings a node up over SSH and takes it down at Ctrl-C, through a real sshd.

What it runs there is a Python that takes ``palmette node`` for the stand-in of the machines' tests.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
from support.command_line import CommandLine, end, until
from support.ssh_server import SshServer
from support.ssh_server import ssh_server as ssh_server
from support.ssh_server import sshd_program as sshd_program

STAND_IN = Path(__file__).parents[1] / "machines" / "node_stand_in.py"
PYTHON = f"""#!{sys.executable}
import os, sys
from pathlib import Path
words = sys.argv[1:]
if words[:3] == ["-m", "palmette", "node"]:
    os.execv({sys.executable!r}, [{sys.executable!r}, {str(STAND_IN)!r}, *words[3:]])
if "import accept" in words[1]:
    folder = Path(os.environ["PALMETTE_CLUSTER_DIR"])
    folder.mkdir()
    (folder / "bundle").write_text(sys.stdin.read())
else:
    os.execv({sys.executable!r}, [{sys.executable!r}, *words])
"""


@pytest.fixture
def words(command_line: CommandLine, ssh_server: SshServer) -> list[str]:
    """A command that works."""
    python = command_line.folder / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    bundle = command_line.folder / "gpuhost.bundle"
    bundle.write_text("SECRET")
    image = ssh_server.image()
    return [
        "up",
        image,
        "--head",
        "10.0.0.1:1900",
        "--bundle",
        str(bundle),
        "--pip=--no-index",
        "--python",
        str(python),
    ]


def told(command_line: CommandLine) -> dict[str, object]:
    for line in command_line.output()[1].splitlines():
        _, brace, rest = line.partition(": {")
        if brace:
            return json.loads("{" + rest)
    return {}


def test_a_node_comes_up_and_is_taken_down_at_ctrl_c(command_line: CommandLine, words: list[str]) -> None:
    process = command_line.start(*words, "--capability", "gpu=1", "--env", "HF_HOME=/models", "--name", "gpuhost")
    try:
        until(lambda: "is a member of the cluster at 10.0.0.1:1900 now" in command_line.output()[1], "the node")
        node = told(command_line)
        assert node["capabilities"] == ["--capability=gpu=1"]
        assert node["bundle"] == "SECRET"
        assert "'HF_HOME': '/models'" in str(node["environment"])
        assert all("SECRET" not in word for word in psutil.Process(process.pid).cmdline())
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        end(process)
    assert "palmette: taking gpuhost down" in command_line.output()[1]
    for pid in (node["pid"], node["child"]):
        assert isinstance(pid, int)
        assert not psutil.pid_exists(pid)
    assert [name for name in os.listdir("/tmp") if f"palmette-up.{process.pid}." in name] == []


def test_a_node_whose_command_is_killed_ends_with_the_connection(command_line: CommandLine, words: list[str]) -> None:
    process = command_line.start(words[0], f"{words[1]}&lease=2", *words[2:])
    try:
        until(lambda: "is a member of the cluster" in command_line.output()[1], "the node")
        node = told(command_line)
    finally:
        process.kill()
        end(process)
    until(lambda: not any(psutil.pid_exists(int(str(node[who]))) for who in ("pid", "child")), "the node to be gone")
    until(lambda: not [name for name in os.listdir("/tmp") if f"palmette-up.{process.pid}." in name], "its directory")


def test_a_host_that_cannot_be_reached_is_tried_again_and_said(command_line: CommandLine, words: list[str]) -> None:
    words[1] = f"ssh://nobody@127.0.0.1:1?config={os.devnull}"
    process = command_line.start(*words)
    try:
        until(lambda: command_line.output()[1].count("could not reach nobody@127.0.0.1:1") >= 2, "another try")
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(60) == 143
    finally:
        end(process)


def test_a_host_that_is_not_fit_is_given_up_at_once(command_line: CommandLine, words: list[str]) -> None:
    words[-1] = "/no/python"
    _, err = command_line.run(*words, code=1)
    assert "has no Python 3.11 or newer by the name of /no/python" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--capability", "gpu"], "a capability is NAME=VALUE"),
        (["--env", "HF_HOME"], "a variable is NAME=VALUE"),
        (["--head", ""], "which cluster?"),
    ],
)
def test_what_cannot_be_meant_is_said_at_once(
    command_line: CommandLine, words: list[str], change: list[str], said: str
) -> None:
    assert said in command_line.run(*words, *change, code=2)[1]


def test_only_ssh_carries_a_node(command_line: CommandLine, words: list[str]) -> None:
    words[1] = "docker:python:3.12"
    assert "write ssh://user@host instead of 'docker:python:3.12'" in command_line.run(*words, code=2)[1]
