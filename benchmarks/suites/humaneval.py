"""HumanEval: complete a Python function; judged by running hidden tests (Chen et al. 2021, arXiv:2107.03374).

The data directory holds ``HumanEval.jsonl.gz`` (or the same unpacked): ``task_id``, ``prompt``, ``entry_point``,
``canonical_solution``, ``test``. The answer may be the bare completion, the whole function, or either in a fenced code
block; it runs in the episode's own machine, after the agent is done, under limits of time and memory.

    palmette run humaneval --data DIR --agent reference
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from palmette.benchmarks.criteria import Program, UnitTests
from palmette.benchmarks.errors import BadData, UnknownRecording
from palmette.benchmarks.rubric import Rubric
from palmette.benchmarks.suites.files import Located, locate, read_rows
from palmette.benchmarks.task import GraderData, Task
from palmette.machines.contract import Machine

if TYPE_CHECKING:
    from palmette.agents.tools import Tool
    from palmette.benchmarks.benchmark import Dialect

FILES = ("HumanEval.jsonl.gz", "HumanEval.jsonl")
INSTRUCTION = "Complete this Python function. Answer with the whole function in one fenced code block."

_FENCE = re.compile(r"^[ ]{0,3}```[^\n`]*\n(.*?)(?:^[ ]{0,3}```[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)


class _Row(msgspec.Struct, frozen=True):
    task_id: str
    prompt: str
    entry_point: str
    canonical_solution: str
    test: str


class HumanEval:
    """The benchmark. Every episode gets a machine with a ``python3`` of 3.8 or newer on its path."""

    name = "humaneval"
    needs_machine = True
    dialect: Dialect = "native"

    def __init__(self, data: Path | None, *, interpreter: str = "python3", timeout: float = 40.0) -> None:
        """Read the problems (blocking). ``timeout`` is in seconds of wall clock for one problem's tests.

        Raises:
            MissingData: ``data`` is ``None`` or holds no HumanEval file.
            BadData: a line is unusable.
        """
        self._tasks = tuple(_tasks(locate(self.name, data, FILES)))
        self._solutions = {task.id: task.grader.answer for task in self._tasks}
        self._rubric = Rubric([UnitTests(build=program, interpreter=interpreter, timeout=timeout)])

    def tasks(self) -> Sequence[Task]:
        return self._tasks

    def rubric(self, task: Task) -> Rubric:
        return self._rubric

    def tools(self, task: Task, machine: Machine | None) -> Sequence[Tool]:
        """None: the problem is to be solved in one answer."""
        return ()

    def replies(self, task: Task, field: str) -> Sequence[str]:
        """One reply, the canonical solution, for ``"reference"``; the data set has no other recordings.

        Raises:
            UnknownRecording: any other ``field`` (it is a KeyError too).
        """
        if field != "reference":
            raise UnknownRecording(self.name, field, ["reference"])
        return (self._solutions[task.id],)


def program(task: Task, answer: str) -> Program:
    """What to run for ``answer``: the readings that make sense of it, best first, and the problem's tests."""
    stub, entry = task.grader.extra["stub"], task.grader.extra["entry_point"]
    return Program(sources=readings(answer, stub, entry), tests=task.grader.tests)


def readings(answer: str, stub: str, entry_point: str) -> tuple[str, ...]:
    """``answer`` as Python source in every way that it may be meant; the first that compiles is to be run.

    A text that defines ``entry_point`` is put after what the prompt has before it (imports, helper functions). Any
    other text continues the prompt; where its first line is not indented, a chat model or a client has stripped it, and
    it is tried with that line, then with every line, moved in. ``entry_point`` must be a Python identifier.
    """
    definition = re.compile(rf"^(?:async[ \t]+)?def[ \t]+{entry_point}[ \t]*\(", re.MULTILINE)
    blocks = [block for block in _FENCE.findall(answer) if block.strip()]
    text = next((block for block in reversed(blocks) if definition.search(block)), blocks[-1] if blocks else answer)
    if definition.search(text):
        found = definition.search(stub)
        before = stub[: found.start()] if found else ""
        return (f"{before}\n{text}\n",)
    body = text.lstrip("\r\n")
    if body[:1] in (" ", "\t"):
        return (f"{stub}{text}\n",)
    return (f"{stub}    {body}\n", f"{stub}{textwrap.indent(body, '    ')}\n", f"{stub}{body}\n")


def _tasks(file: Path) -> list[Task]:
    tasks: dict[str, tuple[Located, Task]] = {}
    for place, row in read_rows(file, _Row):
        if not row.entry_point.isidentifier() or f"def {row.entry_point}(" not in row.prompt:
            wrong = f"the prompt does not define its entry_point {row.entry_point!r}"
            raise BadData(*place, wrong, "correct the line or remove it")
        if "def check(" not in row.test:
            raise BadData(*place, "its test defines no function check(candidate)", "correct the line or remove it")
        if row.task_id in tasks:
            line = tasks[row.task_id][0].line
            raise BadData(*place, f"its task_id {row.task_id!r} stands on line {line} too", "remove one of the two")
        grader = GraderData(
            answer=row.canonical_solution,
            tests=f"{row.test}\n\ncheck({row.entry_point})\n",
            extra={"stub": row.prompt, "entry_point": row.entry_point},
        )
        prompt = f"{INSTRUCTION}\n\n```python\n{row.prompt.rstrip()}\n```"
        tasks[row.task_id] = (place, Task(id=row.task_id, prompt=prompt, grader=grader))
    return [task for _, task in tasks.values()]
