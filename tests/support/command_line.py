"""``palmette`` as people run it: real processes, each test's journal, sandboxes and sockets in a folder of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

DEADLINE = 60.0


class CommandLine:
    """Runs ``palmette`` in ``folder``."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.journal = folder / "palmette.db"
        self.machines = folder / "m"
        self.sockets = folder / "x"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PALMETTE", "OPENAI"))}
        for directory in (self.machines, self.sockets):
            directory.mkdir(mode=0o700, exist_ok=True)
        self.environment = {
            **kept,
            "PALMETTE_MACHINES": str(self.machines),
            "XDG_RUNTIME_DIR": str(self.sockets),
            "OMP_NUM_THREADS": "1",
            "TERM": "xterm-256color",
            "COLUMNS": "100",
            **environment,
        }

    @property
    def words(self) -> list[str]:
        """The command itself."""
        return [sys.executable, "-m", "palmette"]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """In a process group of its own; standard output and error go to files, see :meth:`output`."""
        with (self.folder / "out").open("w") as out, (self.folder / "err").open("w") as err:
            return subprocess.Popen(
                [*self.words, *arguments],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                text=True,
                start_new_session=True,
            )

    def output(self) -> tuple[str, str]:
        """What the command started last printed: standard output, standard error."""
        return (self.folder / "out").read_text(), (self.folder / "err").read_text()

    def run(self, *arguments: str, code: int = 0, seconds: float = DEADLINE) -> tuple[str, str]:
        """Run to the end, which must come with ``code`` and within ``seconds``; standard output and error."""
        process = self.start(*arguments)
        try:
            found = process.wait(seconds)
        finally:
            end(process)
        out, err = self.output()
        assert found == code, f"exit code {found} instead of {code}\n{out}\n{err}"
        return out, err

    def json(self, *arguments: str) -> Any:
        """Run with ``--json`` and decode all of standard output."""
        return json.loads(self.run(*arguments, "--json")[0])

    def fails(self, *arguments: str, code: int) -> str:
        """Run; it must end with ``code`` and one sentence on standard error, which is returned."""
        out, err = self.run(*arguments, code=code)
        assert out == ""
        lines = [line for line in err.splitlines() if line.startswith("palmette: ")]
        assert "Traceback" not in err
        assert lines, err
        return lines[-1]

    # --- looking into it -----------------------------------------------------------------------------------------

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the journal; nothing while it is not there yet."""
        if not self.journal.exists():
            return []
        database = sqlite3.connect(f"file:{self.journal}?mode=ro", uri=True, timeout=10)
        try:
            return database.execute(query).fetchall()
        except sqlite3.OperationalError:  # the tables are not there yet
            return []
        finally:
            database.close()

    def run_id(self) -> str | None:
        found = self.rows("select id from runs order by created desc")
        return found[0][0] if found else None

    def ended(self) -> int:
        """Episodes that ended in all runs."""
        found = self.rows("select count(*) from episodes")
        return found[0][0] if found else 0

    def scores(self, run: str) -> Mapping[str, tuple[str, float | None]]:
        """Outcome and reward by task; a task that ended twice fails."""
        found = self.rows(f"select task, kind, reward from episodes where run = '{run}'")
        scores = {task: (kind, reward) for task, kind, reward in found}
        assert len(scores) == len(found), "a task ended twice"
        return scores

    def leftovers(self) -> list[str]:
        """Sandboxes, sockets, and processes of ours that are still there."""
        left = [str(path) for parent in (self.machines, self.sockets / "palmette") for path in list_of(parent)]
        return left + [f"process {pid}" for pid in self._processes()]

    def _processes(self) -> list[int]:
        """Processes that work in one of our sandboxes, or run palmette with our environment."""
        found: list[int] = []
        mark = f"XDG_RUNTIME_DIR={self.sockets}".encode()
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) != os.getpid():
                try:
                    inside = os.readlink(f"/proc/{entry}/cwd").startswith(str(self.machines))
                    ours = mark in Path(f"/proc/{entry}/environ").read_bytes()
                except OSError:
                    continue
                if inside or ours:
                    found.append(int(entry))
        return found


def list_of(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.exists() else []


def end(process: subprocess.Popen[str]) -> None:
    """Whatever became of the test, the process group is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


def until(true: Callable[[], bool], what: str, *, seconds: float = 30.0) -> None:
    """Poll, with a deadline."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"{what} did not come within {seconds:g} s"
        time.sleep(0.002)


def programs(folder: Path, count: int, *, seconds: float = 0.0) -> Path:
    """A data set in HumanEval's form: every third reference solution is wrong, and each test takes ``seconds``."""
    folder.mkdir()
    lines = [
        json.dumps(
            {
                "task_id": f"Program/{number}",
                "prompt": f"def number():\n    '''Return {number}.'''\n",
                "entry_point": "number",
                "canonical_solution": f"    return {number if number % 3 else -1}\n",
                "test": f"def check(candidate):\n    import time\n    time.sleep({seconds})\n"
                f"    assert candidate() == {number}\n",
            }
        )
        for number in range(count)
    ]
    (folder / "HumanEval.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def command_line(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """A command line in a folder of its own, whose path is short enough for sockets."""
    return CommandLine(tmp_path_factory.mktemp("cli"))
