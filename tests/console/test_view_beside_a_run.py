"""The live view in a real terminal, and its parts: it shows what goes on, and never holds the run up."""

from __future__ import annotations

import doctest
import shlex
import shutil
import subprocess
import threading
from collections.abc import Iterator
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.command_line import CommandLine, programs, until

from palmette.actors import Crashed, ExitRecord, Normal
from palmette.actors import TreeNode as KernelNode
from palmette.benchmarks.journal import restarts as restarts_module
from palmette.benchmarks.journal.restarts import Restarts
from palmette.console import painter as painter_module
from palmette.console import plain, roles, summary
from palmette.console.kernel_tree import shown
from palmette.console.painter import Painter
from palmette.console.roles import RestartCounts, role_of
from palmette.console.snapshot import Snapshot


@pytest.fixture
def terminal(command_line: CommandLine) -> Iterator[tuple[CommandLine, list[str]]]:
    """A tmux server of this test alone, and the words that every command to it begins with."""
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    tmux = ["tmux", "-f", "/dev/null", "-S", str(command_line.folder / "t")]
    yield command_line, tmux
    subprocess.run([*tmux, "kill-server"], check=False, capture_output=True, timeout=10)


def shown_in(tmux: list[str]) -> str:
    return subprocess.run([*tmux, "capture-pane", "-p"], check=True, capture_output=True, text=True, timeout=10).stdout


def test_the_live_view_has_the_terminal_until_the_end_and_gives_it_back(
    terminal: tuple[CommandLine, list[str]],
) -> None:
    line, tmux = terminal
    programs(line.folder / "data", 6, seconds=1.0)
    environment = [f"{name}={line.environment[name]}" for name in ("PALMETTE_MACHINES", "XDG_RUNTIME_DIR", "PATH")]
    command = shlex.join(
        ["env", *environment, *line.words, "run", "humaneval", "--data", "data", "--agent", "reference",
         "--concurrency", "2"]
    )  # fmt: skip
    subprocess.run(
        [*tmux, "new-session", "-d", "-x", "80", "-y", "24", "-c", str(line.folder),
         f"echo before; {command}; echo after; exec cat"],
        check=True, timeout=10,
    )  # fmt: skip
    until(lambda: "2 episodes under way" in shown_in(tmux), "the live view")
    screen = shown_in(tmux)
    assert "before" not in screen, "the view has the screen for itself"
    assert "of 6" in screen
    assert "EpisodePool" in screen
    assert "\nafter" not in screen
    until(lambda: "\nafter" in shown_in(tmux), "the end")
    screen = shown_in(tmux)
    assert "6 requested = 6 scored" in screen
    assert "under way" not in screen, "what was there before the view is there again"
    assert line.leftovers() == []


class Stuck:
    """A terminal that takes nothing (Ctrl-S)."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.drawn: list[Snapshot] = []

    def draw(self, snapshot: Snapshot) -> None:
        self.go_on.wait(30)
        self.drawn.append(snapshot)

    def close(self) -> None: ...


def test_a_terminal_that_takes_nothing_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(painter_module, "CLOSE_SECONDS", 0.05)
    stuck = Stuck()
    painter = Painter(stuck)
    snapshots = [Snapshot(run_id=str(number), title="t") for number in range(100)]
    for snapshot in snapshots:
        painter.show(snapshot)
    painter.close()
    assert stuck.drawn == []
    stuck.go_on.set()
    until(lambda: snapshots[-1] in stuck.drawn, "the newest")
    assert len(stuck.drawn) <= 2, "only the first and the newest are drawn"


class Broken:
    def draw(self, snapshot: Snapshot) -> None:
        raise OSError("the terminal is gone")

    def close(self) -> None: ...


def test_what_goes_wrong_in_the_thread_is_raised_where_the_view_lives() -> None:
    painter = Painter(Broken())

    def raised() -> bool:
        try:
            painter.show(Snapshot(run_id="r", title="t"))
        except OSError as error:
            return str(error) == "the terminal is gone"
        return False

    until(raised, "the error")
    painter.close()


def test_a_child_that_has_done_its_work_is_done_and_one_that_crashed_is_down() -> None:
    def node(name: str, state: str, last_exit: str | None) -> KernelNode:
        return KernelNode(path=f"/{name}", name=name, kind="?", state=state, incarnation=2, last_exit=last_exit)

    root = KernelNode(
        path="/", name="/", kind="Supervisor", state="running", incarnation=1,
        children=(node("a", "down", "normal"), node("b", "down", "ValueError: x"), node("c", "running", "killed")),
    )  # fmt: skip
    tree = shown(root, root="run")
    assert [(child.state, child.detail) for child in tree.children] == [
        ("done", ""), ("down", "ValueError: x"), ("running", ""),
    ]  # fmt: skip
    assert [child.restarts for child in tree.children] == [1, 1, 1]
    cut = shown(root, root="run", most_children=1)
    assert ([child.name for child in cut.children], cut.hidden_children) == (["b"], 2)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40))
def test_every_crash_that_has_a_successor_is_one_restart(ends: list[tuple[str, bool]]) -> None:
    restarts, incarnations = Restarts(), dict.fromkeys("abc", 0)
    found: list[ExitRecord] = []
    expected = 0
    crashed: set[str] = set()
    for path, crash in ends:
        expected += path in crashed
        incarnations[path] += 1
        crashed = crashed | {path} if crash else crashed - {path}
        reason = Crashed("E", "x") if crash else Normal()
        record = ExitRecord(at=0.0, path=path, kind="K", incarnation=incarnations[path], reason=reason)
        found += restarts.saw(record)
    assert len(found) == expected
    assert restarts.settled(lambda path: incarnations[path]) == []
    assert len(restarts.settled(lambda path: incarnations[path] + 1)) == len(crashed)


def test_restarts_are_told_by_role() -> None:
    counts = RestartCounts(
        [("/rollouts/episodes/t-1+0/agent", "a"), ("/pool", "b"), ("/rollouts/episodes/t-2+0/agent", "c")]
    )
    first, second = counts.listed()
    assert (first.supervisor, first.child, first.count, first.last_reason) == ("/rollouts/episodes/*", "agent", 2, "c")
    assert (second.supervisor, second.child, second.count) == ("/", "pool", 1)
    assert role_of("/rollouts/episodes/t-1+0") == "/rollouts/episodes/*"


@pytest.mark.parametrize("module", [restarts_module, roles, plain, summary], ids=lambda module: module.__name__)
def test_the_examples_in_the_text_are_true(module: ModuleType) -> None:
    assert doctest.testmod(module).failed == 0
