"""README's tour of several hosts, executed: three terminals, a node killed, and the tree as it is afterwards."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tour import agrees, blocks, sessions

SECONDS = 90.0


class Terminal:
    """Something that was typed, and runs on."""

    def __init__(self, command: str, folder: Path, environment: dict[str, str]) -> None:
        self.command = command
        self._output = folder / f"{len(list(folder.glob('*.terminal')))}.terminal"
        with self._output.open("wb") as output:
            self._process = psutil.Popen(
                shlex.split(command),
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def said(self) -> str:
        return self._output.read_text()

    def kill(self) -> None:
        """Everything that it has started."""
        with contextlib.suppress(psutil.NoSuchProcess):
            processes = [self._process, *self._process.children(recursive=True)]
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(processes, timeout=20)

    def end(self) -> None:
        """In order, if it still runs."""
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(psutil.TimeoutExpired):
                self._process.wait(30)
        self.kill()


@pytest.fixture
def terminals() -> Iterator[dict[str, Terminal]]:
    terminals: dict[str, Terminal] = {}
    yield terminals
    for terminal in reversed(terminals.values()):
        terminal.end()


def _until(true: Callable[[], bool], told: Callable[[], str]) -> None:
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end, told()
        time.sleep(0.1)


@pytest.mark.timeout(400)
def test_the_tour_of_several_hosts_does_what_it_says(tmp_path: Path, terminals: dict[str, Terminal]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "XDG_RUNTIME_DIR": str(tmp_path),
        "TMPDIR": str(tmp_path),  # where a node that is killed whole leaves a directory
        "PALMETTE_CLUSTER_DIR": str(tmp_path / "cluster"),
        "PALMETTE_CLUSTER": f"127.0.0.1:{port}",
    }
    asked = 0
    for language, options, body in blocks("Several hosts"):
        # 1900 may be somebody's on this machine.
        body = body.replace("1900", port)
        if language == "python":
            (tmp_path / options.removeprefix("file=")).write_text(body)
            continue
        if options.startswith("after=kill-"):
            terminals[options.removeprefix("after=kill-")].kill()
        for command, shown in sessions(body):
            if options.startswith("terminal="):
                command += f" --port {port}" if command.startswith("palmette node --loss") else ""
                name = options.removeprefix("terminal=")
                terminals[name] = terminal = Terminal(command, tmp_path, environment)
                _until(lambda t=terminal, s=shown: bool(t.said()) and agrees(s, t.said()), terminal.said)
            else:
                _until_shown(command, shown, tmp_path, environment)
                asked += 1
    assert asked == 4


def _until_shown(command: str, shown: str, folder: Path, environment: dict[str, str]) -> None:
    printed = ""

    def as_shown() -> bool:
        nonlocal printed
        done = subprocess.run(
            shlex.split(command), cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        printed = done.stdout + done.stderr
        return done.returncode == 0 and agrees(shown, done.stdout)

    _until(as_shown, lambda: f"$ {command}\nshown:\n{shown}\nprinted:\n{printed}")
